"""Signals while training: the step ends, the state is saved, the exit code names the signal."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

import pytest

import postclick.run
from postclick.cli.main import call
from postclick.errors import ExitCode, Finding, TrainingError


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
