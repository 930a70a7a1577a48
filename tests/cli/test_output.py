"""What is printed: JSON that is JSON, tables that are safe, notes on stderr."""

from __future__ import annotations

import json

import numpy as np
import pytest

from postclick import progress
from postclick.cli.output import Output, json_text, number, table


@pytest.fixture(autouse=True)
def loud():
    yield
    progress.set_quiet(False)


def test_json_is_alone_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    output = Output(as_json=True)
    output.note("next: something")
    output.result({"b": 1, "a": [np.float64("nan"), np.int64(3), float("inf"), None, True, "ü"]}, "not shown")
    captured = capsys.readouterr()
    assert json.loads(captured.out) == {"a": [None, 3, None, None, True, "ü"], "b": 1}
    assert captured.err == "next: something\n"


def test_people_get_the_parts(capsys: pytest.CaptureFixture[str]) -> None:
    Output().result({"a": 1}, "one line", table("Title", ("name", "count"), [("x", 3)]))
    out = capsys.readouterr().out
    assert "one line" in out
    assert "Title" in out
    assert '"a"' not in out


def test_quiet_keeps_the_result_and_drops_the_notes(capsys: pytest.CaptureFixture[str]) -> None:
    output = Output(quiet=True)
    output.note("next: something")
    output.result({}, "the result")
    captured = capsys.readouterr()
    assert captured.out == "the result\n"
    assert captured.err == ""


def test_text_of_the_data_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    Output().result({}, table("T", ("name",), [("\x1b[31m[bold]red\u202e",)]))
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "\u202e" not in out
    assert "[bold]red" in out


def test_square_brackets_are_text(capsys: pytest.CaptureFixture[str]) -> None:
    Output().result({}, "[training]\nl2 = 0")
    assert "[training]" in capsys.readouterr().out


def test_the_first_columns_are_text_and_the_others_numbers() -> None:
    built = table("T", ("a", "b", "c"), [], texts=2)
    assert [column.justify for column in built.renderables[1].columns] == ["left", "left", "right"]


@pytest.mark.parametrize(
    ("value", "text"),
    [(1234567, "1,234,567"), (0.12345, "0.1235"), (None, "-"), (float("nan"), "-"), (1234.5, "1,234.5000")],
)
def test_numbers(value: float | None, text: str) -> None:
    assert number(value) == text


def test_json_shows_every_character_and_means_the_same() -> None:
    value = {"a\u202e": ["\x1b[31m", "\U000e0041", "\xa0", "é", "line\nbreak"]}
    text = json_text(value, indent=2)
    assert [char for char in text if not char.isprintable() and char != "\n"] == []
    assert "é" in text
    assert json.loads(text) == value
