"""Temperature scaling."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from postclick.calibration.platt import log_loss
from postclick.calibration.temperature import Temperature, fit_temperature
from postclick.data.scores import probability


def drawn(slope: float, rows: int, seed: int = 0):
    rng = np.random.default_rng(seed)
    odds = rng.normal(-0.5, 1.5, rows)
    return odds, (rng.random(rows) < probability(slope * odds)).astype(float), rng.uniform(0.5, 2.0, rows)


def test_by_hand():
    assert Temperature(2.0)(np.array([-4.0, 0.0, 1.0])) == pytest.approx([-2.0, 0.0, 0.5])


def test_is_the_minimum_that_scipy_finds():
    odds, label, weight = drawn(0.6, 3_000)
    fitted = fit_temperature(odds, label, weight)
    options = {"xatol": 1e-10}
    peer = minimize_scalar(
        lambda slope: log_loss(slope * odds, label, weight), bounds=(0.05, 20.0), method="bounded", options=options
    )
    assert 1.0 / fitted.temperature == pytest.approx(peer.x, rel=1e-5)
    assert fitted.temperature == pytest.approx(1 / 0.6, rel=0.1)


def test_calibrated_scores_stay_as_they_are():
    odds, label, weight = drawn(0.6, 3_000)
    once = fit_temperature(odds, label, weight)(odds)
    assert fit_temperature(once, label, weight).temperature == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("kind", ["constant", "reversed", "separated", "three"])
def test_degenerate_rows_leave_a_finite_map(kind):
    odds = {"constant": np.zeros(100), "three": np.array([-1.0, 0.5, 2.0])}.get(kind, drawn(1.0, 100)[0])
    label = (odds < 0.0 if kind == "reversed" else odds > 0.0).astype(float)
    label[0] = 1.0 if kind == "constant" else label[0]
    fitted = fit_temperature(odds, label, np.ones(len(odds)))
    assert np.isfinite(fitted(odds)).all()
    assert fitted.temperature > 0.0
    if kind != "constant":
        assert fitted.temperature == 1.0  # a slope that ranks backwards or separates is not to be trusted


def test_plain_form_and_back():
    assert Temperature.from_dict(Temperature(1.7).to_dict()) == Temperature(1.7)
    for wrong in (-1.0, 0.0, float("inf")):
        with pytest.raises(ValueError, match="temperature"):
            Temperature.from_dict({"temperature": wrong})
