"""Runs the program as `python -m postclick` does, but kills itself with SIGKILL at one planned moment.

    python driver.py PLAN train LOG --system esmm --out RUN ...

PLAN is ``STAGE:K``: the K-th moment, from 1, of a stage in this process. ``count:FILE`` kills nothing and writes how
many moments each stage has. ``twin:STAGE:K`` first plants the ordinary way of saving, in place over the one file there
is. Moments: before and after each step; around each open, flush and rename and in the middle of each write; before and
after each part of an evaluation. (Kills from outside strike in between, too.)
"""

from __future__ import annotations

import io
import json
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import torch

from postclick import files
from postclick.cli.main import main
from postclick.run import assessment
from postclick.training import loop
from postclick.training.checkpoint import CheckpointFolder, write_tensors
from postclick.training.step import TrainingStep


class Moments:
    """Counts the moments of each stage; the planned one is the last."""

    def __init__(self, stage: str, nth: int) -> None:
        self.stage, self.nth = stage, nth
        self.seen: Counter[str] = Counter()

    def __call__(self, stage: str) -> None:
        self.seen[stage] += 1
        if (stage, self.seen[stage]) == (self.stage, self.nth):
            os.kill(os.getpid(), signal.SIGKILL)


def stage_of(path: Path) -> str:
    """Tell by the place what is being written."""
    place = path.as_posix()
    if "/checkpoints" in place:
        return "checkpoint write"
    if "/bundle" in place or "/.bundle." in place:
        return "bundle write"
    return "final evaluation" if "evaluation.json" in place else "other files"


class _Halving(io.FileIO):
    """Writes the first half, lets a moment pass, writes the rest."""

    moment: Callable[[], None]

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        done = super().write(view[: len(view) // 2]) or 0
        self.moment()
        return done + (super().write(view[done:]) or 0)


class DyingOperations(files.Operations):
    """The disk operations, with a moment before and after each."""

    def __init__(self, moment: Moments) -> None:
        self.moment = moment
        self.paths: dict[int, Path] = {}

    def open(self, path: Path, mode: str, permissions: int = 0o666) -> IO[Any]:
        self.moment(stage_of(path))
        with super().open(path, mode, permissions) as handle:
            raw = _Halving(os.dup(handle.fileno()), mode)
        raw.moment = lambda: self.moment(stage_of(path))
        buffered = io.BufferedWriter(raw)
        self.paths[buffered.fileno()] = path
        return buffered

    def sync(self, handle: IO[Any]) -> None:
        super().sync(handle)
        self.moment(stage_of(self.paths[handle.fileno()]))

    def sync_folder(self, path: Path) -> None:
        self.moment(stage_of(path / "file"))
        super().sync_folder(path)

    def rename(self, source: Path, target: Path) -> None:
        self.moment(stage_of(target))
        super().rename(source, target)
        self.moment(stage_of(target))


def plant(moment: Moments) -> None:
    """Put moments into steps, checks and the final evaluation."""
    TrainingStep.__call__ = _between(TrainingStep.__call__, "step", moment)  # type: ignore[method-assign]
    for module, name, stage in (
        (loop, "score", "validation check"),
        (loop, "validation_losses", "validation check"),
        (assessment, "judged_rows", "final evaluation"),
        (assessment, "evaluate", "final evaluation"),
    ):
        setattr(module, name, _between(getattr(module, name), stage, moment))


def _between(function: Callable[..., Any], stage: str, moment: Moments) -> Callable[..., Any]:
    def watched(*arguments: Any, **options: Any) -> Any:
        moment(stage)
        result = function(*arguments, **options)
        moment(stage)
        return result

    return watched


def plant_twin() -> None:
    """Save as is commonly done: over the one checkpoint there is, in place."""

    def save(self: CheckpointFolder, step: int, tensors: Mapping[str, torch.Tensor], state: Mapping[str, Any]) -> Path:
        places = self._places()
        place = places[-1] if places else self.path / f"step-{step:08d}"
        place.mkdir(parents=True, exist_ok=True)
        with files.operations.open(place / "tensors.safetensors", "wb") as handle:
            write_tensors(handle, tensors)
        with files.operations.open(place / "state.json", "wb") as handle:
            handle.write(json.dumps({"format": 1, "step": step, **state}).encode())
        files.write_manifest(place, "checkpoint")
        return place

    CheckpointFolder.save = save  # type: ignore[method-assign]


def run(plan: str, arguments: list[str]) -> None:
    if plan.startswith("twin:"):
        plant_twin()
        plan = plan.removeprefix("twin:")
    stage, _, rest = plan.partition(":")
    moment = Moments(stage, 0 if stage == "count" else int(rest))
    plant(moment)
    sys.argv[1:] = arguments
    try:
        with files.swap_operations(DyingOperations(moment)):
            main()
    finally:
        if stage == "count":
            Path(rest).write_text(json.dumps(moment.seen))


if __name__ == "__main__":
    run(sys.argv[1], sys.argv[2:])
