"""The hook that follows a training: its order, and a tool that is not there. The recorder writes a real file."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from postclick import files
from postclick.errors import ConfigError, TrainingError
from postclick.models.catalog import build
from postclick.run import run
from postclick.run.stages import Stages
from postclick.training import tracking
from postclick.training.config import TrainingConfig
from postclick.training.tracking import follow, scalars

CHECK = {
    "epoch": 0,
    "step": 4,
    "terms": {"ctr": 0.5},
    "diagnostics": {"gate": 0.25},
    "valid": {"ctr/logloss@exposure": 0.75},
    "best": True,
}


class Recorder:
    """One JSON line a call."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "calls.jsonl"

    def _write(self, name: str, value: object) -> None:
        with self.path.open("a", encoding="utf-8") as handle:
            handle.write(json.dumps([name, value]) + "\n")

    def on_start(self, settings) -> None:
        self._write("start", dict(settings))

    def on_check(self, check) -> None:
        self._write("check", check["step"])

    def on_end(self, status: str) -> None:
        self._write("end", status)


@pytest.fixture
def recorder(monkeypatch):
    monkeypatch.setitem(tracking.TRACKERS, "tensorboard", Recorder)


def calls(folder: Path) -> list[list[object]]:
    return [json.loads(line) for line in (folder / "tracking" / "calls.jsonl").read_text("utf-8").splitlines()]


def test_one_start_then_checks_then_one_end(recorder, tmp_path):
    told = []
    with follow("tensorboard", tmp_path, {"seed": 1}, told.append) as following:
        following.check(CHECK)
        following.check({**CHECK, "step": 8})
        following.status = "finished"
    assert calls(tmp_path) == [["start", {"seed": 1}], ["check", 4], ["check", 8], ["end", "finished"]]
    assert [entry["step"] for entry in told] == [4, 8]


def test_an_error_is_an_end_that_failed(recorder, tmp_path):
    with pytest.raises(ZeroDivisionError), follow("tensorboard", tmp_path, {}):
        raise ZeroDivisionError
    assert calls(tmp_path)[-1] == ["end", "failed"]


def test_off_writes_nothing_and_still_tells_the_caller(tmp_path):
    told = []
    with follow(None, tmp_path, {}, told.append) as following:
        following.check(CHECK)
    assert told == [CHECK]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("name", "module"), [("tensorboard", "torch.utils.tensorboard"), ("mlflow", "mlflow")])
def test_a_tool_that_is_not_there_names_the_extra(monkeypatch, tmp_path, name, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError, match=r"postclick\[tracking\]"), follow(name, tmp_path, {}):
        pass


def test_the_numbers_of_a_check_by_name():
    assert scalars(CHECK) == {"valid/ctr/logloss@exposure": 0.75, "terms/ctr": 0.5, "diagnostics/gate": 0.25}


# --- through a run ---


@pytest.fixture
def tracked(small_config):
    return replace(small_config, training=replace(small_config.training, max_epochs=2, tracking="tensorboard"))


def untracked(config):
    return replace(config, training=replace(config.training, tracking=None))


def test_a_run_tells_start_every_check_of_its_file_and_the_end(recorder, tracked, small_log, tmp_path):
    result = run(small_log, tracked, tmp_path / "run")
    checks = [json.loads(line)["step"] for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    start, *between, end = calls(tmp_path / "run")
    assert start[0] == "start"
    assert (start[1]["system"], start[1]["seed"], start[1]["batch_size"]) == ("ESMM", 3, 256)
    assert between == [["check", step] for step in checks]
    assert len(checks) == 2
    assert end == ["end", "finished"]
    assert not any(name.startswith("tracking") for name in files.read_manifest(result.path, "run").files)


def test_it_is_off_by_default_and_changes_no_number(recorder, tracked, small_log, tmp_path):
    assert TrainingConfig().tracking is None
    watched = run(small_log, tracked, tmp_path / "watched")
    alone = run(small_log, untracked(tracked), tmp_path / "alone")
    assert watched.bundle == alone.bundle
    assert not (tmp_path / "alone" / "tracking").exists()
    for name in ("metrics.jsonl", "evaluation.json"):
        assert (tmp_path / "watched" / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()


def test_cut_off_it_says_so_and_a_resumed_run_tells_its_earlier_checks_again(recorder, tracked, small_log, tmp_path):
    out, asked = tmp_path / "run", iter([False] * 19 + [True])  # 15 steps an epoch
    with pytest.raises(TrainingError, match=r"train\.interrupted"):
        run(small_log, tracked, out, should_stop=lambda: next(asked))
    first = calls(out)
    assert [name for name, _ in first] == ["start", "check", "end"]
    assert first[-1] == ["end", "interrupted"]
    run(small_log, tracked, out, resume=True)
    again = calls(out)[len(first) :]
    assert [name for name, _ in again] == ["start", "check", "check", "end"]
    assert again[1] == first[1]
    assert again[-1] == ["end", "finished"]


def test_a_run_that_fails_is_told_as_failed(recorder, tracked, small_log, tmp_path):
    wild = replace(tracked, training=replace(tracked.training, learning_rate=1e30))
    with pytest.raises(TrainingError, match=r"train\.non_finite"):
        run(small_log, wild, tmp_path / "run")
    assert [calls(tmp_path / "run")[index] for index in (0, -1)][1] == ["end", "failed"]


def test_a_pre_training_is_not_followed_and_is_shared_with_runs_that_are_not(recorder, tracked, small_log, tmp_path):
    def place(config):
        model = build("cstwa", small_log.spec, {"embedding_size": 4})
        stages = Stages(tmp_path, small_log, config, torch.device("cpu"))
        return [stages.place(one) for one in model.requires()]

    assert place(tracked) == place(untracked(tracked))


@pytest.mark.parametrize(("name", "module"), [("tensorboard", "torch.utils.tensorboard"), ("mlflow", "mlflow")])
def test_a_run_without_the_tool_names_the_extra_and_writes_nothing(
    monkeypatch, tracked, small_log, tmp_path, name, module
):
    monkeypatch.setitem(sys.modules, module, None)
    config = replace(tracked, training=replace(tracked.training, tracking=name))
    with pytest.raises(ConfigError, match=r"postclick\[tracking\].*training\.tracking=off"):
        run(small_log, config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_tracker_of_ones_own_follows_under_its_own_name(monkeypatch, tracked, small_log, tmp_path):
    monkeypatch.setitem(tracking.TRACKERS, "recorder", Recorder)
    config = replace(tracked, training=replace(tracked.training, tracking="recorder"))
    run(small_log, config, tmp_path / "run")
    assert calls(tmp_path / "run")[-1] == ["end", "finished"]
