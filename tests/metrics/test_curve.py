import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from postclick.errors import DataError
from postclick.metrics import curve as module
from postclick.metrics.curve import Curve, class_masses, curve_of, hard_labels, summed_runs


def loop(odds, label):
    """Tie groups, highest first, one class merged between positives: cumulative counts at every positive score."""
    points = []
    for value in sorted({s for s, y in zip(odds, label, strict=True) if y}, reverse=True):
        points.append(
            (
                sum(1 for s, y in zip(odds, label, strict=True) if y and s >= value),
                sum(1 for s, y in zip(odds, label, strict=True) if not y and s >= value),
            )
        )
    return points


rows = st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=1, max_size=40)


@given(rows)
def test_counts_at_every_positive_score_equal_a_loop(pairs):
    odds = np.array([float(s) for s, _ in pairs])
    label = np.array([y for _, y in pairs])
    for found in (curve_of(odds, label), curve_of(odds, label.astype(np.int8), np.ones(len(odds)))):
        points = set(zip(np.cumsum(found.positive), np.cumsum(found.negative), strict=True))
        assert set(loop(odds, label)) <= points
        assert (found.positives, found.negatives) == (label.sum(), (~label).sum())


@settings(max_examples=20)
@given(st.integers(0, 2**32 - 1))
def test_the_number_of_threads_and_slices_changes_no_bit(seed):
    rng = np.random.default_rng(seed)
    odds, label = rng.integers(-20, 20, 500).astype(float), rng.random(500) < 0.3
    whole = curve_of(odds, label)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_STEP_ROWS", 37)
        patch.setattr(module, "cores", lambda: 3)
        cut = curve_of(odds, label)
    assert np.array_equal(whole.positive, cut.positive)
    assert np.array_equal(whole.negative, cut.negative)


def test_summed_runs_covers_every_row_once(monkeypatch):
    monkeypatch.setattr(module, "_STEP_ROWS", 10)
    monkeypatch.setattr(module, "cores", lambda: 4)
    values = np.arange(105)
    total, count = summed_runs(lambda run: (np.array([values[run].sum()]), np.array([len(values[run])])), 105, 1)
    assert (total[0], count[0]) == (values.sum(), 105)


def test_why_a_curve_lacks_a_metric():
    assert Curve(np.zeros(1), np.zeros(1)).missing(both=True) == "no rows"
    assert Curve(np.zeros(1), np.ones(1)).missing(both=False) == "no positives"
    assert Curve(np.ones(1), np.zeros(1)).missing(both=True) == "no negatives"
    assert Curve(np.ones(1), np.zeros(1)).missing(both=False) is None
    assert curve_of(np.zeros(0), np.zeros(0, np.int8)).missing(both=True) == "no rows"
    assert curve_of(np.zeros(0), np.zeros(0), np.zeros(0)).missing(both=True) == "no rows"


def test_hard_and_soft_labels():
    assert hard_labels(np.array([0.0, 1.0])).tolist() == [False, True]
    assert hard_labels(np.array([0.0, 0.5])) is None
    up, down = class_masses(np.array([0.25, 1.0]), np.array([2.0, 3.0]))
    assert up.tolist() == [0.5, 3.0]
    assert down.tolist() == [1.5, 0.0]


def test_scores_that_are_not_numbers_are_refused():
    with pytest.raises(DataError, match=r"eval\.not_a_number .* \| row 1 \| 2 times"):
        curve_of(np.array([0.0, np.nan, np.nan]), np.array([0, 1, 1]))
