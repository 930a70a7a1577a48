"""All heads together."""

from __future__ import annotations

import json

import numpy as np
import pytest

from postclick.calibration import Calibration, CalibrationConfig
from postclick.calibration.calibration import MARGIN, compose
from postclick.calibration.platt import log_loss
from postclick.data.arrays import CENSORED, Labels
from postclick.data.scores import Scores, probability
from postclick.errors import BundleError

ROWS = 20_000


def scored(derived=frozenset(), rows=ROWS, seed=0):
    rng = np.random.default_rng(seed)
    ctr, cvr = rng.normal(-1.0, 1.0, rows), rng.normal(-0.5, 1.0, rows)
    click = (rng.random(rows) < probability(0.6 * ctr + 0.2)).astype(np.int8)
    conversion = click * (rng.random(rows) < probability(1.5 * cvr - 0.4)).astype(np.int8)
    scores = compose(Scores({"ctr": ctr, "cvr": cvr, "ctcvr": np.zeros(rows)}, {}))
    return Scores(scores.odds, {}, derived), Labels(click, conversion)


def test_product_systems_calibrate_ctr_and_cvr():
    scores, labels = scored()
    calibration = Calibration.fit(scores, labels, CalibrationConfig())
    assert calibration.heads["ctr"].map.slope == pytest.approx(0.6, abs=0.05)
    assert calibration.heads["cvr"].map.slope == pytest.approx(1.5, abs=0.15)
    assert "ctcvr" not in calibration.heads
    assert calibration.heads["cvr"].rows == int(labels.click.sum())
    served = calibration.apply(scores)
    product = served.probability("ctr") * served.probability("cvr")
    assert served.probability("ctcvr") == pytest.approx(product, rel=1e-12)
    assert np.array_equal(served.raw["cvr"], scores.odds["cvr"])


@pytest.mark.parametrize("method", ["platt", "isotonic"])
def test_log_loss_of_the_fitting_rows_does_not_get_worse(method):
    scores, labels = scored()
    served = Calibration.fit(scores, labels, CalibrationConfig(method, method)).apply(scores)
    clicked = labels.click == 1
    for head, rows, label in (("ctr", slice(None), labels.click), ("cvr", clicked, labels.conversion)):
        truth = label[rows].astype(float)
        before, after = (log_loss(odds[head][rows], truth, np.ones(len(truth))) for odds in (served.raw, served.odds))
        assert after < before


def test_ctcvr_headed_systems_calibrate_ctcvr_and_derive_cvr():
    scores, labels = scored(derived=frozenset({"cvr"}))
    calibration = Calibration.fit(scores, labels, CalibrationConfig(ctr="none"))
    assert set(calibration.heads) == {"ctr", "ctcvr"}
    served = calibration.apply(scores)
    quotient = served.probability("ctcvr") / served.probability("ctr")
    assert served.probability("cvr") == pytest.approx(np.minimum(quotient, 1 - MARGIN), rel=1e-9)
    assert served.clipped == int((quotient > 1).sum())


def test_few_positives_leave_the_head_and_say_why():
    scores, labels = scored(rows=300)
    calibration = Calibration.fit(scores, labels, CalibrationConfig())
    assert calibration.heads["cvr"].method == "none"
    assert "fewer than 50" in calibration.heads["cvr"].reason
    assert calibration.heads["ctr"].method == "platt"
    assert np.array_equal(calibration.apply(scores).odds["cvr"], scores.odds["cvr"])


def test_none_and_constants_are_left():
    scores, labels = scored()
    off = CalibrationConfig("none", "none")
    calibration = Calibration.fit(scores, labels, off)
    assert calibration.apply(scores) is scores
    constant = Calibration.fit(scores, labels, CalibrationConfig(), constant=frozenset({"cvr"}))
    assert constant.heads["cvr"].reason == "the head is a constant prior"


def test_censored_labels_and_zero_weights_are_not_fitted_on():
    scores, labels = scored()
    conversion = labels.conversion.copy()
    conversion[: ROWS // 2] = CENSORED
    weight = np.ones(ROWS)
    weight[-1000:] = 0.0
    late = Labels(labels.click, conversion, sample_weight=weight)
    fitted = Calibration.fit(scores, late, CalibrationConfig()).heads["cvr"]
    assert fitted.rows == int(labels.click[ROWS // 2 : -1000].sum())


@pytest.mark.parametrize("method", ["platt", "isotonic", "none"])
def test_json_and_back(method):
    scores, labels = scored()
    calibration = Calibration.fit(scores, labels, CalibrationConfig(method, method))
    again = Calibration.from_dict(json.loads(json.dumps(calibration.to_dict())))
    assert again == calibration


@pytest.mark.parametrize(
    "form",
    [
        [],
        {"format": 2, "heads": {}},
        {"format": 1, "heads": {"ctr": {"method": "magic", "rows": 0, "positives": 0}}},
        {"format": 1, "heads": {"ctr": {"method": "platt", "rows": 9, "positives": 1, "slope": -1.0, "offset": 0.0}}},
        {"format": 1, "heads": {"ctr": {"method": "isotonic", "rows": 9, "positives": 1, "knots": [1], "levels": []}}},
    ],
)
def test_a_malformed_form_is_refused(form):
    with pytest.raises(BundleError, match=r"bundle\.malformed"):
        Calibration.from_dict(form)


def test_products_of_extreme_log_odds_are_finite():
    odds = np.array([-1e4, -30.0, 0.0, 30.0, 1e4])
    served = compose(Scores({"ctr": odds, "cvr": odds, "ctcvr": odds}, {}))
    assert np.isfinite(served.odds["ctcvr"]).all()
    assert served.odds["ctcvr"][2] == pytest.approx(np.log(0.25 / 0.75))
    derived = compose(Scores({"ctr": odds, "cvr": odds, "ctcvr": odds[::-1].copy()}, {}, frozenset({"cvr"})))
    assert np.isfinite(derived.odds["cvr"]).all()


def test_products_with_the_action_follow_the_calibrated_ctr():
    rng = np.random.default_rng(0)
    ctr, cvr, action, ctar = (rng.normal(-1.0, 1.0, 50) for _ in range(4))
    odds = {"ctr": ctr, "cvr": cvr, "ctcvr": np.zeros(50), "action": action, "ctar": ctar}
    served = compose(Scores(odds, {}))
    assert served.probability("ctar") == pytest.approx(probability(ctr) * probability(action), rel=1e-12)
    assert np.array_equal(served.odds["action"], action)
    derived = compose(Scores(odds, {}, frozenset({"action"})))
    quotient = probability(ctar) / probability(ctr)
    assert derived.probability("action") == pytest.approx(np.minimum(quotient, 1 - MARGIN), rel=1e-9)
    assert np.array_equal(derived.odds["ctar"], ctar)
    assert derived.clipped == 0  # of the cvr alone
