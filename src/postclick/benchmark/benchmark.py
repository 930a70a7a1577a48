"""Run an experiment: every data set, every row of the table, every seed, over as many processes as asked."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from postclick import files, progress
from postclick.benchmark.experiment import Experiment, RunSpec
from postclick.benchmark.leaderboard import Leaderboard
from postclick.benchmark.pieces import Outcome, Piece, known, work
from postclick.benchmark.preparation import open_logs, short_hash
from postclick.data.log import ExposureLog
from postclick.errors import Finding, PostclickError
from postclick.evaluation.choice import merit
from postclick.execution import Workers
from postclick.run.folder import claim, make_room

__all__ = ["run_benchmark"]

EXPERIMENT, RUNS, LEADERBOARD, TABLES = "experiment.toml", "runs.jsonl", "leaderboard.json", "leaderboard.md"


def run_benchmark(
    path: str | Path,
    out: str | Path,
    *,
    data: Mapping[str, str] | None = None,
    jobs: int = 1,
    resume: bool = False,
    force: bool = False,
) -> Leaderboard:
    """Run the experiment file at `path` into the folder `out`.

    Each run is a RUN folder under ``runs/``; logs and worlds are kept under ``shared/``. Where there is a grid, every
    setting of a run is tried with the first seeds and the best on the validation rows is then trained with all
    seeds; the test split never chooses. ``runs.jsonl`` holds what is equal for equal inputs, sorted by run: the same
    bytes at any number of processes, and after a kill and a resume.

    A run that fails ends no other: the rest is trained, the tables are made of it, and the error is raised then. In a
    grid a setting whose loss is not finite counts as the worst, and is no failure.

    Parameters
    ----------
    path
        The experiment file.
    out
        The BENCHMARK folder.
    data
        Name of a data set -> path of its raw rows or LOG, over what the file says.
    jobs
        How many runs are made at once, each in a process of its own.
    resume
        Keep the runs that are whole, go on with the one that is not.
    force
        Replace an existing BENCHMARK.

    Raises
    ------
    ConfigError
        What is wrong with the file, all together.
    StorageError
        `out` exists and neither `resume` nor `force` is on.
    PostclickError
        What the failed runs said, all together, the first deciding the exit code; `resume` makes them again.
    """
    experiment = Experiment.from_toml(path)
    text = Path(path).read_text("utf-8")
    out = Path(out)
    claim(out, EXPERIMENT, "a BENCHMARK folder", vacant=not (resume or force))
    with files.lock(out):
        files.sweep(out)
        if not resume:
            make_room(out, force=force, marker=EXPERIMENT)
        files.write_text(out / EXPERIMENT, text)
        logs, notes = open_logs(experiment, data or {}, out / "shared")
        outcomes = _Job(experiment, out, logs).outcomes(jobs)
        rows = [outcome.row for outcome in outcomes if outcome.row is not None]
        failures = [outcome for outcome in outcomes if outcome.failed]
        files.write_text(out / RUNS, "".join(row.line() + "\n" for row in rows))
        notes += [f"{found.piece.key} has no result: {found.error.code}" for found in outcomes if found.error]
        board = Leaderboard.of(experiment, logs, outcomes, notes)
        files.write_json(out / LEADERBOARD, board.to_dict())
        files.write_text(out / TABLES, board.to_markdown() + "\n")
        files.write_manifest(out, "benchmark", exclude=lambda name: name.startswith(("runs/", "shared/")))
        if failures:
            raise _joined(failures, out)
    return board


def _joined(failures: Sequence[Outcome], out: Path) -> PostclickError:
    """Return one error of all failed runs; its kind and exit code are those of the first."""
    errors = [failed.error for failed in failures if failed.error is not None]
    findings = [finding for error in errors for finding in error.findings]
    what = f"{len(errors)} runs failed; the others are whole, their tables in {TABLES}"
    findings.append(Finding("benchmark.failed", what, str(out), fix="mend the cause, then run again with --resume"))
    return type(errors[0])(*findings, exit_code=errors[0].exit_code)


@dataclass(frozen=True)
class _Row:
    """A row of the table on one data set, and the settings it is tried with."""

    data: str
    spec: RunSpec
    settings: Sequence[Mapping[str, Any]]


class _Job:
    """An experiment under way: first what the grids try, then the chosen settings with all seeds."""

    def __init__(self, experiment: Experiment, out: Path, logs: Mapping[str, ExposureLog]) -> None:
        self.experiment, self.out, self.logs = experiment, out, logs
        runs, grid = experiment.runs, experiment.grid
        self.table = [_Row(data, spec, grid.settings(spec.grid)) for data in logs for spec in runs]

    def outcomes(self, jobs: int) -> list[Outcome]:
        """Make all runs and return what came of each, sorted by key."""
        seeds = self.experiment.seeds.values
        tried = [self._trials(row) for row in self.table]
        total = sum(map(len, tried)) + len(self.table) * len(seeds)
        with Workers(jobs, apart=True) as workers, progress.bar("Running", total, "runs") as advance:

            def made(pieces: Sequence[Piece]) -> Iterator[Outcome]:
                before = [known(piece, self.logs[piece.data].hash) for piece in pieces]
                # only what is not there yet: where all is, no process is started
                fresh = workers.map(work, [piece for piece, found in zip(pieces, before, strict=True) if not found])
                for found in before:
                    outcome = found or next(fresh)
                    advance(1, outcome.piece.key)
                    yield outcome

            # one map over the trials of all rows, then one over the finals: a process waits once, not once a row
            attempts = iter(list(made([piece for pieces in tried for piece in pieces])))
            found = [[next(attempts) for _ in pieces] for pieces in tried]
            chosen = [self._chosen(row, outcomes) for row, outcomes in zip(self.table, found, strict=True)]
            # the chosen setting was trained with the first seeds already: these runs are found complete
            finals = [
                self._piece(row, "final", setting, seed)
                for row, setting in zip(self.table, chosen, strict=True)
                for seed in seeds
            ]
            everything = [outcome for outcomes in found for outcome in outcomes] + list(made(finals))
        return sorted(everything, key=lambda outcome: (outcome.piece.key, outcome.piece.stage))

    def _trials(self, row: _Row) -> list[Piece]:
        """Return the runs that a row's grid takes, setting by setting; none where there is nothing to choose."""
        if len(row.settings) < 2:
            return []
        seeds = self.experiment.seeds.values[: self.experiment.grid.seeds]
        return [self._piece(row, "grid", setting, seed) for setting in row.settings for seed in seeds]

    def _chosen(self, row: _Row, tried: Sequence[Outcome]) -> Mapping[str, Any]:
        """Return the setting with the best mean over its seeds; one without a value comes last."""
        if not tried:
            return row.settings[0]
        seeds = len(tried) // len(row.settings)
        merits = [self._merit(tried[seeds * place : seeds * (place + 1)]) for place in range(len(row.settings))]
        return row.settings[merits.index(min(merits))]

    def _merit(self, attempts: Sequence[Outcome]) -> float:
        """Return what the choice minimises: the mean loss, or the merit of the metric's mean."""
        metric = self.experiment.grid.metric
        values = [None if attempt.row is None else attempt.row.valid for attempt in attempts]
        if any(value is None for value in values):
            return math.inf
        mean = sum(value for value in values if value is not None) / len(values)
        return mean if metric is None else merit(metric, mean)

    def _piece(self, row: _Row, stage: str, setting: Mapping[str, Any], seed: int) -> Piece:
        """Return one run; equal settings of a row are equal folders."""
        place = f"{row.data}/{_slug(row.spec.label)}" + (f"/{short_hash(dict(setting))}" if setting else "")
        return Piece(
            key=f"{place}/seed-{seed:03d}",
            data=row.data,
            label=row.spec.label,
            stage=stage,
            config=self.experiment.config(row.spec, setting, seed=seed),
            log=Path(self.logs[row.data].path).resolve(),
            out=self.out.resolve(),
            split=self.experiment.table.split,
            metrics=self.experiment.table.metrics,
            choose_by=self.experiment.grid.metric,
            chosen=dict(setting),
        )


def _slug(label: str) -> str:
    """Return a label as the name of a folder; labels that would meet get a hash."""
    plain = re.sub(r"[^A-Za-z0-9.]+", "-", label).strip("-.").lower()
    return plain if plain == label else f"{plain}-{short_hash(label)[:6]}"
