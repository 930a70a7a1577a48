import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ks_2samp
from sklearn.metrics import roc_curve

from postclick.metrics.thresholds import f1, ks, lift, recall


def test_top_share_by_hand():
    odds, label = np.array([5.0, 4.0, 3.0, 2.0, 1.0]), np.array([1, 0, 1, 0, 0])
    # the top 2 of 5 rows hold 1 of 2 positives
    assert recall(odds, label, 0.4).value == 0.5
    assert f1(odds, label, 0.4).value == 2 * 1 / (2 + 2)
    assert lift(odds, label, 0.4).value == pytest.approx(0.5 / 0.4)
    assert recall(odds, label, 1.0).value == 1.0


def test_a_tie_group_that_is_cut_counts_in_expectation():
    odds, label = np.array([1.0, 1.0, 1.0, 1.0]), np.array([1, 0, 0, 0])
    assert recall(odds, label, 0.5).value == pytest.approx(0.5)
    assert lift(odds, label, 0.25).value == pytest.approx(1.0)


def test_f1_equals_a_loop():
    rng = np.random.default_rng(0)
    odds, label = rng.permutation(1000).astype(float), rng.random(1000) < 0.1
    taken = np.argsort(-odds)[:50]
    precision, found = label[taken].mean(), label[taken].sum() / label.sum()
    assert f1(odds, label, 0.05).value == pytest.approx(2 * precision * found / (precision + found))


@pytest.mark.parametrize("weighted", [True, False])
def test_ks_equals_the_roc_curve(weighted):
    rng = np.random.default_rng(2)
    odds, label = rng.integers(-9, 9, 2000).astype(float), rng.random(2000) < 0.2
    odds += label
    weight = rng.random(2000) if weighted else None
    alarms, hits, _ = roc_curve(label, odds, sample_weight=weight, drop_intermediate=False)
    assert ks(odds, label, weight).value == pytest.approx(np.max(hits - alarms), abs=1e-12)
    if not weighted:
        assert ks(odds, label).value == pytest.approx(
            ks_2samp(odds[label], odds[~label], "less", "asymp").statistic, abs=1e-12
        )


@given(st.lists(st.tuples(st.integers(-5, 5), st.booleans()), min_size=3, max_size=40), st.floats(0.01, 1.0))
def test_ranges_and_doubled_rows(pairs, top):
    odds, label = np.array([float(s) for s, _ in pairs]), np.array([y for _, y in pairs])
    for metric, most in ((recall, 1.0), (f1, 1.0), (lift, 1.0 / top)):
        found = metric(odds, label, top)
        if found.value is not None:
            assert -1e-12 <= found.value <= most + 1e-9
            assert metric(odds, label, top, np.full(len(odds), 2.0)).value == pytest.approx(found.value)


def test_undefined():
    odds = np.array([1.0, 2.0])
    for metric in (recall, f1, lift):
        assert metric(odds, np.array([0, 0]), 0.5).undefined == "no positives"
    assert ks(odds, np.array([1, 1])).undefined == "no negatives"
