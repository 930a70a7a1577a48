"""Stages: what a system asks to be prepared from the log before it is trained, built once and kept on disk.

``STAGES/NAME-KEY/`` holds the arrays of one artefact; KEY is a hash of all that decides them: the log, the settings,
the seed. It appears whole, so runs that share the folder share the work, and a second one finds it done. While it is
built, ``STAGES/.NAME-KEY/`` is locked and holds the checkpoints of a pre-training, from which a killed one goes on.
STAGES is ``RUN/stages`` unless the caller names another; the RUN's ``stages.json`` says which ones were used.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from postclick import files, progress
from postclick.binding import plain
from postclick.bundle import Bundle, Scorer
from postclick.data.entities import entities, entity_features
from postclick.data.log import ExposureLog
from postclick.data.vocabulary import Vocabulary
from postclick.errors import ConfigError, DataError, ExitCode, Finding, InputMissingError, LockedError, TrainingError
from postclick.models.base import ConversionModel, NeighbourGraph, Pretraining, Requirement
from postclick.models.catalog import build, resolve_arguments
from postclick.run.config import RunConfig
from postclick.run.unknown_rows import fill_unknown
from postclick.structure import StoredArrays, neighbours, normalise, read_arrays, representations, write_arrays
from postclick.training.config import TrainingConfig
from postclick.training.loop import TrainingResult, train
from postclick.training.seeding import seed_torch
from postclick.training.state import identity

__all__ = ["RECORD", "STAGES", "PropensityBundle", "Stages", "Wanted", "go_on", "locate", "notes", "summary"]

STAGES, RECORD = "stages", "stages.json"
FORMAT = 1
_LEAST = np.float32(1e-9)
"""A propensity that is divided by is above 0."""
_HALF_OVER = 2 << 30
"""Bytes over which the vectors of a graph are held in half precision: similarities are then good to 1e-3."""


@dataclass(frozen=True)
class PropensityBundle:
    """The CTR of a trained bundle on the training rows: ``{"propensity": float32 [rows of train]}``."""

    bundle: Bundle
    name = "propensity"


Wanted = Requirement | PropensityBundle


class Stages:
    """The artefacts of one run.

    Parameters
    ----------
    folder
        STAGES; made when the first artefact is built.
    log
        The log as training reads it.
    config
        Of the run: its seed, its training settings, its device.
    device
        Where a pre-training runs.
    should_stop
        As for `run`.
    """

    def __init__(
        self,
        folder: Path,
        log: ExposureLog,
        config: RunConfig,
        device: torch.device,
        should_stop: Callable[[], bool] | None = None,
    ) -> None:
        self.folder, self.log, self.config, self.device = folder, log, config, device
        self.should_stop = should_stop

    def check(self, wanted: Sequence[Wanted]) -> None:
        """Refuse what cannot be built, before anything is written.

        Raises
        ------
        ConfigError
            A side whose id is no feature, a pre-training that cannot be set up; all together.
        """
        problems: list[Finding] = []
        for one in wanted:
            try:
                if isinstance(one, NeighbourGraph):
                    entity_features(self.log.schema, one.side)
                self.place(one)
            except ConfigError as error:
                problems += [finding for finding in error.findings if finding not in problems]
        if problems:
            raise ConfigError(*problems)

    def place(self, one: Wanted) -> str:
        """Return the name of an artefact's folder: equal names hold equal arrays."""
        text = json.dumps({"format": FORMAT, **self._decisive(one)}, sort_keys=True)
        return f"{one.name}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"

    def _decisive(self, one: Wanted) -> dict[str, Any]:
        """Return all that decides an artefact."""
        if isinstance(one, PropensityBundle):
            return {"log": self.log.hash, "bundle": one.bundle.hash, "device": self.device.type}
        if isinstance(one, NeighbourGraph):
            options = {name: value for name, value in vars(one).items() if name != "pretraining"}
            return {"pretraining": self.place(one.pretraining), "seed": self.config.seed, **options}
        with torch.device("meta"):
            network = build(one.system, self.log.spec, one.arguments)
        if next(network.tables(), None) is None:
            what = f"{one.system!r} has no embedding table to pre-train on this log"
            raise ConfigError(Finding("config.value", what, "schema", fix="add a sparse feature to the schema"))
        # what does not change the weights does not count
        training = replace(self._training(one), checkpoint_steps=0)
        found = identity(network, self.log.hash, training, self.config.seed)
        arguments = resolve_arguments(one.system, one.arguments)
        return {**found, "arguments": plain(arguments), "device": self.device.type, "weigh": self.log.weigh}

    def _training(self, one: Pretraining) -> TrainingConfig:
        """Return the run's settings with those of the pre-training over them; what is the run's alone stays out.

        That is what names its terms, and what follows it: a stage is the same whether the run is watched or not.
        """
        usual = TrainingConfig()
        own = {name: getattr(usual, name) for name in ("balance", "stop_on", "propensity_bundle", "tracking")}
        return replace(self.config.training, **(own | dict(one.training)))

    def provide(self, wanted: Sequence[Wanted], recorded: Path) -> list[StoredArrays]:
        """Return the artefacts in order, built where they are not there yet, and note in `recorded` which they are.

        A run that goes on gets those it was started with, even where settings that may change have changed.

        Parameters
        ----------
        wanted
            What to build.
        recorded
            The RUN's ``stages.json``.

        Raises
        ------
        TrainingError
            ``train.interrupted`` (exit 143); what is done is saved.
        ConfigError
            ``ckpt.incompatible``: an artefact that the run was started with is gone, and another would be built now.
        """
        before = files.read_json(recorded)["stages"] if recorded.is_file() else []
        started = [entry["folder"] for entry in before] if len(before) == len(wanted) else [None] * len(wanted)
        found = [self._held(one, name) for one, name in zip(wanted, started, strict=True)]
        entries = [
            {"name": one.name, "folder": held.path.name, "hash": held.hash}
            for one, held in zip(wanted, found, strict=True)
        ]
        if before and entries != before:
            what = "the stages that the run was started with are gone, and are built otherwise now"
            fix = "resume with what the run was started with, or train anew with --force"
            raise ConfigError(Finding("ckpt.incompatible", what, str(recorded), fix=fix))
        if not before:
            files.write_json(recorded, {"format": FORMAT, "stages": entries})
        return found

    def _held(self, one: Wanted, name: str | None = None) -> StoredArrays:
        """Return one artefact from disk, built first where it is not there."""
        here = self.place(one)
        target = self.folder / (name or here)
        if not target.is_dir():
            target = self.folder / here
            with self._locked(self.folder / f".{here}") as work:
                if not target.is_dir():
                    self._build(one, target, work)
        try:
            return read_arrays(target)
        except (DataError, InputMissingError) as error:
            fix = "remove this folder; it is built again"
            raise DataError(*(replace(finding, fix=fix) for finding in error.findings)) from error

    @contextlib.contextmanager
    def _locked(self, work: Path) -> Iterator[Path]:
        """Hold the folder of one artefact's work; where another process holds it, wait until it is done."""
        work.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as stack:
            waited = False
            while True:
                try:
                    stack.enter_context(files.lock(work))
                    break
                except LockedError as error:
                    if not waited:
                        progress.say(f"waiting: {error.findings[0].what}")
                    waited = True
                self._go_on("waiting for another process that prepares the same stage")
                time.sleep(0.2)
            yield work

    def _go_on(self, done: str, *, stop: bool = False) -> None:
        go_on(self.should_stop, done, self.folder, stop=stop)

    def _build(self, one: Wanted, target: Path, work: Path) -> None:
        """Build one artefact; what its work left is removed."""
        began, at = time.monotonic(), time.strftime("%FT%T%z")
        files.sweep(work)
        if isinstance(one, Pretraining):
            arrays, about = self._pretrained(one, work)
        elif isinstance(one, NeighbourGraph):
            arrays, about = self._graph(one)
        else:
            arrays, about = self._propensity(one)
        write_arrays(target, arrays, {"name": one.name, **about})
        line = {"event": one.name, "at": at, "seconds": round(time.monotonic() - began, 3)}
        files.append_json_line(target / files.RECORD, line)
        for left in sorted(path for path in work.iterdir() if path.name != ".lock"):
            files.discard(left)

    def _pretrained(self, one: Pretraining, work: Path) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        progress.say(f"pre-training {one.system!r}: its embeddings are kept for this run and for others on this log")
        with torch.random.fork_rng(devices=[torch.cuda.current_device()] if self.device.type == "cuda" else []):
            network, result = self._trained(one, work)
        if result.interrupted:
            self._go_on(f"the pre-training is saved after {result.steps} steps", stop=True)
        fill_unknown(network, Vocabulary.load(self.log.path / "vocabulary"), result.touched_rows)
        table = next(network.tables()).detach().cpu().numpy()
        return {"table": table}, {"system": one.system, **summary(result)}

    def _trained(self, one: Pretraining, work: Path) -> tuple[ConversionModel, TrainingResult]:
        """Train the network, on from its last whole checkpoint where there is one."""
        for resume in (True, False):
            seed_torch(self.config.seed, "model")
            network = build(one.system, self.log.spec, one.arguments)
            try:
                return network, train(
                    network,
                    self.log,
                    self._training(one),
                    seed=self.config.seed,
                    device=self.device,
                    folder=work,
                    resume=resume,
                    should_stop=self.should_stop,
                )
            except DataError as error:
                if error.code != "ckpt.corrupt" or not resume:
                    raise
        raise AssertionError  # the second round returns or raises

    def _graph(self, one: NeighbourGraph) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        table = self._held(one.pretraining).arrays["table"]
        found = entities(self.log, one.side)
        if not len(found):
            fix = "prepare the log with a smaller min_count, or switch the graph off: --set migrator=off"
            raise DataError(Finding("data.empty", f"no {one.side} of the training rows is known by its id", fix=fix))
        self._go_on("the pre-training is saved, the graph is not")
        size = 4 * found.features.size * table.shape[1]
        near = neighbours(
            representations(table, found.features, dtype=np.float16 if size > _HALF_OVER else np.float32),
            one.neighbours,
            method=one.search,
            include_self=one.include_self,
            seed=self.config.seed,
            note=lambda text: progress.say(f"{one.name}: {text}"),
        )
        graph = normalise(near, symmetrise=one.symmetrise)
        arrays: dict[str, NDArray[Any]] = {
            "entity": found.entity,
            "features": found.features,
            "indptr": graph.indptr.astype(np.int64),
            "indices": graph.indices.astype(np.int32),
            "values": graph.data.astype(np.float32),
            "neighbours": near.indices,
            "similarities": near.similarities,
        }
        names = ("side", "names", "excluded", "changing", "changed", "by", "rows", "unknown_rows")
        about = {name: getattr(found, name) for name in names} | {"method": near.method, "k": one.neighbours}
        return arrays, {**about, "notes": [vars(note) for note in found.notes()]}

    def _propensity(self, one: PropensityBundle) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        scorer, split = Scorer(one.bundle, self.device.type), self.log.split("train")
        values, done = np.empty(len(split), np.float32), 0
        with progress.bar("Scoring propensities", len(split)) as advance:
            for block in split.blocks():
                self._go_on("no propensity is saved yet")
                scores = scorer.score(block.without_labels())
                values[done : done + len(block)] = scores.probability("ctr")
                done += len(block)
                advance(len(block))
        return {"propensity": np.maximum(values, _LEAST)}, {"bundle": one.bundle.hash}


def go_on(should_stop: Callable[[], bool] | None, done: str, where: Path, *, stop: bool = False) -> None:
    """End the work here, saved, where `stop` or `should_stop` says so; `done` says how far it came.

    Raises
    ------
    TrainingError
        ``train.interrupted`` (exit 143).
    """
    if stop or (should_stop is not None and should_stop()):
        finding = Finding("train.interrupted", f"stopped: {done}", str(where), fix="go on with --resume")
        raise TrainingError(finding, exit_code=ExitCode.TERMINATED)


def summary(result: TrainingResult) -> dict[str, Any]:
    """Return how a training ended: what is told of a run's own, and kept of a pre-training."""
    names = ("best_epoch", "best_step", "best_loss", "steps", "stopped_early")
    return {name: getattr(result, name) for name in names}


def notes(held: StoredArrays) -> tuple[Finding, ...]:
    """Return what the user should know of an artefact, also where it was built before."""
    told = held.about.get("notes", ())
    return tuple(Finding(**{**note, "examples": tuple(note["examples"])}) for note in told)


def locate(run: str | Path, name: str, stages: str | Path | None = None) -> Path:
    """Return the folder of an artefact that a RUN was trained with.

    Parameters
    ----------
    run
        The RUN.
    name
        Its name, for instance ``item-graph``.
    stages
        STAGES where it is neither in the RUN nor where the RUN found it.

    Raises
    ------
    InputMissingError
        The run used no such artefact, or it is gone.
    """
    run = Path(run)
    files.read_manifest(run, "run")
    entries = files.read_json(run / RECORD)["stages"] if (run / RECORD).is_file() else []
    wanted = next((entry for entry in entries if entry["name"] == name), None)
    if wanted is None:
        used = ", ".join(entry["name"] for entry in entries) or "none"
        what = f"this run was trained without the stage {name!r}"
        raise InputMissingError(Finding("input.missing", what, str(run), fix=f"its stages: {used}"))
    folders = [Path(stages)] if stages is not None else [run / STAGES, *_recorded(run)]
    for folder in folders:
        if (folder / wanted["folder"]).is_dir():
            return folder / str(wanted["folder"])
    what, fix = f"the stage {wanted['folder']!r} is gone", "say where it is, or train again"
    raise InputMissingError(Finding("input.missing", what, str(run), fix=fix))


def _recorded(run: Path) -> Iterator[Path]:
    """Yield where the run says that its stages were, the last one first."""
    path = run / files.RECORD
    lines = path.read_text("utf-8").splitlines() if path.is_file() else []
    for line in reversed(lines):
        place = json.loads(line).get("stages")
        if place is not None:
            yield Path(os.path.normpath(run / place))
