"""All heads together."""

from __future__ import annotations

import json

import numpy as np
import pytest

from postclick.calibration import Calibration, CalibrationConfig, SamplingCorrection
from postclick.calibration.calibration import MARGIN, compose
from postclick.calibration.platt import log_loss
from postclick.data.arrays import CENSORED, Labels
from postclick.data.scores import Scores, probability
from postclick.errors import BundleError
from postclick.schema import KeepRates

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


@pytest.mark.parametrize("method", ["platt", "beta", "isotonic"])
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


@pytest.mark.parametrize("method", ["platt", "temperature", "beta", "isotonic", "none"])
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
        {"format": 1, "heads": {"ctr": {"method": "beta", "rows": 9, "positives": 1, "a": 0.0, "b": 1.0, "c": 0.0}}},
        {"format": 1, "heads": {"ctr": {"method": "temperature", "rows": 9, "positives": 1}}},
        {"format": 1, "heads": {}, "sampling": {"unclicked": 0.0, "clicked": 1.0}},
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


# --- weights, fields, sampling ---


def biased(rows=60_000, seed=3):
    """Scores that miss a confounder of click and conversion: right over neither clicks nor exposures."""
    rng = np.random.default_rng(seed)
    x, hidden = rng.normal(0.0, 1.0, (2, rows))
    ctr, cvr = 1.2 * x - 1.2, 1.5 * x - 1.0
    click = (rng.random(rows) < probability(ctr)).astype(np.int8)
    conversion = click * (rng.random(rows) < probability(cvr)).astype(np.int8)
    # the cvr score sees half of what drives it
    scores = compose(Scores({"ctr": ctr, "cvr": 0.75 * x + 0.75 * hidden, "ctcvr": np.zeros(rows)}, {}))
    return scores, Labels(click, conversion), probability(cvr)


def test_ips_weights_put_the_mean_right_over_exposures_and_no_weights_over_clicks():
    scores, labels, truth = biased()
    clicked = labels.click == 1
    alike = Calibration.fit(scores, labels, CalibrationConfig()).apply(scores).probability("cvr")
    weighed = Calibration.fit(scores, labels, CalibrationConfig(weights="ips")).apply(scores).probability("cvr")
    assert alike[clicked].mean() == pytest.approx(labels.conversion[clicked].mean(), rel=1e-3)
    assert weighed.mean() == pytest.approx(truth.mean(), rel=0.05)
    assert alike.mean() > 1.15 * truth.mean()  # what calibrating on clicks undoes
    assert weighed[clicked].mean() < 0.9 * labels.conversion[clicked].mean()


def test_ips_weights_come_from_the_calibrated_ctr_and_are_worth_fewer_rows():
    scores, labels, truth = biased()
    off = Scores(dict(scores.odds) | {"ctr": 0.5 * scores.odds["ctr"] + 1.0}, {})
    fitted = Calibration.fit(compose(off), labels, CalibrationConfig(weights="ips"))
    assert fitted.apply(compose(off)).probability("cvr").mean() == pytest.approx(truth.mean(), rel=0.06)
    entry = fitted.heads["cvr"]
    assert entry.rows == labels.click.sum()
    assert 0.2 * entry.rows < entry.effective < 0.9 * entry.rows
    assert fitted.heads["ctr"].effective is None
    # with the uncalibrated ctr the mean is another one: the planted twin
    twin = Calibration.fit(compose(off), labels, CalibrationConfig(ctr=None, weights="ips"))
    assert abs(twin.apply(compose(off)).probability("cvr").mean() / truth.mean() - 1) > 0.1


def test_the_logged_propensity_takes_the_place_of_the_ctr():
    scores, labels, truth = biased()
    logged = Labels(labels.click, labels.conversion, propensity=probability(scores.odds["ctr"]))
    noise = np.random.default_rng(0).normal(0.0, 1.0, len(logged))
    blind = compose(Scores(dict(scores.odds) | {"ctr": noise}, {}))
    found = Calibration.fit(blind, logged, CalibrationConfig(ctr=None, weights="ips", propensity="logged"))
    assert found.apply(blind).probability("cvr").mean() == pytest.approx(truth.mean(), rel=0.05)


def test_a_few_heavy_clicks_are_too_few():
    scores, labels, _ = biased(rows=2_000)
    logged = np.where(np.arange(2_000) % 50 == 0, 0.02, 1.0)
    heavy = Labels(labels.click, labels.conversion, propensity=logged, sample_weight=np.where(logged < 1, 50.0, 0.1))
    entry = Calibration.fit(scores, heavy, CalibrationConfig(weights="ips", propensity="logged")).heads["cvr"]
    assert entry.method == "none"
    assert "effective positives" in entry.reason


def test_field_aware_heads_read_their_columns():
    scores, labels = scored()
    rng = np.random.default_rng(5)
    shop = rng.integers(3, 9, ROWS).astype(np.int32)
    moved = rng.random(ROWS) < probability(0.8 * scores.odds["ctr"] + 0.5 * (shop - 6.0))
    labels = Labels(moved.astype(np.int8), labels.conversion * moved)
    config = CalibrationConfig(ctr="field-aware", fields=("shop",))
    fitted = Calibration.fit(scores, labels, config, columns={"shop": shop})
    assert fitted.fields == ("shop",)
    served = fitted.apply(scores, {"shop": shop}).probability("ctr")
    for value in range(3, 9):
        assert served[shop == value].mean() == pytest.approx(moved[shop == value].mean(), rel=0.03)
    assert Calibration.from_dict(json.loads(json.dumps(fitted.to_dict()))) == fitted


def refitted(method, rows=ROWS):
    """Fit, serve, fit on what is served: returns the second maps and the mean change in probability, by head."""
    scores, labels = scored(rows=rows)
    config = CalibrationConfig(method, method)
    first = Calibration.fit(scores, labels, config)
    again = Scores(first.apply(scores).odds, {})
    second = Calibration.fit(again, labels, config)
    served = second.apply(again)
    changes = {head: np.abs(served.probability(head) - again.probability(head)).mean() for head in ("ctr", "cvr")}
    return first, second, changes


@pytest.mark.parametrize(("method", "most"), [("platt", 1e-8), ("temperature", 1e-8), ("beta", 5e-4)])
def test_calibrating_twice_changes_nothing_more(method, most):
    """Lines of log-odds are closed under composition, so the second is the identity; beta's curves are not quite."""
    _, _, changes = refitted(method)
    assert max(changes.values()) < most


def test_isotonic_twice_has_the_same_levels_and_bends_between_them_within_their_noise():
    """Order and blocks stay, so do the levels. A knot is the mean of its block's log-odds, and the mean of a bent line
    is not the line at the mean: the change between knots is inherent, and shrinks with the blocks as rows grow."""
    changed = {}
    for rows in (ROWS, 8 * ROWS):
        first, second, changed[rows] = refitted("isotonic", rows)
        for head, entry in second.heads.items():
            before = first.heads[head].map
            assert entry.map.levels == pytest.approx(before.levels, abs=1e-9)
            level = probability(np.array(before.levels))
            # the standard error of a level with its share of the rows: the change is under a tenth of it (0.05 to 0.08)
            error = np.sqrt(level * (1 - level) * len(level) / entry.rows).mean()
            assert changed[rows][head] < error / 10
    assert all(changed[8 * ROWS][head] < 0.6 * changed[ROWS][head] for head in ("ctr", "cvr"))


def test_the_sample_s_correction_comes_first_and_travels_with_the_maps():
    scores, labels = scored()
    rng = np.random.default_rng(0)
    kept = (labels.click == 1) | (rng.random(ROWS) < 0.2)
    few = labels.take(kept)
    few = Labels(few.click, few.conversion, sample_weight=np.where(few.click == 1, 1.0, 5.0))
    # a network that learned the sample: its log-odds of a click are higher by log 5
    seen = Scores({"ctr": 0.6 * scores.odds["ctr"] + 0.2 + np.log(5.0), "cvr": scores.odds["cvr"]}, {})
    seen = compose(Scores(seen.odds | {"ctcvr": np.zeros(ROWS)}, {}))
    part = Scores({head: odds[kept] for head, odds in seen.odds.items()}, {})
    fitted = Calibration.fit(part, few, CalibrationConfig(), sampling=SamplingCorrection(KeepRates(0.2, 1.0)))
    assert (fitted.heads["ctr"].map.slope, fitted.heads["ctr"].map.offset) == pytest.approx((1.0, 0.0), abs=0.06)
    served = fitted.apply(seen)
    assert served.probability("ctr").mean() == pytest.approx(labels.click.mean(), rel=0.02)
    assert served.probability("ctcvr").mean() == pytest.approx(labels.conversion.mean(), rel=0.05)
    assert np.array_equal(served.raw["ctr"], seen.odds["ctr"])
    assert Calibration.from_dict(json.loads(json.dumps(fitted.to_dict()))) == fitted
    alone = Calibration.none("no rows to calibrate on", "ctr", "cvr", sampling=fitted.sampling)
    assert alone.apply(seen).probability("ctr") == pytest.approx(probability(seen.odds["ctr"] - np.log(5.0)))
