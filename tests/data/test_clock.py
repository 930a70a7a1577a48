"""Order of a row's times, far times, and outcomes that are not final."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from postclick.data.clock import NO_TIME, censor, find_span, mark_disorder, open_outcomes, when, window_start
from postclick.data.faults import RowFaults
from postclick.schema import Columns

S = 1_000_000
NOW = 1_700_000_000 * S


def found(rows: int = 4, **roles) -> dict:
    body = {"click": np.ones(rows, np.int8), "conversion": np.zeros(rows, np.int8)}
    return {**body, **{name: np.asarray(values, np.int64) for name, values in roles.items()}}


def faulty(columns: Columns, **roles) -> list[bool]:
    faults = RowFaults(4)
    mark_disorder(found(**roles), columns, faults)
    return faults.faulty.tolist()


def test_a_click_before_its_exposure_is_a_fault_beyond_the_tolerance():
    times = {"time": [NOW] * 4, "click_time": [NOW, NOW - 1, NOW - 5 * S, NO_TIME]}
    named = {"time": "t", "click_time": "c"}
    assert faulty(Columns(**named), **times) == [False, True, True, False]
    assert faulty(Columns(**named, clock_tolerance=4.0), **times) == [False, False, True, False]
    assert faulty(Columns(**named, clock_tolerance=5.0), **times) == [False] * 4


def test_times_count_only_where_the_thing_happened():
    body = found(time=[NOW] * 4, click_time=[0] * 4, conversion_time=[0] * 4)
    body["click"] = np.array([0, 0, 1, 1], np.int8)
    body["conversion"] = np.array([0, 0, 0, 1], np.int8)
    faults = RowFaults(4)
    mark_disorder(body, Columns(time="t", click_time="c", conversion_time="s"), faults)
    assert faults.faulty.tolist() == [False, False, True, True]
    place, text = faults.located("f", 10)["data.time_order"][0]
    assert (place, text) == ("f:12:c", "c 1.7e+09 s before t")


def test_without_a_click_time_a_conversion_is_compared_with_the_exposure():
    body = found(time=[NOW] * 4, conversion_time=[NOW - S, NOW, NOW + S, NOW - S])
    body["conversion"] = np.array([1, 1, 1, 0], np.int8)
    faults = RowFaults(4)
    mark_disorder(body, Columns(time="t", conversion_time="s"), faults)
    assert faults.faulty.tolist() == [True, False, False, False]


def test_times_of_no_present_century_and_after_the_cut_off_are_faults():
    times = [NOW, NOW * 1_000, -(10**16), NO_TIME]
    assert faulty(Columns(time="t"), time=times) == [False, True, True, False]
    until = {"time": [NOW] * 4, "observed_until": [NOW, NOW - 1, NOW + 1, NO_TIME]}
    assert faulty(Columns(time="t", observed_until="u"), **until) == [False, True, False, False]


def test_which_outcomes_are_open():
    body = found(time=[NOW, NOW + 50 * S, NOW + 50 * S, NOW + 50 * S], observed_until=[NOW + 100 * S] * 4)
    body["conversion"][3] = 1
    columns = Columns(time="t", observed_until="u", attribution_window=60.0)
    sound = np.array([True, True, False, True])
    none, refusal = open_outcomes(body, columns, sound)
    assert none is None
    assert refusal is not None
    assert (refusal.code, refusal.where, refusal.count) == ("data.immature_labels", "row 1:u", 1)
    named = {**columns.named(), "attribution_window": 60.0}
    for kind, code in (("censor", 1), ("negative", 2)):
        immature, refusal = open_outcomes(body, Columns(**named, immature=kind), sound)
        assert refusal is None
        assert immature.tolist() == [0, code, 0, code]  # a conversion seen in an open window is no final one
        expected = [0, -1, 0, 1] if kind == "censor" else [0, 0, 0, 1]
        assert censor(body["click"], body["conversion"], immature).tolist() == expected
    assert censor(body["click"], body["conversion"], None) is body["conversion"]


def test_a_recent_exposure_is_open_clicked_or_not():
    """Its click may have come with a conversion that has not: dropped alone, clicks would be too few for it."""
    body = found(time=[NOW, NOW + 50 * S, NOW + 50 * S, NOW + 50 * S], observed_until=[NOW + 100 * S] * 4)
    body["click"] = np.array([0, 0, 1, 1], np.int8)
    body["click_time"] = np.array([NO_TIME, NO_TIME, NOW + 30 * S, NOW + 60 * S])
    named = {"time": "t", "click_time": "c", "observed_until": "u", "attribution_window": 60.0, "immature": "censor"}
    immature, _ = open_outcomes(body, Columns(**named), np.ones(4, np.bool_))
    assert immature.tolist() == [0, 1, 0, 1]
    assert censor(body["click"], body["conversion"], immature).tolist() == [0, 0, 0, -1]
    del body["time"]  # without a time of exposure an unclicked row is final
    immature, _ = open_outcomes(body, Columns(**{**named, "time": None}), np.ones(4, np.bool_))
    assert immature.tolist() == [0, 0, 0, 1]


def test_a_window_begins_with_the_click_or_else_with_the_exposure():
    clicked, time = np.array([True, True, False]), np.array([1, 2, 3])
    click_time = np.array([10, NO_TIME, 30])
    assert window_start(clicked, time, click_time).tolist() == [10, 2, 3]
    assert window_start(clicked, None, click_time).tolist() == [10, NO_TIME, NO_TIME]
    assert window_start(clicked, time, None).tolist() == [1, 2, 3]
    assert window_start(clicked, None, None).tolist() == [NO_TIME] * 3


def test_the_window_runs_from_the_click_where_its_time_is_known():
    body = found(
        time=[NOW] * 4, click_time=[NOW + 50 * S, NO_TIME, NOW + 40 * S, NOW], observed_until=[NOW + 100 * S] * 4
    )
    columns = Columns(time="t", click_time="c", observed_until="u", attribution_window=60.0)
    _, refusal = open_outcomes(body, columns, np.ones(4, np.bool_))
    assert refusal is not None
    assert (refusal.where, refusal.count) == ("row 0:u", 1)  # 40 s + 60 s is just closed


def test_without_observed_until_everything_is_final():
    assert open_outcomes(found(), Columns(), np.ones(4, np.bool_))[1] is None


def span(times) -> tuple:
    result = find_span([np.asarray(times, np.int64)])
    assert result is not None
    return result


@pytest.mark.parametrize("times", [np.arange(2_000), NOW + np.arange(5_000) * 60 * S, np.full(10, NOW)])
def test_ordinary_times_have_no_strays(times):
    assert not span(times).strays


@pytest.mark.parametrize("stray", [NOW + 7 * 365 * 86_400 * S, NOW // 1_000, 0])
def test_a_time_far_from_all_others_is_a_stray(stray):
    times = NOW + np.arange(5_000) * 60 * S
    result = span(np.append(times, stray))
    assert result.strays
    outside = np.append(times, stray)
    outside = outside[(outside < result.low) | (outside > result.high)]
    assert outside.tolist() == [stray]


@pytest.mark.parametrize(("early", "late", "fewer"), [(600, 400, "late"), (400, 600, "early")])
def test_of_two_units_the_rarer_one_is_outside(early, late, fewer):
    times = np.concatenate([NOW // 1_000 + np.arange(early), NOW + np.arange(late)])
    result = span(times)
    outside = (times < result.low) | (times > result.high)
    assert outside.sum() == (early if fewer == "early" else late)


def test_times_that_are_missing_are_not_judged():
    assert find_span([np.full(3, NO_TIME)]) is None
    assert find_span([]) is None
    assert span([NO_TIME, NOW, NOW]).first == NOW


@given(st.lists(st.integers(1, 400), min_size=1, max_size=8), st.integers(0, 10**6))
def test_the_span_does_not_depend_on_how_rows_are_cut(sizes, step):
    times = NOW + np.arange(sum(sizes)) * step
    parts = np.split(times, np.cumsum(sizes)[:-1])
    assert find_span(parts) == find_span([times])


def test_a_long_log_is_judged_from_a_sample(monkeypatch):
    from postclick.data import clock

    monkeypatch.setattr(clock, "_SAMPLE", 100)
    times = NOW + np.arange(10_000) * S
    result = find_span(np.split(times, 50))
    assert result is not None
    assert (result.first, result.last) == (NOW, NOW + 9_999 * S)
    assert not result.strays


def test_words():
    assert when(NOW) == "2023-11-14 22:13:20"
