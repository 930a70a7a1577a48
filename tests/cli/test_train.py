"""Signals while training: the step ends, the state is saved, the exit code names the signal; what resuming refuses."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import postclick.run
from postclick import files
from postclick.bundle import Bundle, Scorer
from postclick.cli.main import call
from postclick.data.log import ExposureLog
from postclick.errors import ExitCode, Finding, TrainingError
from postclick.run.assessment import judged_rows
from postclick.training.step import TrainingStep

SETTINGS = [
    "training.threads=1",
    "training.batch_size=256",
    "tower.hidden=[8]",
    "tower.dropout=[0.1]",
    "training.checks_per_epoch=1",
]


def command(log: Path, out: Path, *more: str) -> list[str]:
    settings = [word for setting in SETTINGS for word in ("--set", setting)]
    return ["train", str(log), "--system", "esmm", "--out", str(out), "--max-epochs", "2", *settings, *more]


def kill_at(monkeypatch: pytest.MonkeyPatch, step: int, number: signal.Signals, system: str = "ESMM") -> None:
    """Send this process a signal inside a step of a system, not of what it is pre-trained with."""
    original = TrainingStep.__call__

    def signalled(self: TrainingStep, batch: Any, index: int) -> bool:
        if index == step and type(self.model).__name__ == system:
            os.kill(os.getpid(), number)
        return original(self, batch, index)

    monkeypatch.setattr(TrainingStep, "__call__", signalled)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_training_after_its_step(
    number: signal.Signals, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}
    asked: list[bool] = []

    def interrupted(*_: Any, should_stop: Callable[[], bool], **__: Any) -> None:
        asked.append(should_stop())
        os.kill(os.getpid(), number)
        asked.append(should_stop())
        finding = Finding("train.interrupted", "training was stopped and saved", "run", fix="go on with --resume")
        raise TrainingError(finding, exit_code=ExitCode.TERMINATED)

    monkeypatch.setattr(postclick.run, "run", interrupted)
    assert call(["train", "log", "--system", "esmm", "--out", "run"]) == code
    assert asked == [False, True]
    assert "go on with --resume" in capsys.readouterr().err
    assert {each: signal.getsignal(each) for each in before} == before


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_step_is_finished_and_saved_one_line_says_so_and_resuming_ends_in_the_same_bundle(
    pipeline: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: signal.Signals,
    code: int,
) -> None:
    kill_at(monkeypatch, 4, number)
    assert call(command(pipeline.log, tmp_path / "cut", "--json")) == code
    (line,) = capsys.readouterr().out.splitlines()
    error = json.loads(line)["error"]
    assert (error["code"], error["exit_code"]) == ("train.interrupted", 143 if code == 143 else 130)
    assert error["findings"][0]["what"] == "stopped: training is saved after 5 steps"
    assert [place.name for place in (tmp_path / "cut" / "checkpoints").iterdir()] == ["step-00000005"]
    monkeypatch.undo()
    assert call(command(pipeline.log, tmp_path / "cut", "--json", "--resume")) == 0
    resumed = json.loads(capsys.readouterr().out)
    assert call(command(pipeline.log, tmp_path / "whole", "--json")) == 0
    assert resumed["bundle"] == json.loads(capsys.readouterr().out)["bundle"]
    for name in ("manifest.json", "metrics.jsonl", "evaluation.json"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_resuming_otherwise_is_refused_with_every_difference(
    pipeline: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert call(command(pipeline.log, out, "--quiet")) == 0
    change = ["--seed", "5", "--set", "training.learning_rate=0.01", "--set", "training.patience=3", "--resume"]
    assert call(command(pipeline.log, out, *change)) == 78
    text = capsys.readouterr().err
    assert [line.split(" | ")[1] for line in text.splitlines() if line.startswith("ckpt.incompatible")] == [
        "seed",
        "training.learning_rate",
        "training.patience",
    ]
    assert "--allow-config-change patience" in text
    unsafe = ["--set", "training.learning_rate=0.01", "--allow-config-change", "learning_rate", "--resume"]
    assert call(command(pipeline.log, out, *unsafe)) == 78
    safe = ["--set", "training.patience=3", "--allow-config-change", "patience", "--resume"]
    assert call(command(pipeline.log, out, *safe)) == 0


def test_a_second_trainer_names_the_first(pipeline: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run").mkdir()
    with files.lock(tmp_path / "run"):
        assert call(command(pipeline.log, tmp_path / "run", "--resume")) == 75
    text = capsys.readouterr().err
    assert f"lock.held another process works on this folder (pid {os.getpid()} on " in text
    assert [path.name for path in (tmp_path / "run").iterdir()] == [".lock"]


def test_an_output_that_cannot_be_made_and_a_loss_that_is_not_finite(
    pipeline: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("x")
    assert call(command(pipeline.log, tmp_path / "file" / "run")) == 73
    assert "io.cannot_create" in capsys.readouterr().err
    assert call(command(pipeline.log, tmp_path / "run", "--set", "training.learning_rate=1e30")) == 70
    text = capsys.readouterr().err
    assert text.startswith("train.non_finite")
    assert "exposure_id | 256 times | for example" in text
    assert "Traceback" not in text


def test_sigterm_elsewhere_takes_half_made_outputs_away(tmp_path: Path) -> None:
    run = [sys.executable, "-m", "postclick", "simulate", str(tmp_path / "world"), "--exposures", "50000000"]
    with subprocess.Popen(run, stderr=subprocess.PIPE, text=True) as process:
        for _ in range(600):
            time.sleep(0.05)
            if any(tmp_path.glob(".world.*.partial")):
                break
        process.terminate()
        _, text = process.communicate(timeout=60)
    assert process.returncode == 143
    assert text.endswith("interrupted\n")
    assert "Traceback" not in text
    assert list(tmp_path.iterdir()) == []


def test_reading_d_is_cut_off_in_a_migrated_epoch_resumed_and_scored(
    pipeline: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, as_json: Callable[..., Any]
) -> None:
    """Only ids migrate: the item's and the user's table rows are what moves, so the bundle has no vectors beside it."""
    settings = ("migrator.reading=D", "migrator.neighbours=4", "escaper=off", "embedding_size=4", "tower.hidden=[8]")
    settings += ("tower.dropout=[0.1]", "training.threads=1", "training.batch_size=500", "training.checks_per_epoch=1")

    def cstwa(out: str, *more: str) -> list[str]:
        words = [word for setting in settings for word in ("--set", setting)]
        return ["train", str(pipeline.log), "--system", "cstwa", "--out", str(tmp_path / out), *words, *more]

    epoch = -(-len(ExposureLog(pipeline.log).split("train")) // 500)
    kill_at(monkeypatch, epoch + 2, signal.SIGTERM, "CSTWA")
    error = as_json(*cstwa("cut"), "--max-epochs", 2, code=143)["error"]
    assert error["findings"][0]["what"] == f"stopped: training is saved after {epoch + 3} steps"
    monkeypatch.undo()
    resumed = as_json(*cstwa("cut"), "--max-epochs", 2, "--resume")
    whole = as_json(*cstwa("whole"), "--max-epochs", 2)
    assert resumed["bundle"] == whole["bundle"]
    assert resumed["training"]["best_epoch"] > 0
    for name in ("manifest.json", "metrics.jsonl", "evaluation.json"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    bundle = Bundle.load(tmp_path / "cut")
    assert bundle.model.reading == "D"
    assert not any(list(side.buffers()) or list(side.parameters()) for side in bundle.model.sides.values())
    as_json("score", tmp_path / "cut", pipeline.log, "--split", "test", "--out", tmp_path / "s.parquet")
    scores = pq.read_table(tmp_path / "s.parquet")
    judged, _, _ = judged_rows(Scorer(bundle, "cpu"), ExposureLog(pipeline.log), "test")
    for head in ("ctr", "cvr", "ctcvr"):
        assert scores[head].to_numpy() == pytest.approx(judged.scores.probability(head), abs=1e-6)
