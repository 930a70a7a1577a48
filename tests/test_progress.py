"""Bars: nothing for a pipe, something for a person, nothing when quiet."""

from __future__ import annotations

import io
import sys

import pytest

from postclick import progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def loud():
    progress.set_quiet(False)
    yield
    progress.set_quiet(False)


def test_a_pipe_gets_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.bar("reading", 10) as advance:
        advance(4)
        advance(6, "done")
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""


def test_a_terminal_gets_a_bar_on_stderr_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with progress.bar("reading", 10, unit="files") as advance:
        advance(4)
        advance(6, "nearly done")
    assert "reading" in terminal.getvalue()
    assert "files" in terminal.getvalue()
    assert capsys.readouterr().out == ""


def test_quiet_wins_over_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    progress.set_quiet(True)
    with progress.bar("reading", None) as advance:
        advance(1)
    assert terminal.getvalue() == ""


def test_an_error_inside_is_not_swallowed() -> None:
    with pytest.raises(KeyError), progress.bar("reading", 1):
        raise KeyError("x")


def test_a_line_before_long_work_goes_to_stderr_unless_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    progress.say("about 3 min")
    progress.set_quiet(True)
    progress.say("nothing")
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "about 3 min\n")


def test_a_bar_inside_another_is_hushed_and_the_outer_one_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with progress.bar("outermost", 2) as advance, progress.hushed():
        with progress.bar("innermost", 1) as inner:
            inner(1)
        advance(2, "all done")
    text = terminal.getvalue()
    assert "outermost" in text
    assert "all done" in text
    assert "innermost" not in text
    with progress.bar("afterwards", 1):
        pass
    assert "afterwards" in terminal.getvalue()


@pytest.mark.parametrize("quiet", [False, True])
def test_hushed_puts_back_what_was_before_also_after_an_error(quiet: bool, capsys: pytest.CaptureFixture[str]) -> None:
    progress.set_quiet(quiet)

    def nested() -> None:
        with progress.hushed():
            with progress.hushed():
                progress.say("inside")
            progress.say("between")  # the inner one puts the outer one's hush back
            raise KeyError("x")

    with pytest.raises(KeyError):
        nested()
    progress.say("after")
    assert capsys.readouterr().err == ("" if quiet else "after\n")
