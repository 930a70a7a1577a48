"""Reliability and slices of an evaluation."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from postclick.data.arrays import CENSORED, Labels
from postclick.data.scores import Scores
from postclick.evaluation import calibration as module
from postclick.evaluation.calibration import calibration_tables
from postclick.evaluation.evaluate import evaluate
from postclick.evaluation.result import EvaluationResult
from postclick.evaluation.rows import EvaluationRows
from postclick.evaluation.tables import CalibrationTables


def sigmoid(odds):
    return 1 / (1 + np.exp(-odds))


def made(rows=20_000, off=None, seed=0):
    rng = np.random.default_rng(seed)
    ctr, cvr = rng.normal(-0.5, 0.8, rows), rng.normal(-1.0, 0.8, rows)
    campaign, shop = rng.integers(0, 15, rows), np.array(["a", "b", "c"])[rng.integers(0, 3, rows)]
    chance = np.where(campaign == off, np.minimum(1.6 * sigmoid(cvr), 1.0), sigmoid(cvr))
    click = (rng.random(rows) < sigmoid(ctr)).astype(np.int8)
    conversion = (click * (rng.random(rows) < chance)).astype(np.int8)
    both = sigmoid(ctr) * sigmoid(cvr)
    scores = Scores({"ctr": ctr, "cvr": cvr, "ctcvr": np.log(both / (1 - both))}, {})
    labels = Labels(click, conversion, user_id=rng.integers(0, 2000, rows))
    return EvaluationRows(labels, scores, slices={"campaign": campaign, "shop": shop.astype(object)})


@cache
def judged(off=None):
    """Tables, made once for all tests that read them."""
    rows = made(off=off)
    return calibration_tables(rows, rows.samples())


@cache
def small():
    """A whole evaluation, with fewer rows and one column."""
    rows = made(rows=4_000)
    return rows, evaluate(replace(rows, slices={"shop": rows.slices["shop"]}))


def test_the_slice_that_is_off_is_named_with_what_it_costs():
    tables = judged(off=4)
    worst = tables.ratios["cvr@click|campaign"][0]
    assert worst.value == "4"
    assert worst.p < 0.001
    assert worst.low < worst.pcoc < worst.high < 1.0
    assert worst.pcoc < worst.shrunk < 1.0  # drawn towards the other campaigns
    assert tables.tested["cvr@click"] == 18
    assert tables.spread["cvr@click|campaign"] > 0.05
    sentence = next(each for each in tables.verdict if each.startswith("cvr@click"))
    assert "1 of 18 slices are off" in sentence
    assert "campaign=4" in sentence


def test_calibrated_slices_cannot_be_told_from_calibrated():
    tables = judged()
    assert all("can be told apart from calibrated" in sentence for sentence in tables.verdict)
    assert set(tables.tested) == {"ctr@exposure", "cvr@click", "ctcvr@exposure"}


def test_slices_count_what_a_loop_counts():
    rows = made()
    clicked, campaign = rows.labels.click == 1, rows.slices["campaign"]
    for entry in judged().ratios["cvr@click|campaign"]:
        mine = clicked & (campaign == int(entry.value))
        assert entry.rows == mine.sum()
        assert entry.observed == rows.labels.conversion[mine].sum()
        assert entry.predicted == pytest.approx(sigmoid(rows.scores.odds["cvr"][mine]).sum())
        assert entry.pcoc == pytest.approx(entry.predicted / entry.observed)


def test_reliability_of_heads_and_of_their_slices():
    tables = judged()
    for place in ("ctr@exposure", "cvr@click", "ctcvr@exposure", "cvr@click|shop=b", "cvr@click|campaign=3"):
        bins = tables.reliability[place]
        assert all(each.low <= each.observed <= each.high for each in bins)
        assert [each.predicted for each in bins] == sorted(each.predicted for each in bins)
        inside = np.mean([each.low <= each.predicted <= each.high for each in bins])
        assert inside > 0.6
    assert sum(each.rows for each in tables.reliability["ctr@exposure"]) == 20_000


def test_field_rce_by_name_and_by_default():
    rows, found = small()
    assert "null band" in found["ctr/field_rce[by=shop]@exposure"].method
    assert "cvr/field_rce[by=shop]@click" in found
    name = "cvr/field_rce[by=campaign]@click"
    values = {}
    for off in (None, 4):
        chosen = evaluate(made(off=off), metrics=[name, "field_rce[by=nothing]"])
        assert list(chosen) == [name]
        assert chosen.calibration is None
        values[off] = chosen[name]
    assert values[None].low < values[None].value < values[None].high
    assert values[4].value > 1.2 * values[None].value
    assert len(evaluate(rows, metrics=["field_rce[by=shop]"])) == 3


def test_the_json_form_survives_and_the_verdict_is_noted():
    _, found = small()
    content = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert {"reliability", "slices"} <= set(content)
    assert EvaluationResult.from_dict(content) == found
    assert CalibrationTables.from_dict(content) == found.calibration
    assert set(found.calibration.verdict) <= set(found.notes)


def test_rows_without_slices_have_bins_and_no_verdict():
    rows = replace(made(), slices={})
    tables = calibration_tables(rows, rows.samples())
    assert set(tables.reliability) == {"ctr@exposure", "cvr@click", "ctcvr@exposure"}
    assert (tables.ratios, tables.tested, tables.verdict) == ({}, {}, ())


def test_odd_rows_do_not_break_it():
    rows = made(rows=60)
    none = replace(rows, labels=replace(rows.labels, conversion=np.zeros(60, np.int8)))
    assert all("needs" in each for each in calibration_tables(none, none.samples()).verdict if each.startswith("cvr"))
    late = replace(rows, labels=replace(rows.labels, conversion=np.full(60, CENSORED, np.int8)))
    assert "cvr@click" not in calibration_tables(late, late.samples()).reliability
    broken = replace(rows, scores=Scores({head: odds * np.nan for head, odds in rows.scores.odds.items()}, {}))
    assert calibration_tables(broken, broken.samples()).reliability == {}
    chosen = evaluate(broken, metrics=["field_rce[by=shop]"])
    assert chosen["cvr/field_rce[by=shop]@click"].undefined == "scores are not numbers"
    clicks = calibration_tables(rows, rows.samples("click"))
    assert set(clicks.tested) == {"cvr@click"}


def test_the_list_is_cut_and_the_tests_are_not(monkeypatch):
    monkeypatch.setattr(module, "MOST_LISTED", 3)
    rows = made(off=4)
    tables = calibration_tables(rows, rows.samples())
    assert len(tables.ratios["cvr@click|campaign"]) == 3
    assert tables.ratios["cvr@click|campaign"][0].value == "4"
    assert tables.tested["cvr@click"] == 18


def test_slices_that_are_off_are_counted_beyond_the_list(monkeypatch):
    monkeypatch.setattr(module, "MOST_LISTED", 1)
    rows = made(off=4)
    campaign = rows.slices["campaign"]
    half = np.where(campaign == 4, np.where(np.arange(len(campaign)) % 2 == 0, "4a", "4b"), campaign.astype(str))
    twice = replace(rows, slices={"campaign": half.astype(object)})
    sentence = next(each for each in calibration_tables(twice, twice.samples()).verdict if each.startswith("cvr@click"))
    assert "2 of 16 slices are off" in sentence


def test_the_surest_slice_has_an_interval_that_leaves_out_1():
    seen = 0
    for seed in range(12):
        rows = made(rows=3_000, off=4, seed=seed)
        tables = calibration_tables(rows, rows.samples())
        for place in tables.tested:
            listed = [each for name, rows_of in tables.ratios.items() if name.startswith(place) for each in rows_of]
            worst = min((each for each in listed if each.p is not None), key=lambda each: each.p)
            assert (worst.p <= 0.05) == (worst.low > 1.0 or worst.high < 1.0)
            seen += worst.p <= 0.05
    assert 0 < seen < 36
