"""Tables that commands share."""

import io
import re
from dataclasses import asdict
from typing import Any

import numpy as np
from rich.console import Console

from postclick.cli.main import call
from postclick.cli.tables import experts_parts, interval, overlap_parts
from postclick.evaluation.experts import ExpertUse, experts_form
from postclick.metrics import ece, field_rce, overlap, slice_sums


def printed(form, parts=experts_parts) -> str:
    console = Console(file=io.StringIO(), width=120)
    for part in parts(form):
        console.print(part)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_a_collapsed_expert_is_marked_in_its_row():
    text = printed(experts_form({"ctr": ExpertUse(9, (0.004, 0.996), (0.0, 1.0), 0.1)}))
    rows = [line.split() for line in text.splitlines() if line.strip().startswith("ctr")]
    assert rows == [["ctr", "0", "collapsed", "0.4%", "0.0%", "0.100"], ["ctr", "1", "99.6%", "100.0%", "0.100"]]
    assert "no expert has collapsed" not in text


def test_healthy_experts_are_called_so():
    text = printed(experts_form({"ctr": ExpertUse(9, (0.4, 0.6), (0.3, 0.7), 0.9)}))
    assert "no expert has collapsed: each gets at least 0.1/K of the weight" in text


def test_a_system_without_gates_shows_nothing():
    assert experts_parts(None) == []


def test_evaluate_shows_the_experts_of_a_system_with_gates(pipeline: Any, as_json: Any, tmp_path: Any, capsys: Any):
    small = ["--set", "experts.hidden=[8]", "--set", "experts.dropout=[0.0]", "--set", "training.threads=1"]
    as_json("train", pipeline.log, "--system", "mmoe", "--out", tmp_path / "run", "--max-epochs", "1", *small)
    experts = as_json("evaluate", tmp_path / "run", pipeline.log)["experts"]
    assert set(experts["tasks"]) == {"ctr", "ctcvr"}
    assert experts["verdict"] == []
    assert call(["evaluate", str(tmp_path / "run"), str(pipeline.log)]) == 0
    shown = capsys.readouterr().out
    assert "Experts" in shown
    assert "no expert has collapsed" in shown
    assert "experts" not in as_json("evaluate", pipeline.run, pipeline.log)


def test_the_overlap_is_shown_with_its_verdict():
    p = np.tile([0.0, 0.25, 0.5], 1000)
    click = (np.arange(3000) % 12 // 3 < 2) & (p > 0.0)
    found = overlap(click.astype(np.int8), p, floor=0.01, columns={"ctr": p}, source="the logged propensity")
    text = printed(found.to_dict(), overlap_parts)
    assert "Propensity by click (the logged propensity)" in text
    assert [line.split()[0] for line in text.splitlines() if "0.500" in line] == ["clicked", "unclicked"]
    assert "overlap is too thin: 33.3% of the exposure space is out of the clicks' reach, over 5%" in text
    assert "clicks against exposures, before and after weighting: ctr +0.61 to +0." in text
    assert overlap_parts(None) == []


def test_evaluate_shows_the_overlap(pipeline: Any, as_json: Any, capsys: Any):
    form = as_json("evaluate", pipeline.run, pipeline.log)["overlap"]
    assert form["verdict"].startswith("overlap ")
    assert call(["evaluate", str(pipeline.run), str(pipeline.log)]) == 0
    shown = capsys.readouterr()
    assert "Propensity by click (the system's own ctr)" in shown.out
    assert "cvr/mean[estimator=snips]@exposure" in shown.out


def test_a_balance_that_a_system_cannot_have_stops_with_a_fix(pipeline: Any, tmp_path: Any, capsys: Any):
    balance = ["--set", "training.balance=pcgrad"]
    assert call(["train", str(pipeline.log), "--system", "mlp", "--out", str(tmp_path / "run"), *balance]) == 78
    assert "set training.balance=fixed or =uncertainty" in capsys.readouterr().err


def test_a_null_band_is_not_shown_as_an_interval():
    entry = {"value": 0.05, "undefined": None, "low": 0.01, "high": 0.02, "method": "user bootstrap-t"}
    assert interval(entry) == "0.0500 [0.0100, 0.0200]"
    odds = np.full(400, -1.0)
    found = asdict(ece(odds, np.repeat([0, 1], 200)))
    assert found["value"] > found["high"]
    assert re.fullmatch(r"0\.231 \(if calibrated: 0\.00\d to 0\.04\d\)", interval(found, 3))
    by_shop = field_rce(slice_sums(odds, np.repeat([0, 1], 200), np.zeros(400, int)), np.repeat([0, 1], 200))
    assert "(if calibrated: " in interval(asdict(by_shop))
