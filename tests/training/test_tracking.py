"""The hook that follows a training: its order, and a tool that is not there. The recorder writes a real file."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from postclick.errors import ConfigError
from postclick.training import tracking
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
