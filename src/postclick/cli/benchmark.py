"""``postclick benchmark``: an experiment file to a table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from postclick.cli.options import Force, Json, Quiet
from postclick.cli.output import Output
from postclick.errors import Finding, UsageError

__all__ = ["benchmark"]


def benchmark(
    experiment: Annotated[Path, typer.Argument(metavar="EXPERIMENT.toml", help="Data, runs, seeds, grid, table.")],
    *,
    out: Annotated[Path, typer.Option(metavar="BENCHMARK", help="The folder to make.")],
    data: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=PATH", help="Where a data set of the file is: raw rows or a LOG. Repeat."),
    ] = None,
    jobs: Annotated[int, typer.Option(metavar="N", min=1, help="Runs made at once, a process of one thread each.")] = 1,
    resume: Annotated[bool, typer.Option("--resume", help="Keep the runs that are whole and go on.")] = False,
    force: Force = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Run an experiment file and print its table: means over seeds, paired against the baseline.

    Data sets are simulated or prepared once and kept in BENCHMARK/shared; each run is a RUN under BENCHMARK/runs. A
    grid is tuned on the validation rows alone, alike for every run. --jobs changes the time, not a byte of the result;
    a run that fails ends no other, and its error is the last word. Ctrl-C at any moment, then --resume.

    Example: postclick benchmark experiments/selection.toml --out results

    Next: postclick evaluate results/runs/... LOG, or the numbers in results/leaderboard.json
    """
    from postclick.benchmark import run_benchmark

    output = Output(as_json, quiet)
    board = run_benchmark(experiment, out, data=_paths(data or []), jobs=jobs, resume=resume, force=force)
    output.result({"benchmark": str(out), **board.to_dict()}, board.tables_markdown())
    output.note(f"wrote {out}; the test behind each sign: {out}/leaderboard.md")


def _paths(assignments: list[str]) -> dict[str, str]:
    paths = {}
    for text in assignments:
        name, separator, path = text.partition("=")
        if not separator or not name or not path:
            raise UsageError(Finding("usage", f"expected NAME=PATH, got {text!r}", "--data"))
        paths[name] = path
    return paths
