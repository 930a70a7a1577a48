"""The data of an experiment as logs: simulated and prepared once, kept under a hash of what made them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from postclick import files
from postclick.benchmark.experiment import DataSpec, Experiment
from postclick.benchmark.provenance import hashed
from postclick.binding import bind
from postclick.data.log import ExposureLog
from postclick.data.options import PrepareOptions
from postclick.data.prepare import prepare
from postclick.data.sources.opening import open_source
from postclick.data.truth import world_truth
from postclick.errors import Finding, InputMissingError, UsageError, nearest
from postclick.simulation import simulate

__all__ = ["open_logs", "short_hash"]


def open_logs(
    experiment: Experiment, given: Mapping[str, str], shared: Path
) -> tuple[dict[str, ExposureLog], list[str]]:
    """Return a log for each data set, and a sentence for each that is left out because nobody said where it is.

    Parameters
    ----------
    experiment
        The file.
    given
        Paths of the user, by name of the data set: raw data, or a LOG.
    shared
        Folder that keeps worlds and logs.

    Raises
    ------
    UsageError
        A name in `given` that the experiment has not.
    InputMissingError
        No data set has rows.
    """
    for name in given:
        if name not in experiment.data:
            near = nearest(name, experiment.data)
            fix = f"did you mean {near!r}?" if near else f"data sets: {', '.join(experiment.data)}"
            raise UsageError(Finding("usage", f"the experiment has no data called {name!r}", "--data", fix=fix))
    logs: dict[str, ExposureLog] = {}
    notes: list[str] = []
    for name, spec in experiment.data.items():
        path = given.get(name, spec.path)
        if spec.world is None and path is None:
            notes.append(f"{name} is left out: give its path with --data {name}=PATH")
            continue
        logs[name] = _open(name, spec, path, experiment.split, shared)
    if not logs:
        fix = " ".join(f"--data {name}=PATH" for name in experiment.data)
        raise InputMissingError(Finding("input.missing", "no data set has rows", "data", fix=fix))
    return logs, notes


def short_hash(value: Any) -> str:
    """Return 10 hexadecimal digits that stand for a plain value."""
    return hashed(value)[:10]


def _open(name: str, spec: DataSpec, path: str | None, split: Mapping[str, Any], shared: Path) -> ExposureLog:
    if path is not None and (Path(path) / files.MANIFEST).is_file():
        manifest = files.read_manifest(Path(path), "log", "world")
        if manifest.kind == "log":
            return ExposureLog(path)
    options = dict(split) | ({"split": spec.split} if spec.split is not None else {})
    made = shared / f"{name}-{short_hash([asdict(spec), path, options])}"
    if (made / files.MANIFEST).is_file():
        return ExposureLog(made)
    shared.mkdir(parents=True, exist_ok=True)
    inputs = [_world(name, spec, shared) if path is None else path]
    source = open_source(
        inputs, key=spec.source, fields=spec.fields, threshold=spec.threshold, propensity=spec.propensity
    )
    bound = PrepareOptions(**bind(PrepareOptions, options, where="split"))
    return prepare(source, made, bound, truth=world_truth(inputs), resume=True)


def _world(name: str, spec: DataSpec, shared: Path) -> str:
    assert spec.world is not None
    knobs = dict(spec.set or {})
    folder = shared / f"{name}-world-{short_hash([spec.world, knobs, spec.exposures, spec.seed])}"
    if not (folder / files.MANIFEST).is_file():
        simulate(folder, world=spec.world, knobs=knobs, exposures=spec.exposures, seed=spec.seed)
    return str(folder)
