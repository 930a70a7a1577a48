"""The area under the curve of one feature, out of fold, against a plain loop; what is suspicious and what is not."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from postclick.data.arrays import Labels
from postclick.data.leakage import FeatureAuc, auc_with_low, feature_aucs, leak_findings, refuse_leaks
from postclick.data.row_sample import RowSampler
from postclick.errors import DataError
from postclick.schema import Columns, DenseFeature, Schema, SequenceFeature, SparseFeature


def plain(scores, positive) -> tuple[float, float]:
    """DeLong by the definition: one comparison a pair."""
    ones = [s for s, p in zip(scores, positive, strict=True) if p]
    zeros = [s for s, p in zip(scores, positive, strict=True) if not p]
    wins = [[(1.0 if a > b else 0.5 if a == b else 0.0) for b in zeros] for a in ones]
    matrix = np.array(wins)
    auc = matrix.mean()
    variance = ((matrix.mean(axis=1) - auc) ** 2).mean() / len(ones)
    variance += ((matrix.mean(axis=0) - auc) ** 2).mean() / len(zeros)
    return auc, auc - 1.96 * variance**0.5


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=40))
def test_auc_and_its_bound_are_those_of_the_definition(pairs):
    scores, positive = np.array([p[0] for p in pairs], float), np.array([p[1] for p in pairs])
    if positive.all() or not positive.any():
        return
    assert auc_with_low(scores, positive) == pytest.approx(plain(scores, positive))


def judged(feature, column, click, conversion=None, population="exposure"):
    schema = Schema((feature,), Columns(), population)
    sampler = RowSampler(schema)
    conversion = np.zeros(len(click), np.int8) if conversion is None else conversion
    labels = Labels(click.astype(np.int8), conversion.astype(np.int8))
    sampler.add(pa.table({feature.name: column}), labels, 0, 0)
    return feature_aucs(sampler.result(), schema).get(feature.name, {})


RNG = np.random.default_rng(0)
CLICK = RNG.random(4_000) < 0.3


def test_the_label_in_any_disguise_is_suspicious():
    for feature, column in (
        (SparseFeature("f"), np.where(CLICK, RNG.integers(0, 9, 4_000), 100 + RNG.integers(0, 9, 4_000))),
        (SparseFeature("f"), np.where(CLICK, "a", "b")),
        (DenseFeature("f"), -1.0 * CLICK),
        (DenseFeature("f"), np.where(CLICK, 1.0, np.nan)),
        (DenseFeature("f"), np.where(CLICK, RNG.random(4_000), np.nan)),
        (DenseFeature("f"), np.where(CLICK, RNG.choice([-1.0, 1.0], 4_000), 0.0)),
        (SparseFeature("f"), np.where(CLICK, np.arange(4_000), -1)),  # an order id: new a row, missing without a click
    ):
        entry = judged(feature, column, CLICK)["click"]
        assert entry.suspicious, (feature, entry)
    lists = pa.array([[1, 2] if click else [] for click in CLICK])
    assert judged(SequenceFeature("f"), lists, CLICK)["click"].suspicious


def test_noise_and_row_ids_are_not():
    for feature, column in (
        (SparseFeature("f"), np.arange(4_000)),
        (SparseFeature("f"), RNG.integers(0, 2_000, 4_000)),
        (DenseFeature("f"), RNG.normal(size=4_000)),
        (DenseFeature("f"), CLICK + RNG.normal(0, 0.6, 4_000)),
    ):
        entry = judged(feature, column, CLICK)["click"]
        assert not entry.suspicious
        assert entry.auc < 0.97
    assert judged(SparseFeature("f"), pa.nulls(4_000), CLICK) == {}


def test_a_feature_that_tells_only_the_conversion_is_found_on_clicks():
    sale = CLICK & (RNG.random(4_000) < 0.4)
    found = judged(DenseFeature("f"), sale * 5.0, CLICK, sale)
    assert found["conversion"].suspicious
    assert not found["click"].suspicious
    assert found["conversion"].rows == CLICK.sum()


def test_fewer_than_fifty_positives_are_not_judged():
    click = np.arange(4_000) < 49
    assert judged(DenseFeature("f"), click * 1.0, click) == {}
    click = np.arange(4_000) < 50
    assert judged(DenseFeature("f"), click * 1.0, click)["click"].positives == 50


def test_a_log_of_clicks_has_no_click_to_tell():
    sale = RNG.random(4_000) < 0.4
    found = judged(DenseFeature("f"), sale * 1.0, np.ones(4_000, bool), sale, "click")
    assert set(found) == {"conversion"}


def test_findings_name_feature_outcome_and_numbers():
    entry = FeatureAuc(0.9999, 0.9991, 300, 60)
    (finding,) = leak_findings({"f": {"click": entry, "conversion": FeatureAuc(0.995, 0.98, 300, 60)}})
    assert (finding.code, finding.where) == ("data.leakage", "f")
    assert "ranks the click with AUC 0.9999 (at least 0.9991)" in finding.what


def test_outcomes_by_name():
    refuse_leaks(Schema((SparseFeature("clicks_last_week"), SparseFeature("paid_shipping"))))
    with pytest.raises(DataError) as caught:
        refuse_leaks(Schema((SparseFeature("Click-Time"), SparseFeature("is_paid"))))
    assert [item.where for item in caught.value.findings] == ["Click-Time", "is_paid"]
