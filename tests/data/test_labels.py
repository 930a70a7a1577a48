"""Raw funnel columns to labels and row faults."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pyarrow as pa
import pytest

from postclick.data.faults import RowFaults
from postclick.data.labels import NO_ID, NO_TIME, parse_labels, row_number_ids, to_microseconds
from postclick.errors import DataError
from postclick.schema import Columns, Schema, SparseFeature


def parse(columns, roles=None, **options):
    schema = Schema((SparseFeature("f"),), Columns(**(roles or {})))
    batch = pa.RecordBatch.from_pydict(columns)
    faults = RowFaults(batch.num_rows)
    return parse_labels(batch, schema, faults, **options), faults


MISSING, DOMAIN = "data.label_missing", "data.label_domain"


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        (pa.array([0, 1, None, 2, -1]), [0, 1, MISSING, DOMAIN, DOMAIN]),
        (pa.array([0.0, 1.0, 0.5, np.nan, np.inf, None]), [0, 1, DOMAIN, MISSING, MISSING, MISSING]),
        (pa.array([True, False, None]), [1, 0, MISSING]),
        (pa.array(["0", "1", "1.0", "yes", "", "nan", None]), [0, 1, 1, DOMAIN, MISSING, MISSING, MISSING]),
        (pa.array([1.0 + 2**-52]), [DOMAIN]),
        (pa.nulls(1), [MISSING]),
    ],
)
def test_labels_are_exactly_0_or_1(values, wanted):
    parsed, faults = parse({"click": values, "conversion": pa.array([0] * len(values))})
    names = [
        faults.names(np.array([i]))[0] if faults.faulty[i] else int(parsed.labels.click[i]) for i in range(len(values))
    ]
    assert names == wanted


def test_other_types_are_refused():
    with pytest.raises(DataError, match="expected a label of 0 and 1, found list"):
        parse({"click": [[1]], "conversion": [0]})


CLICK, CONVERSION = [1, 0, 1, 0], [1, 1, 0, 0]


@pytest.mark.parametrize(
    ("policy", "click", "conversion", "orphans"),
    [
        ("set_click", [1, 1, 1, 0], [1, 1, 0, 0], [False, True, False, False]),
        ("view_through", CLICK, [1, 0, 0, 0], [False, True, False, False]),
        ("reject", CLICK, [1, 0, 0, 0], [False] * 4),
    ],
)
def test_a_conversion_without_click(policy, click, conversion, orphans):
    parsed, faults = parse({"click": CLICK, "conversion": CONVERSION}, policy=policy)
    assert parsed.labels.click.tolist() == click
    assert parsed.labels.conversion.tolist() == conversion
    assert parsed.orphans.tolist() == orphans
    assert faults.counts() == ({"data.conversion_without_click": 1} if policy == "reject" else {})
    view_through = None if parsed.labels.view_through is None else parsed.labels.view_through.tolist()
    assert view_through == ([0, 1, 0, 0] if policy == "view_through" else None)


def test_ids_keep_their_digits_and_missing_ones_are_marked():
    values = [2**24, 2**24 + 1, 2**53, 2**53 + 1, None]
    zeros = {"click": [0] * 5, "conversion": [0] * 5}
    parsed, faults = parse({**zeros, "u": values, "k": values}, {"user_id": "u", "exposure_id": "k"})
    assert parsed.labels.user_id.tolist() == [*values[:4], NO_ID]
    assert len(set(parsed.labels.exposure_id.tolist())) == 5
    assert faults.counts() == {"data.duplicate_key": 1}
    parsed, _ = parse({**zeros, "u": ["a", None, "b", "c", ""]}, {"user_id": "u"})
    assert parsed.labels.user_id.tolist() == ["a", "", "b", "c", ""]


def test_row_numbers_serve_as_exposure_ids():
    found = row_number_ids(3, 5, 2)
    assert found.tolist() == [(3 << 40) + 5, (3 << 40) + 6]
    parsed, _ = parse({"click": [0, 0], "conversion": [0, 0]}, row_ids=found)
    assert parsed.labels.exposure_id is found


MOMENT = dt.datetime(2021, 3, 4, 5, 6, 7, 890_123, dt.UTC)
MICROSECONDS = round(MOMENT.timestamp() * 1e6)


@pytest.mark.parametrize(
    ("array", "unit", "wanted"),
    [
        (pa.array([1_614_834_367]), "s", 1_614_834_367_000_000),
        (pa.array([1_614_834_367.5]), "s", 1_614_834_367_500_000),
        (pa.array([MICROSECONDS // 1000]), "ms", MICROSECONDS // 1000 * 1000),
        (pa.array([MICROSECONDS]), "us", MICROSECONDS),
        (pa.array([MICROSECONDS * 1000 + 999]), "ns", MICROSECONDS),
        (pa.array([MOMENT.replace(tzinfo=None)], pa.timestamp("us")), "s", MICROSECONDS),
        (pa.array([MOMENT], pa.timestamp("ns", "Europe/Berlin")), "s", MICROSECONDS),
        (pa.array([MOMENT.date()]), "s", round(dt.datetime(2021, 3, 4, tzinfo=dt.UTC).timestamp() * 1e6)),
        (pa.array(["2021-03-04 05:06:07.890123"]), "s", MICROSECONDS),
    ],
)
def test_times_are_microseconds_utc(array, unit, wanted):
    found, missing = to_microseconds(array, unit, "t")
    assert (found.tolist(), missing.tolist()) == ([wanted], [False])


def test_missing_times():
    for array in (pa.array([None, 1]), pa.array([None, 1], pa.timestamp("s")), pa.array([np.nan, 1.0])):
        found, missing = to_microseconds(array, "s", "t")
        assert (found.tolist(), missing.tolist()) == ([NO_TIME, 1_000_000], [True, False])
    zeros = {"click": [0, 0], "conversion": [0, 0], "t": [None, 1], "c": [None, None]}
    parsed, faults = parse(zeros, {"time": "t", "click_time": "c"})
    assert faults.counts() == {"data.time_order": 1}
    assert parsed.labels.click_time.tolist() == [NO_TIME, NO_TIME]


def test_times_in_another_unit_or_none_are_refused():
    _, faults = parse(
        {"click": [0] * 3, "conversion": [0] * 3, "t": [MICROSECONDS * 1000, MICROSECONDS // 1_000_000, -(2**62)]},
        {"time": "t"},
    )
    assert faults.counts() == {"data.time_order": 2}
    assert faults.faulty.tolist() == [True, False, True]
    with pytest.raises(DataError, match="expected times"):
        to_microseconds(pa.array(["soon"]), "s", "t")


def test_weights_and_propensities_out_of_range_are_refused():
    columns = {"click": [0] * 4, "conversion": [0] * 4, "w": [1.0, 0.0, np.nan, None], "p": [1.0, 1e-9, 1.1, 0.0]}
    parsed, faults = parse(columns, {"sample_weight": "w", "propensity": "p"})
    assert [(f.code, f.where, f.count) for f in parsed.refusals] == [
        ("data.weights", "row 1:w", 3),
        ("data.weights", "row 2:p", 2),
    ]
    assert not faults.any
    parsed, _ = parse(
        {"click": [0], "conversion": [0], "w": [0.5], "p": [1.0]}, {"sample_weight": "w", "propensity": "p"}
    )
    assert parsed.refusals == ()


def test_values_may_be_missing_but_not_infinite():
    parsed, faults = parse({"click": [1, 1, 1], "conversion": [0, 0, 0], "v": [1.5, None, np.inf]}, {"value": "v"})
    np.testing.assert_array_equal(parsed.labels.value[:2], [1.5, np.nan])
    assert faults.counts() == {"data.non_finite": 1}


def test_a_log_of_clicks_may_be_all_clicks():
    schema = Schema((SparseFeature("f"),), Columns(), "click")
    batch = pa.RecordBatch.from_pydict({"click": [1, 1], "conversion": [0, 1]})
    faults = RowFaults(2)
    assert parse_labels(batch, schema, faults).labels.conversion.tolist() == [0, 1]
    assert not faults.any


@pytest.mark.parametrize(("policy", "domain"), [("reject", 1), ("set_click", 1), ("view_through", 2)])
def test_in_a_log_of_clicks_a_click_of_0_is_out_of_its_domain(policy, domain):
    """Rows: a click, a conversion without click, nothing at all."""
    batch = pa.RecordBatch.from_pydict({"click": [1, 0, 0], "conversion": [0, 1, 0]})
    faults = RowFaults(3)
    parse_labels(batch, Schema((SparseFeature("f"),), population="click"), faults, policy=policy)
    assert faults.counts().get(DOMAIN) == domain
    assert faults.counts().get("data.conversion_without_click", 0) == (policy == "reject")
    assert faults.located("x", 0)[DOMAIN][0][1] == "0 in a log of clicks"


def test_an_action_without_a_click_stays_as_it_was_logged():
    parsed, faults = parse({"click": [0, 1], "conversion": [0, 0], "cart": [1, 1]}, {"action": "cart"})
    assert parsed.labels.action.tolist() == [1, 1]
    assert not faults.any
