"""Isotonic calibration."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from postclick.calibration.isotonic import Isotonic, fit_isotonic
from postclick.data.scores import probability


def logit(p):
    return np.log(p) - np.log1p(-np.asarray(p))


def test_hand_computed_blocks():
    odds = np.array([-2.0, -1.0, 0.0, 1.0, 2.0, 3.0])
    label = np.array([0.0, 1.0, 0.0, 1.0, 0.0, 1.0])  # blocks: {-2}: 0, {-1, 0}: 1/2, {1, 2}: 1/2 -> pooled, {3}: 1
    fitted = fit_isotonic(odds, label, np.ones(6))
    half = 0.5 / 7.0
    assert fitted.knots == (-2.0, 0.5, 3.0)
    assert fitted.levels == pytest.approx(logit([half, 0.5, 1.0 - half]))


def test_weights_count_as_rows():
    odds = np.array([0.0, 1.0, 1.0, 2.0])
    label = np.array([0.0, 1.0, 0.0, 1.0])
    fitted = fit_isotonic(odds, label, np.array([1.0, 3.0, 1.0, 1.0]))
    assert fitted.knots == (0.0, 1.0, 2.0)
    assert fitted.levels[1] == pytest.approx(logit(0.75))


def test_interpolates_inside_and_runs_at_slope_one_outside():
    line = Isotonic((0.0, 2.0), (1.0, 2.0))
    assert line(np.array([-3.0, 0.0, 1.0, 2.0, 4.0])).tolist() == [-2.0, 1.0, 1.5, 2.0, 4.0]


def test_recovers_a_bent_map():
    rng = np.random.default_rng(3)
    odds = rng.normal(0.0, 1.5, 200_000)
    truth = np.where(odds < 0, 0.3 * odds, 2.0 * odds) - 1.0
    label = (rng.random(len(odds)) < probability(truth)).astype(float)
    fitted = fit_isotonic(odds, label, np.ones(len(odds)))
    grid = np.linspace(-2.0, 1.0, 7)
    expected = probability(np.where(grid < 0, 0.3 * grid, 2.0 * grid) - 1.0)
    assert probability(fitted(grid)) == pytest.approx(expected, abs=0.03)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 200), st.booleans())
def test_order_is_kept_and_everything_finite(seed, rows, coarse):
    rng = np.random.default_rng(seed)
    odds = rng.normal(0.0, 3.0, rows)
    odds = np.round(odds) if coarse else odds
    label = (rng.random(rows) < 0.4).astype(float)
    label[0], label[1] = 0.0, 1.0
    fitted = fit_isotonic(odds, label, rng.uniform(0.1, 3.0, rows))
    assert (np.diff(fitted.knots) > 0).all()
    assert (np.diff(fitted.levels) > 0).all()
    grid = np.linspace(-20.0, 20.0, 501)
    assert np.isfinite(fitted(grid)).all()
    assert (np.diff(fitted(grid)) > 0).all()
