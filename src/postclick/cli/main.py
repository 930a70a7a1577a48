"""The program: its commands, and how a failure becomes a message and an exit code."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import Annotated

import typer

from postclick.cli.benchmark import benchmark
from postclick.cli.demo import demo
from postclick.cli.evaluate import evaluate
from postclick.cli.inspect import inspect
from postclick.cli.neighbours import neighbours
from postclick.cli.prepare import prepare
from postclick.cli.report import report
from postclick.cli.score import score
from postclick.cli.simulate import simulate
from postclick.cli.systems import systems
from postclick.cli.train import train
from postclick.cli.tune import tune
from postclick.errors import ExitCode, Finding, PostclickError, UsageError, unforeseen

__all__ = ["app", "call", "main"]

_ABOUT = """\
Post-click conversion rates over the entire exposure space: calibrated, debiased, from raw log to scored file.

The way through: simulate (or bring a log), prepare, train, evaluate, score. Start with: postclick demo
"""


def _paragraphs(text: str) -> str:
    """Return a docstring with each paragraph on one line: the terminal decides where it breaks."""
    return "\n\n".join(" ".join(part.split()) for part in text.split("\n\n")).strip()


app = typer.Typer(
    name="postclick",
    help=_ABOUT,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (simulate, prepare, inspect, train, evaluate, score, systems, neighbours, benchmark, tune, report, demo):
    app.command(help=_paragraphs(command.__doc__ or ""))(command)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"postclick {version('postclick')}")
        raise typer.Exit()


@app.callback()
def _program(
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    pass


_program.__doc__ = _ABOUT


def call(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code; whatever fails is one message, never a traceback."""
    as_json = "--json" in arguments
    try:
        code = app(list(arguments) or ["--help"], prog_name="postclick", standalone_mode=False)
        sys.stdout.flush()
    except PostclickError as error:
        return _report(error, as_json)
    except KeyboardInterrupt:
        code = ExitCode.INTERRUPTED
    except _Terminated:
        code = ExitCode.TERMINATED
    except BrokenPipeError:
        return _reader_gone()
    except SystemExit as error:  # typer's own answer to a closed pipe
        return ExitCode.OK if not error.code else _reader_gone()
    except Exception as error:
        return _report(_translated(error), as_json)
    if code in {ExitCode.INTERRUPTED, ExitCode.TERMINATED}:  # typer, too, answers Ctrl-C with the former
        print("interrupted", file=sys.stderr)
    return code if isinstance(code, int) else ExitCode.OK


def _translated(error: Exception) -> PostclickError:
    """Turn typer's complaints and anything unforeseen into ours."""
    format_message = getattr(error, "format_message", None)
    if callable(format_message):  # typer's usage errors: their class has moved between its versions, this has not
        context = getattr(error, "ctx", None)
        place = context.command_path if context else "postclick"
        return UsageError(Finding("usage", str(format_message()), place, fix=f"see: {place} --help"))
    return unforeseen(error)


def _report(error: PostclickError, as_json: bool) -> int:
    print(error, file=sys.stderr)
    if as_json:
        findings = [
            {
                "code": finding.code,
                "what": finding.what,
                "where": finding.where,
                "count": finding.count,
                "examples": list(finding.examples),
                "fix": finding.fix,
            }
            for finding in error.findings
        ]
        body = {"error": {"code": error.code, "exit_code": int(error.exit_code), "findings": findings}}
        from postclick.cli.output import json_text

        print(json_text(body))
    return int(error.exit_code)


def _reader_gone() -> int:
    """Stdout was closed by its reader (``| head``): nothing more can be said there."""
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123 - replaces the process's stdout until it ends
    return ExitCode.IO


class _Terminated(BaseException):
    """SIGTERM, as an exception: half-made outputs are taken away on the way out, as with Ctrl-C."""


def _terminate(owner: int, number: int) -> None:
    if os.getpid() != owner:  # a forked worker has nothing to take away
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    raise _Terminated


def main() -> None:
    """Run the command line of this process."""
    owner = os.getpid()

    def terminate(number: int, _frame: FrameType | None) -> None:
        _terminate(owner, number)

    signal.signal(signal.SIGTERM, terminate)
    sys.exit(call(sys.argv[1:]))
