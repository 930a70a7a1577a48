"""The program: exit codes, messages without traceback, JSON alone on stdout, and no torch for help."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys

import pytest
import typer

from postclick.cli import main as program
from postclick.cli.main import call
from postclick.errors import DataError, Finding

COMMANDS = ("simulate", "prepare", "inspect", "train", "evaluate", "score", "systems", "demo")


def python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


# --- help -----------------------------------------------------------------------------------------------------------


def test_help_names_every_command_and_where_to_start(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(command in text for command in COMMANDS)
    assert "postclick demo" in text


def test_no_arguments_show_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert call([]) == 0
    assert "Usage: postclick" in capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_a_command_teaches(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call([command, "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert f"Example: postclick {command}" in text
    assert "Next: " in text
    assert "--json" in text
    assert "--quiet" in text


@pytest.mark.parametrize("command", ["simulate", "prepare", "train", "score"])
def test_commands_that_make_an_output_can_replace_it(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    call([command, "--help"])
    assert "--force" in capsys.readouterr().out


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["--version"]) == 0
    assert capsys.readouterr().out.startswith("postclick 0.")


HEAVY = "print([m for m in ('torch', 'polars', 'pyarrow', 'numpy', 'scipy') if m in sys.modules], file=sys.stderr)"


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["--version"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    code = f"import sys; from postclick.cli.main import call; call(sys.argv[1:]); {HEAVY}"
    assert python(code, *arguments).stderr.strip() == "[]"


def test_importing_the_package_imports_no_torch() -> None:
    assert python("import sys, postclick; print('torch' in sys.modules)").stdout.strip() == "False"


def test_help_is_quick() -> None:
    seconds = []
    for _ in range(5):
        before = spent()
        subprocess.run([sys.executable, "-m", "postclick", "--help"], capture_output=True, check=True, timeout=60)
        seconds.append(spent() - before)
    # processor time and the best of five: what the program costs, not how busy the machine is
    assert min(seconds) < 0.3


def spent() -> float:
    """Processor seconds of this process's children so far."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


# --- failures -------------------------------------------------------------------------------------------------------


def planted(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Let the program hold one command, `boom`, that raises `error`."""
    app = typer.Typer(pretty_exceptions_enable=False)

    @app.callback()
    def _program() -> None: ...

    @app.command()
    def boom(as_json: bool = typer.Option(False, "--json")) -> None:
        raise error

    monkeypatch.setattr(program, "app", app)


FINDINGS = (Finding("data.one", "first", "a.csv:3", 2, ("x", "y"), "do this"), Finding("data.two", "second"))


def test_our_errors_are_their_text_and_their_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    planted(monkeypatch, DataError(*FINDINGS))
    assert call(["boom"]) == 65
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "data.one first | a.csv:3 | 2 times | for example x, y | do this\ndata.two second\n"


def test_with_json_the_findings_are_on_stdout(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    planted(monkeypatch, DataError(*FINDINGS))
    assert call(["boom", "--json"]) == 65
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["code"] == "data.one"
    assert error["exit_code"] == 65
    assert error["findings"][0] == {
        "code": "data.one",
        "what": "first",
        "where": "a.csv:3",
        "count": 2,
        "examples": ["x", "y"],
        "fix": "do this",
    }
    assert len(error["findings"]) == 2


def test_the_unforeseen_is_70_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("POSTCLICK_DEBUG", raising=False)
    planted(monkeypatch, ZeroDivisionError("by zero"))
    assert call(["boom"]) == 70
    text = capsys.readouterr().err
    assert text.startswith("internal ZeroDivisionError: by zero | ")
    assert "POSTCLICK_DEBUG=1" in text
    assert "Traceback" not in text


def test_debugging_shows_the_traceback(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("POSTCLICK_DEBUG", "1")
    planted(monkeypatch, ZeroDivisionError("by zero"))
    assert call(["boom"]) == 70
    assert "Traceback" in capsys.readouterr().err


def test_an_interrupt_is_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    planted(monkeypatch, KeyboardInterrupt())
    assert call(["boom"]) == 130
    assert "Traceback" not in capsys.readouterr().err


def test_a_system_error_is_74(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    planted(monkeypatch, OSError(5, "Input/output error", "x.bin"))
    assert call(["boom"]) == 74
    assert capsys.readouterr().err.startswith("io.failed ")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["trian"], "No such command 'trian'"),
        (["train", "log", "--sytem", "esmm"], "--system"),
        (["train"], "Missing argument"),
        (["score", "run", "rows.parquet"], "Missing option"),
        (["simulate", "w", "--format", "csv"], "csv"),
        (["prepare", "x", "--out", "o", "--min-count", "many"], "--min-count"),
    ],
)
def test_wrong_usage_is_64_and_says_how_it_goes(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(arguments) == 64
    text = capsys.readouterr().err
    assert text.startswith("usage ")
    assert words in text
    assert "--help" in text


def test_wrong_usage_with_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["train", "--json"]) == 64
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "usage"


@pytest.mark.parametrize("command", ["monitor", "serve", "tune", "benchmark"])
def test_commands_of_later_releases_are_not_offered(command: str) -> None:
    assert call([command]) == 64


def test_a_closed_pipe_is_no_traceback() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "postclick", "--help"]
    with os.fdopen(writer, "wb") as pipe:
        done = subprocess.run(command, stdout=pipe, stderr=subprocess.PIPE, timeout=60, check=False)
    assert b"Traceback" not in done.stderr


def test_the_module_is_the_program() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "postclick", "frobnicate"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 64
    assert done.stderr.startswith("usage No such command")
