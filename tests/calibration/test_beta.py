"""Beta calibration."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize

from postclick.calibration.beta import Beta, fit_beta
from postclick.calibration.platt import SLOPES, fit_platt, log_loss
from postclick.data.scores import probability


def drawn(truth: Beta, rows: int, seed: int = 0):
    rng = np.random.default_rng(seed)
    odds = rng.normal(0.0, 2.0, rows)
    return odds, (rng.random(rows) < probability(truth(odds))).astype(float), rng.uniform(0.5, 2.0, rows)


def test_by_hand():
    # p = 0.2: a log .2 - b log .8 + c
    odds = np.array([np.log(0.25)])
    assert Beta(2.0, 3.0, 0.5)(odds) == pytest.approx([2 * np.log(0.2) - 3 * np.log(0.8) + 0.5])
    assert Beta()(np.array([-800.0, -1.0, 3.0, 800.0])) == pytest.approx([-800.0, -1.0, 3.0, 800.0])


def test_recovers_a_known_map():
    fitted = fit_beta(*drawn(Beta(0.6, 1.8, -0.4), 200_000))
    assert (fitted.a, fitted.b, fitted.c) == pytest.approx((0.6, 1.8, -0.4), abs=0.06)


@pytest.mark.parametrize("truth", [Beta(0.7, 1.5, 0.3), Beta(0.01, 1.0, 0.0), Beta(1.2, 0.001, -1.0)])
def test_is_the_minimum_in_the_box_that_scipy_finds(truth):
    odds, label, weight = drawn(truth, 4_000)
    bounds = [SLOPES, SLOPES, (None, None)]
    options = {"ftol": 1e-15, "gtol": 1e-10, "maxiter": 2000}
    peer = minimize(
        lambda point: log_loss(Beta(*point)(odds), label, weight),
        [1.0, 1.0, 0.0],
        method="L-BFGS-B",
        bounds=bounds,
        options=options,
    )
    fitted = fit_beta(odds, label, weight)
    assert log_loss(fitted(odds), label, weight) <= peer.fun + 1e-9
    assert (fitted.a, fitted.b, fitted.c) == pytest.approx(tuple(peer.x), abs=2e-3)
    assert SLOPES[0] <= min(fitted.a, fitted.b)


def test_fits_at_least_as_well_as_platt_which_it_holds():
    odds, label, weight = drawn(Beta(0.7, 1.5, 0.3), 4_000)
    one, other = (fit(odds, label, weight)(odds) for fit in (fit_beta, fit_platt))
    assert log_loss(one, label, weight) < log_loss(other, label, weight)
    assert Beta(0.8, 0.8, 0.1)(odds) == pytest.approx(0.8 * odds + 0.1)


def test_strictly_monotone_and_the_identity_on_calibrated_scores():
    odds, label, weight = drawn(Beta(0.05, 2.0, 0.3), 4_000)
    fitted = fit_beta(odds, label, weight)
    assert (np.diff(fitted(np.linspace(-30.0, 30.0, 1001))) > 0.0).all()
    again = fit_platt(fitted(odds), label, weight)
    assert (again.slope, again.offset) == pytest.approx((1.0, 0.0), abs=0.05)


@pytest.mark.parametrize("kind", ["constant", "reversed", "separated", "three"])
def test_degenerate_rows_leave_a_finite_map_with_the_right_mean(kind):
    rng = np.random.default_rng(1)
    odds = {"constant": np.full(200, -1.0), "three": np.array([-1.0, 0.5, 2.0])}.get(kind, rng.normal(0, 1, 200))
    label = (rng.random(len(odds)) < 0.3 if kind == "constant" else odds < 0 if kind == "reversed" else odds > 0) * 1.0
    weight = np.ones(len(odds))
    fitted = fit_beta(odds, label, weight)
    assert np.isfinite(fitted(odds)).all()
    assert min(fitted.a, fitted.b) > 0.0
    assert probability(fitted(odds)).mean() == pytest.approx(label.mean(), rel=1e-6)


def test_plain_form_and_back():
    assert Beta.from_dict(Beta(1.5, 0.5, -2.0).to_dict()) == Beta(1.5, 0.5, -2.0)
    for wrong in ({"a": -1.0, "b": 1.0, "c": 0.0}, {"a": 1.0, "b": float("nan"), "c": 0.0}):
        with pytest.raises(ValueError, match="a "):
            Beta.from_dict(wrong)
