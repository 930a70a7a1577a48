"""Platt scaling."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from postclick.calibration.platt import SLOPES, Platt, fit_platt, log_loss
from postclick.data.scores import probability


def drawn(slope: float, offset: float, rows: int, seed: int = 0):
    rng = np.random.default_rng(seed)
    odds = rng.normal(-1.0, 1.5, rows)
    label = (rng.random(rows) < probability(slope * odds + offset)).astype(float)
    return odds, label, rng.uniform(0.5, 2.0, rows)


@pytest.mark.parametrize(("slope", "offset"), [(1.0, 0.0), (0.5, -1.0), (2.0, 1.5)])
def test_recovers_a_known_map(slope, offset):
    fitted = fit_platt(*drawn(slope, offset, 200_000))
    assert fitted.slope == pytest.approx(slope, rel=0.03)
    assert fitted.offset == pytest.approx(offset, abs=0.04)


def test_is_the_minimum_that_scikit_learn_finds():
    from sklearn.linear_model import LogisticRegression

    odds, label, weight = drawn(0.7, 0.3, 3_000)
    peer = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(odds[:, None], label, sample_weight=weight)
    fitted = fit_platt(odds, label, weight)
    assert fitted.slope == pytest.approx(peer.coef_[0, 0], rel=1e-5)
    assert fitted.offset == pytest.approx(peer.intercept_[0], rel=1e-4)


def test_a_weight_of_two_is_the_row_twice():
    odds, label, _ = drawn(0.7, 0.3, 500)
    weight = np.where(np.arange(500) % 3 == 0, 2.0, 1.0)
    twice = np.repeat(np.arange(500), weight.astype(int))
    once = fit_platt(odds, label, weight)
    doubled = fit_platt(odds[twice], label[twice], np.ones(len(twice)))
    assert once.slope == pytest.approx(doubled.slope, rel=1e-8)
    assert once.offset == pytest.approx(doubled.offset, rel=1e-8)


@pytest.mark.parametrize("label", ["reversed", "separated"])
def test_a_slope_that_is_not_to_be_trusted_leaves_the_offset(label):
    odds, _, weight = drawn(1.0, 0.0, 400)
    truth = (odds < -1.0 if label == "reversed" else odds > 0.5).astype(float)
    fitted = fit_platt(odds, truth, weight)
    assert fitted.slope == 1.0
    mean = np.average(probability(fitted(odds)), weights=weight)
    assert mean == pytest.approx(np.average(truth, weights=weight), rel=1e-9)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.01, 30.0), st.floats(-5.0, 5.0), st.floats(1e-3, 1e3))
def test_never_worse_and_never_reversed(seed, slope, offset, scale):
    odds, label, weight = drawn(slope, offset, 300, seed)
    if label.min() == label.max():
        label[:5] = 1.0 - label[:5]
    odds = odds * scale
    fitted = fit_platt(odds, label, weight)
    assert SLOPES[0] <= fitted.slope <= SLOPES[1]
    assert log_loss(fitted(odds), label, weight) <= log_loss(odds, label, weight) + 1e-12
    assert (np.diff(fitted(np.sort(odds))) >= 0).all()


def test_the_map_is_the_line():
    assert Platt(2.0, -1.0)(np.array([0.0, 3.0])).tolist() == [-1.0, 5.0]
