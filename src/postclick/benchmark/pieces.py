"""One run of an experiment as a piece of work for a process: train, measure, and say what went wrong."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from postclick import files, progress
from postclick.benchmark.measured import Measured, read_rows
from postclick.benchmark.provenance import hashed, peak_memory, provenance, restart_peak
from postclick.benchmark.rows import RunRow
from postclick.bundle import Bundle, Scorer
from postclick.bundle.header import installed_versions
from postclick.data.log import ExposureLog
from postclick.errors import PostclickError, unforeseen
from postclick.evaluation import EvaluationResult, evaluate
from postclick.evaluation.readings import Reading
from postclick.run import RunConfig, evaluate_bundle, run
from postclick.run.assessment import judged_rows

__all__ = ["Outcome", "Piece", "known", "work"]

FORMAT = 2
"""Of what is kept of a run; another one is made anew."""


@dataclass(frozen=True)
class Piece:
    """One run to make.

    Parameters
    ----------
    key
        Its name: where it lies under ``runs/``.
    data, label, stage
        As `RunRow` has them.
    config
        All that decides it, but the log.
    log, out
        The LOG and the BENCHMARK.
    split
        What is judged.
    metrics
        Names that are measured, the default set apart.
    choose_by
        The metric of the validation rows that chooses; None: the loss that early stopping watches.
    chosen
        The part of the configuration that a grid varies.
    """

    key: str
    data: str
    label: str
    stage: str
    config: RunConfig
    log: Path
    out: Path
    split: str = "test"
    metrics: tuple[str, ...] = ()
    choose_by: str | None = None
    chosen: Mapping[str, Any] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """The RUN folder."""
        return self.out / "runs" / self.key

    def measured(self, log: str) -> Path:
        """Return where its row and readings are kept; `log` is the hash of the log. Another question, another file."""
        question = [
            FORMAT,
            self.key,
            self.stage,
            self.config.to_dict(),
            self.split,
            self.metrics,
            self.choose_by,
            self.label,
        ]
        name = hashed([*question, log, dict(self.chosen), installed_versions()["postclick"]])[:24]
        return self.out / "shared" / "measured" / f"{name}.npz"


@dataclass(frozen=True)
class Outcome:
    """What came of a piece: a row and the file that holds its readings, or why there is none."""

    piece: Piece
    row: RunRow | None = None
    measured: Path | None = None
    error: PostclickError | None = None

    @property
    def failed(self) -> bool:
        """Whether this is a failure: that a setting of a grid diverges is what the grid wanted to know."""
        diverged = self.error is not None and self.error.code == "train.non_finite"
        return self.error is not None and not (diverged and self.piece.stage == "grid")


def known(piece: Piece, log: str) -> Outcome | None:
    """Return what came of a piece that was made before, whole and measured; `log` is the hash of the log."""
    place = piece.measured(log)
    kept = Measured.load(place, only="") if (piece.folder / files.MANIFEST).is_file() else None
    return None if kept is None else Outcome(piece, kept.row, place)


def work(piece: Piece) -> Outcome:
    """Make one run, in a process that is there for runs; a failure is an outcome, so that it ends no other run."""
    progress.set_quiet(True)  # several bars on one terminal tell nothing; the parent shows one over runs
    restart_peak()
    began = time.monotonic()
    try:
        log = ExposureLog(piece.log)
        place = piece.measured(log.hash)
        found = _made(piece, log)
        found.save(place)
        seconds = round(time.monotonic() - began, 3)
        record = {"stage": piece.stage, "run": piece.key, "seconds": seconds, "peak_bytes": peak_memory()}
        files.append_json_line(piece.out / files.RECORD, record | provenance())
    except PostclickError as error:
        return Outcome(piece, error=_named(error, piece.key))
    except Exception as error:
        return Outcome(piece, error=unforeseen(error, piece.key))
    return Outcome(piece, found.row, place)


def _named(error: PostclickError, key: str) -> PostclickError:
    """Return the error with the run's name at the place of each finding."""
    findings = [replace(found, where=f"{key}: {found.where}" if found.where else key) for found in error.findings]
    return type(error)(*findings, exit_code=error.exit_code)


def _made(piece: Piece, log: ExposureLog) -> Measured:
    config = piece.config
    piece.folder.parent.mkdir(parents=True, exist_ok=True)
    result = run(log, config, piece.folder, resume=True, stages=piece.out / "shared" / "stages")
    settings = config.to_dict()
    row = RunRow(
        piece.key,
        piece.data,
        piece.label,
        config.system,
        piece.stage,
        config.seed,
        result.bundle,
        config=hashed(settings),
        log=log.hash,
        settings=settings,
        chosen=dict(piece.chosen),
    )
    if piece.stage == "grid":
        return Measured(replace(row, valid=_validation(piece, log)))
    metrics, found = _judged(piece, log, result.evaluation)
    return Measured(replace(row, metrics=metrics), found)


def _judged(
    piece: Piece, log: ExposureLog, known: EvaluationResult | None
) -> tuple[dict[str, Any], dict[str, Reading]]:
    """Return metrics of the judged split, the default ones and the table's others, and what comparisons read."""
    judged = known if known is not None and known.split == piece.split else None
    found = (judged or evaluate_bundle(piece.folder, log, split=piece.split)).to_dict()["metrics"]
    truth = log.truth(piece.split) is not None
    more = [name for name in piece.metrics if name not in found and (truth or "@world" not in name)]
    rows, _, _ = judged_rows(Scorer(Bundle.load(piece.folder), "cpu"), log, piece.split)
    population = log.schema.population
    if more:
        found |= evaluate(rows, metrics=more, population=population, split=piece.split).to_dict()["metrics"]
    return dict(found), read_rows(rows, piece.metrics, population)


def _validation(piece: Piece, log: ExposureLog) -> float | None:
    """Return the value that chooses: the best validation loss, or the metric asked for."""
    if piece.choose_by is not None:
        found = evaluate_bundle(piece.folder, log, split="valid", metrics=[piece.choose_by]).to_dict()["metrics"]
        value = found.get(piece.choose_by, {}).get("value")
        return None if value is None else float(value)
    checks = [json.loads(line) for line in (piece.folder / "metrics.jsonl").read_text("utf-8").splitlines()]
    losses = [check["valid"].get("logloss") for check in checks if check.get("valid")]
    return min((float(loss) for loss in losses if loss is not None), default=None)
