import json

import numpy as np
import pytest

from postclick.metrics.overlap import QUANTILES, Overlap, overlap


def sigmoid(odds):
    return 1 / (1 + np.exp(-odds))


def exposures(spread=0.7, rows=20_000, seed=0, base=-2.0):
    rng = np.random.default_rng(seed)
    odds = base + spread * rng.normal(size=rows)
    p = sigmoid(odds)
    return (rng.random(rows) < p).astype(np.int8), p, odds


def test_every_number_equals_a_plain_loop():
    click, p, odds = exposures(spread=1.5, rows=300)
    weight = np.random.default_rng(1).integers(0, 3, 300).astype(float)
    floor = 0.05
    found = overlap(click, p, floor=floor, columns={"odds": odds}, weight=weight, source="the logged propensity")
    rows = list(zip(click.tolist(), p.tolist(), odds.tolist(), weight.tolist(), strict=True))
    clicks = [row for row in rows if row[0] and row[3]]
    total = sum(w for *_, w in rows)
    mass = [w / max(p, floor) for _, p, _, w in clicks]
    assert (found.rows, found.clicks, found.floor) == (300, len(clicks), floor)
    assert found.exposures_under_floor == pytest.approx(sum(w for _, p, _, w in rows if p < floor) / total)
    under = sum(w for _, p, _, w in clicks if p < floor)
    assert found.clicks_under_floor == pytest.approx(under / sum(w for *_, w in clicks))
    assert found.left_out == pytest.approx(sum(w * (1 - p / max(p, floor)) for _, p, _, w in rows) / total)
    effective = sum(mass) ** 2 / sum(m * m for m in mass)
    assert found.effective_clicks == pytest.approx(effective)
    assert found.effective_share == pytest.approx(effective / len(clicks))
    assert found.largest_weight == pytest.approx(max(1 / max(p, floor) for _, p, _, _ in clicks))
    assert found.largest_share == pytest.approx(max(mass) / sum(mass))
    center = sum(w * x for _, _, x, w in rows) / total
    sd = (sum(w * (x - center) ** 2 for _, _, x, w in rows) / total) ** 0.5
    plain = sum(w * x for _, _, x, w in clicks) / sum(w for *_, w in clicks)
    weighted = sum(m * x for m, (_, _, x, _) in zip(mass, clicks, strict=True)) / sum(mass)
    assert found.balance["odds"].before == pytest.approx((plain - center) / sd)
    assert found.balance["odds"].after == pytest.approx((weighted - center) / sd)
    expected = sum(w * p / max(p, floor) for _, p, _, w in rows)
    variance = sum(w * w * p * (1 - p) / max(p, floor) ** 2 for _, p, _, w in rows)
    assert found.calibration.weight_ratio == pytest.approx(sum(mass) / expected)
    assert found.calibration.weight_ratio_error == pytest.approx(variance**0.5 / expected)
    predicted = sum(w * p for _, p, _, w in rows)
    assert found.calibration.pcoc == pytest.approx(predicted / sum(w for *_, w in clicks))
    np.testing.assert_allclose(found.clicked, np.quantile([p for _, p, _, _ in clicks], QUANTILES))
    assert len(found.unclicked) == len(QUANTILES)


def test_right_propensities_balance_and_are_calibrated():
    click, p, odds = exposures()
    found = overlap(click, p, floor=0.0, columns={"odds": odds})
    assert found.balance["odds"].before > 0.4
    assert abs(found.balance["odds"].after) < 0.1
    assert abs(found.calibration.weight_ratio - 1) < 3 * found.calibration.weight_ratio_error
    assert found.left_out == found.exposures_under_floor == 0.0
    assert (found.thin, found.doubts) == ((), ())
    assert found.verdict.startswith("overlap suffices: ")
    assert "0.0% of the exposure space is out of the clicks' reach" in found.verdict


def test_the_weights_sum_to_what_the_propensity_says_also_under_a_floor():
    ratios = []
    for seed in range(200):
        click, p, _ = exposures(spread=1.5, rows=500, seed=seed)
        found = overlap(click, p, floor=0.1, columns={})
        ratios.append((found.calibration.weight_ratio - 1) / found.calibration.weight_ratio_error)
    assert abs(np.mean(ratios)) < 3 / 200**0.5
    assert np.std(ratios) == pytest.approx(1.0, abs=0.2)


def test_each_way_of_being_thin_is_named():
    click, p, _ = exposures(spread=2.5, base=-3.0)
    out_of_reach = overlap(click, p, floor=0.1 * p.mean(), columns={})
    assert len(out_of_reach.thin) == 1
    assert "out of the clicks' reach, over 5%" in out_of_reach.verdict
    click, p, _ = exposures(rows=900)
    few = overlap(click[:700], p[:700], floor=0.0, columns={})
    assert ["clicks of equal weight, under 100" in reason for reason in few.thin] == [True]
    lone = np.where(np.arange(20_000) == 0, 1e-5, 0.2)
    click = (np.arange(20_000) % 5 == 0).astype(np.int8)
    carried = overlap(click, lone, floor=0.0, columns={})
    assert "of their number, under 10%" in carried.thin[0]
    assert carried.largest_share > 0.8
    assert carried.verdict.startswith("overlap is too thin: ")


def test_a_support_violation_is_thin():
    # a third of the exposures is never clicked, and the propensity knows
    p = np.where(np.arange(30_000) % 3 == 0, 0.0, 0.3)
    click = (np.random.default_rng(0).random(30_000) < p).astype(np.int8)
    for floor in (0.0, 0.02):
        found = overlap(click, p, floor=floor, columns={})
        assert found.left_out == pytest.approx(1 / 3)
        assert found.thin


def test_a_wrong_propensity_is_doubted_and_not_called_thin():
    click, p, odds = exposures()
    low = overlap(click, 0.7 * p, floor=0.0, columns={"odds": odds})
    assert low.thin == ()
    assert ["the weights sum to 1.4" in doubt for doubt in low.doubts] == [True]
    blind = overlap(click, np.full(len(p), p.mean()), floor=0.0, columns={"odds": odds})
    assert blind.balance["odds"].after == pytest.approx(blind.balance["odds"].before)
    assert any("weighted clicks still differ from the exposures: odds by +0." in doubt for doubt in blind.doubts)


def test_nothing_without_clicks_and_odd_columns():
    click, p, odds = exposures(rows=1000)
    assert overlap(np.zeros(1000, np.int8), p, floor=0.1, columns={}) is None
    assert overlap(click, p, floor=0.1, columns={}, weight=(click == 0).astype(float)) is None
    assert overlap(np.zeros(0, np.int8), np.zeros(0), floor=0.1, columns={}) is None
    certain = np.where(np.arange(1000) == 3, -np.inf, odds)
    found = overlap(click, p, floor=0.0, columns={"constant": np.ones(1000), "certain": certain})
    assert (found.balance["constant"].before, found.balance["constant"].after) == (0.0, 0.0)
    assert np.isfinite(found.balance["certain"].after)
    everything = overlap(np.ones(1000, np.int8), np.ones(1000), floor=0.1, columns={})
    assert everything.unclicked == ()
    assert everything.calibration.pcoc == 1.0


def test_the_plain_form_survives_json():
    click, p, odds = exposures(rows=2000)
    found = overlap(click, p, floor=0.03, columns={"odds": odds}, source="the system's own ctr")
    form = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert Overlap.from_dict(form) == found
    assert (form["propensity"], form["sufficient"], form["verdict"]) == ("the system's own ctr", True, found.verdict)
    assert form["quantiles"]["levels"] == list(QUANTILES)
