"""One run: a log and a configuration to a RUN folder, finished or resumable, never half."""

from __future__ import annotations

import os
import platform
import time
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch

from postclick import files
from postclick.bundle import Header, write_bundle
from postclick.bundle.header import Constant, installed_versions
from postclick.bundle.reading import read_contents
from postclick.data.log import ExposureLog
from postclick.data.vocabulary import Vocabulary
from postclick.errors import ConfigError, Finding, InputMissingError
from postclick.evaluation import EvaluationResult
from postclick.models.base import ConversionModel
from postclick.models.catalog import build
from postclick.run.assessment import evaluate_bundle
from postclick.run.calibrating import fit_calibration, require_calibration, trained_log
from postclick.run.config import RunConfig, differences, read_toml
from postclick.run.constants import constant_heads
from postclick.run.folder import claim, make_room
from postclick.run.propensity import propensity_bundle, require_reader
from postclick.run.stages import RECORD, STAGES, PropensityBundle, Stages, Wanted, go_on, notes, summary
from postclick.run.unknown_rows import fill_unknown
from postclick.structure.storage import StoredArrays
from postclick.training.loop import TrainingResult, train
from postclick.training.non_finite import NON_FINITE
from postclick.training.seeding import seed_torch
from postclick.training.tracking import require_tracker

__all__ = ["RunResult", "run"]

CONFIG, METRICS, EVALUATION = "config.toml", "metrics.jsonl", "evaluation.json"
_TUNING = {"tuning", "tuning.json"}
"""What `postclick tune` keeps in the RUN of its best setting: there before the RUN is, and no part of it."""
_UNHASHED = ("checkpoints/", f"{STAGES}/", "tuning", "tracking/", EVALUATION, NON_FINITE)


@dataclass(frozen=True)
class RunResult:
    """What a run left.

    Parameters
    ----------
    path
        The RUN folder.
    bundle
        Hash of its bundle: equal inputs give equal ones on CPU at equal thread counts.
    log
        Hash of the log.
    training
        What training did; None where the run was complete already.
    evaluation
        Metrics on the test split; None without one.
    notes
        What the user should know.
    """

    path: Path
    bundle: str
    log: str
    training: TrainingResult | None = None
    evaluation: EvaluationResult | None = None
    notes: tuple[Finding, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the plain form, as ``train --json`` prints it."""
        done = {} if self.training is None else summary(self.training)
        form: dict[str, Any] = {"format": 1, "bundle": self.bundle, "log": self.log, "training": done}
        form["metrics"] = {} if self.evaluation is None else self.evaluation.to_dict()["metrics"]
        return form | {"notes": [str(note) for note in self.notes]}


def run(
    log: ExposureLog | str | Path,
    config: RunConfig,
    out: str | Path,
    *,
    resume: bool = False,
    force: bool = False,
    allow_degenerate: bool = False,
    allow_config_change: Sequence[str] = (),
    should_stop: Callable[[], bool] | None = None,
    stages: str | Path | None = None,
) -> RunResult:
    """Train on ``train``, stop on one half of ``valid``, calibrate on the other, bundle, evaluate on ``test``.

    Equal log, configuration and seed give equal bundles on the CPU at equal thread counts.

    Parameters
    ----------
    log
        A LOG.
    config
        What is trained and how.
    out
        The RUN folder.
    resume
        Go on from the last checkpoint; a complete run is returned as it is.
    force
        Replace an existing RUN.
    allow_degenerate
        A head with one class in train becomes the constant prior instead of an error.
    allow_config_change
        Training settings that may differ from those the run was started with.
    should_stop
        Asked after each step, before the bundle and before the evaluation; True leaves what is done saved and ends the
        run with ``train.interrupted`` (exit 143).
    stages
        Where what the system needs beforehand (a pre-training, a graph) is kept and looked for; None is ``stages`` in
        the RUN. Runs that share it share the work.

    Raises
    ------
    StorageError, LockedError
        `out` exists or cannot be written (exit 73); another process works on it (exit 75).
    DataError
        ``data.single_class``.
    ConfigError
        ``ckpt.incompatible`` with the fields that differ, ``device.unavailable``, a setting that does not fit.
    PostclickError
        As `propensity_bundle` and `Stages` raise them.
    TrainingError
        ``train.non_finite``, ``train.interrupted``.
    """
    log = log if isinstance(log, ExposureLog) else ExposureLog(log)
    out, device = Path(out), _device(config.device)
    config, propensity = propensity_bundle(config, log)
    kept = Stages(Path(stages or out / STAGES), trained_log(log, config), config, device, should_stop)
    constants, wanted = _preflight(log, config, allow_degenerate, kept, propensity)
    claim(out, CONFIG, "a RUN folder", apart=_TUNING)
    with files.lock(out):
        files.sweep(out)
        if not resume:
            make_room(out, force=force, marker=CONFIG, apart=_TUNING)
        started = _settle_config(out, config, log, allow_config_change)
        if started and (out / files.MANIFEST).is_file():
            return _finished(out, log)
        job = _Job(log, config, out, device, constants, should_stop, kept, wanted)
        began, at = time.monotonic(), time.strftime("%FT%T%z")
        training, bundle = job.make(resume, tuple(allow_config_change))
        _record(job, at, time.monotonic() - began, training.steps)
        files.write_manifest(out, "run", exclude=lambda name: name.startswith(_UNHASHED))
        job.go_on("the bundle is written, the evaluation is not")
        told = tuple(note for _, held in job.prepared for note in notes(held)) + training.notes
        return RunResult(out, bundle, log.hash, training, _evaluate(out, log), told)


def _device(asked: str) -> torch.device:
    available = torch.cuda.is_available()
    if asked == "cuda" and not available:
        fix = "use device auto or cpu"
        raise ConfigError(Finding("device.unavailable", "PyTorch finds no CUDA device", "device", fix=fix))
    return torch.device("cuda" if available and asked != "cpu" else "cpu")


def _preflight(
    log: ExposureLog, config: RunConfig, allow_degenerate: bool, stages: Stages, propensity: PropensityBundle | None
) -> tuple[dict[str, Constant], tuple[Wanted, ...]]:
    """Refuse what cannot work before anything is written: the system's arguments, the training labels, its stages,
    a tool to follow it with that is not installed.

    Returns the heads that are a constant prior, and what is to be prepared.
    """
    if "train" not in log.splits:
        raise InputMissingError(Finding("data.empty", "the log has no training rows", str(log.path)))
    with torch.device("meta"):
        spec = log.spec if propensity is None else replace(log.spec, given_propensity=True)
        model = build(config.system, spec, config.arguments)
    require_calibration(log, config, model)
    require_tracker(config.training.tracking)
    wanted: tuple[Wanted, ...] = model.requires()
    if propensity is not None:
        require_reader(model, config.system)
        wanted = (*wanted, propensity)
    stages.check(wanted)
    constants = constant_heads(
        log.split("train").labels(),
        model.heads,
        population=log.schema.population,
        allow=allow_degenerate,
        negatives_everywhere=model.negatives_everywhere,
    )
    return constants, wanted


def _settle_config(out: Path, config: RunConfig, log: ExposureLog, allowed: Sequence[str]) -> bool:
    """Write `config.toml`, or compare with the one that is there; returns whether the run had been started."""
    path, text = out / CONFIG, config.to_toml(log.hash)
    started = path.is_file()
    if started:
        problems, changed = differences(read_toml(path), tomllib.loads(text), allowed)
        if problems:
            raise ConfigError(*problems)
        if not changed:
            return True
        (out / files.MANIFEST).unlink(missing_ok=True)
    files.write_text(path, text)
    return started


def _finished(out: Path, log: ExposureLog) -> RunResult:
    note = Finding("run.complete", "the run is complete; nothing was trained", str(out))
    return RunResult(out, read_contents(out).hash, log.hash, None, _evaluate(out, log), (note,))


@dataclass(frozen=True)
class _Job:
    """What one training works on."""

    log: ExposureLog
    config: RunConfig
    out: Path
    device: torch.device
    constants: dict[str, Constant]
    should_stop: Callable[[], bool] | None
    stages: Stages
    wanted: tuple[Wanted, ...]

    @cached_property
    def prepared(self) -> list[tuple[Wanted, StoredArrays]]:
        """What was asked for, with its arrays; built at the first call where it is not there."""
        if not self.wanted:
            return []
        return list(zip(self.wanted, self.stages.provide(self.wanted, self.out / RECORD), strict=True))

    @cached_property
    def trained(self) -> ExposureLog:
        """The log with the weights and propensities that training reads."""
        log = self.stages.log
        for one, held in self.prepared:
            if isinstance(one, PropensityBundle):
                log = log.with_propensity(held.arrays["propensity"])
        return log

    def go_on(self, done: str, *, stop: bool = False) -> None:
        """End the run here, saved, where it was asked to stop; `done` says how far it came."""
        go_on(self.should_stop, done, self.out, stop=stop)

    def make(self, resume: bool, allow_change: tuple[str, ...]) -> tuple[TrainingResult, str]:
        """Train, calibrate, write the bundle; PyTorch's random state stays the caller's. Returns the bundle's hash."""
        with torch.random.fork_rng(devices=[torch.cuda.current_device()] if self.device.type == "cuda" else []):
            spec = self.trained.spec
            seed_torch(self.config.seed, "model")
            model = build(self.config.system, spec, self.config.arguments)
            for one, held in self.prepared:
                if not isinstance(one, PropensityBundle):
                    model.provide(one, held.arrays)
            # a resumed training reports its earlier checks again, so the file is the same as without the cut
            for name in (METRICS, NON_FINITE):
                (self.out / name).unlink(missing_ok=True)
            result = train(
                model,
                self.trained,
                self.config.training,
                seed=self.config.seed,
                device=self.device,
                folder=self.out,
                resume=resume,
                on_check=partial(files.append_json_line, self.out / METRICS),
                should_stop=self.should_stop,
                allow_change=allow_change,
            )
        self.go_on(f"training is saved after {result.steps} steps", stop=result.interrupted)
        fill_unknown(model, Vocabulary.load(self.log.path / "vocabulary"), result.touched_rows)
        return result, self.bundle(model)

    def bundle(self, model: ConversionModel) -> str:
        """Calibrate and write the bundle; returns its hash."""
        calibration, reference = fit_calibration(model, self.log, self.config, self.constants)
        numbers = Header.numbers(self.trained.spec)
        header = Header(
            self.config.system, self.config.arguments, dict(model.heads), numbers, self.log.hash, self.constants
        )
        place = self.out / "bundle"
        return write_bundle(place, model.cpu(), header, self.log, calibration, reference=reference, force=True)


def _record(job: _Job, at: str, seconds: float, steps: int) -> None:
    """Note what differs between equal runs; `record.jsonl` is listed in the folder, never hashed."""
    out, device = job.out, job.device
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    line = {
        "event": "train",
        "at": at,
        "seconds": round(seconds, 3),
        "steps": steps,
        "host": platform.node(),
        "device": f"{device.type}: {where}",
        "threads": torch.get_num_threads(),
        "versions": installed_versions(),
    }
    if job.wanted:
        line["stages"] = os.path.relpath(job.stages.folder, out)
    files.append_json_line(out / files.RECORD, line)


def _evaluate(out: Path, log: ExposureLog) -> EvaluationResult | None:
    return evaluate_bundle(out, log, split="test") if "test" in log.splits else None
