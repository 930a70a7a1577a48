"""The loop: epochs, batches, checks. What a system needs beyond it is in the system's contract, never asked here."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from postclick import progress
from postclick.binding import plain
from postclick.data.arrays import Exposures
from postclick.data.batches import TrainingRows
from postclick.data.log import ExposureLog
from postclick.errors import ConfigError, Finding, TrainingError
from postclick.models.base import ConversionModel
from postclick.models.batching import to_batch
from postclick.models.scoring import score
from postclick.nn.embedding import use_sparse_gradients
from postclick.training.checkpoint import CheckpointFolder
from postclick.training.config import TrainingConfig
from postclick.training.non_finite import not_finite
from postclick.training.rows import TouchedRows, drop_ids
from postclick.training.seeding import derived_seed, reproducible, seed_torch
from postclick.training.state import TrainingState, check_compatible, identity
from postclick.training.step import TrainingStep
from postclick.training.stopping import EarlyStopping, check_stop_on, validation_losses
from postclick.training.tracking import follow

__all__ = ["TrainingResult", "train"]

OnCheck = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class TrainingResult:
    """What came of a training; the model holds the best weights, or the last where nothing was validated.

    Parameters
    ----------
    best_epoch, best_step
        Epoch (from 0) and steps done at the best check; None without validation rows.
    best_loss
        The watched loss there.
    steps
        Optimiser steps done.
    stopped_early
        Whether patience ran out.
    interrupted
        Whether `should_stop` ended it; with a folder, a checkpoint was written and `resume` goes on.
    history
        One entry a check, as `on_check` got them.
    touched_rows
        bool [R]: rows of the fused table that a training batch held. Unknown rows are the first.
    notes
        What the user should know: a damaged checkpoint passed over, no validation rows.
    """

    best_epoch: int | None
    best_step: int | None
    best_loss: float | None
    steps: int
    stopped_early: bool
    interrupted: bool
    history: tuple[dict[str, Any], ...]
    touched_rows: NDArray[np.bool_]
    notes: tuple[Finding, ...] = ()


def train(
    model: ConversionModel,
    log: ExposureLog,
    config: TrainingConfig,
    *,
    seed: int,
    device: torch.device | str = "cpu",
    folder: Path | None = None,
    resume: bool = False,
    on_check: OnCheck | None = None,
    should_stop: Callable[[], bool] | None = None,
    allow_change: tuple[str, ...] = (),
) -> TrainingResult:
    """Train `model` on the log's training rows, in place.

    Equal model, log, settings and seed give equal bits on the CPU at equal thread counts, however often the training
    was cut off and resumed.

    Parameters
    ----------
    model
        A built system; seed PyTorch with ``seed_torch(seed, "model")`` before building it.
    log
        Encoded log; ``valid``, role ``stop``, decides when to stop. Without such rows all epochs are run and the
        last weights are kept, with a note.
    config
        Settings.
    seed
        Decides row order, id dropout and the system's own random draws.
    device
        Where to train.
    folder
        The RUN folder; ``checkpoints/`` in it is written at each check. None writes nothing.
    resume
        Go on from the newest whole checkpoint; from the start where there is none.
    on_check
        Called with each check's numbers: epoch, step, terms, diagnostics, valid, best. A resumed training calls it
        for the checks before, too, so what it writes is the same as without the cut.
    should_stop
        Asked after each step; True saves and returns.
    allow_change
        Settings that may differ from the checkpoint's.

    Raises
    ------
    TrainingError
        ``train.non_finite``: a loss or gradient is NaN or infinite; names epoch, step and exposure ids.
    ConfigError
        ``ckpt.incompatible``, or a loss to watch that the system has not, or a balance it has no parameters for, or a
        bundle of propensities that are not in the log.
    DataError
        ``ckpt.corrupt``: no checkpoint is whole.
    """
    where = torch.device(device)
    if config.propensity_bundle is not None and log.propensity is None:
        what = "a bundle's propensities come with the log: postclick.run.run puts them there"
        raise ConfigError(Finding("config.value", what, "training.propensity_bundle"))
    check_stop_on(config.stop_on, model.observed)
    model.to(where)
    settings = {"system": type(model).__name__, "seed": seed, **plain(config)}
    with reproducible(where, config.threads), follow(config.tracking, folder, settings, on_check) as following:
        session = _Session(model, log, config, seed, where)
        use_sparse_gradients(model, True)
        try:
            session.begin(folder, resume, allow_change)
            for entry in session.state.history:
                following.check(entry)
            result = session.run(following.check, should_stop)
            following.status = "interrupted" if result.interrupted else "finished"
            return result
        finally:
            use_sparse_gradients(model, False)
            model.zero_grad(set_to_none=True)
            model.eval()


class _Session:
    """One training: rows, state, and where checkpoints go."""

    def __init__(
        self, model: ConversionModel, log: ExposureLog, config: TrainingConfig, seed: int, device: torch.device
    ) -> None:
        self.model, self.log, self.config, self.seed, self.device = model, log, config, seed, device
        self.rows = TrainingRows(log.split("train"), config.memory_bytes)
        self.batches = self.rows.num_batches(config.batch_size)
        self.checks = check_points(self.batches, config.checks_per_epoch)
        self.valid = _validation_rows(log)
        self.state = TrainingState(
            model,
            TrainingStep(model, config, seed),
            EarlyStopping(config.patience, config.min_delta),
            TouchedRows(model.spec.table_rows),
        )
        self.folder: Path | None = None
        self.checkpoints: CheckpointFolder | None = None
        self.notes: list[Finding] = list(model.notes())
        self.interrupted = False
        if self.valid is None:
            what = f"no rows to validate on: all {config.max_epochs} epochs are run and the last weights kept"
            self.notes.append(Finding("train.no_validation", what, "valid", fix="prepare the log with a valid split"))

    def begin(self, folder: Path | None, resume: bool, allow_change: tuple[str, ...]) -> None:
        """Start the random streams, or take over the newest whole checkpoint."""
        seed_torch(self.seed, "training")
        if folder is None:
            return
        self.folder, self.checkpoints = folder, CheckpointFolder(folder)
        if not resume:
            self.checkpoints.clear()
            return
        found = self.checkpoints.load()
        if found is None:
            self.notes.append(Finding("ckpt.none", "no checkpoint yet; training starts at the beginning", str(folder)))
            return
        self.notes += found.notes
        check_compatible(self._identity(), found.state["identity"], allow_change)
        if found.state["threads"] != torch.get_num_threads():
            what = f"written with {found.state['threads']} threads, resumed with {torch.get_num_threads()}"
            self.notes.append(Finding("ckpt.threads", what, fix="set training.threads for equal bits"))
        self.state.load(found.tensors, found.state)

    def run(self, on_check: OnCheck | None, should_stop: Callable[[], bool] | None) -> TrainingResult:
        """Train until the last epoch, the end of patience, or `should_stop`."""
        state, counters = self.state, self.state.counters
        total = float(len(self.log.split("train")) * self.config.max_epochs)
        with progress.bar("Training", total) as advance:
            while counters.epoch < self.config.max_epochs and not self._over:
                self._epoch(advance, on_check, should_stop)
        if not self.interrupted:
            state.restore_best()
        stopping = state.stopping
        validated = stopping.best_step >= 0
        return TrainingResult(
            best_epoch=stopping.best_epoch if validated else None,
            best_step=stopping.best_step if validated else None,
            best_loss=stopping.best_loss if validated else None,
            steps=counters.step,
            stopped_early=stopping.stop,
            interrupted=self.interrupted,
            history=tuple(state.history),
            touched_rows=state.touched.mask,
            notes=tuple(self.notes),
        )

    @property
    def _over(self) -> bool:
        return self.interrupted or self.state.stopping.stop

    def _epoch(
        self, advance: Callable[..., None], on_check: OnCheck | None, should_stop: Callable[[], bool] | None
    ) -> None:
        """Go through the rest of an epoch."""
        counters, config = self.state.counters, self.config
        if counters.batch == 0:
            self.model.on_epoch_start(counters.epoch)
        self.model.train()
        speed = _Speed()
        for exposures in self._batches(counters.epoch, counters.batch):
            self._step(exposures)
            advance(len(exposures), f"epoch {counters.epoch + 1}, {speed.add(len(exposures)):,.0f} rows/s")
            if counters.batch in self.checks:
                self._check(on_check)
                self._save()
            elif config.checkpoint_steps and counters.step % config.checkpoint_steps == 0:
                self._save()
            if should_stop is not None and should_stop():
                self.interrupted = True
                self._save()
            if self._over:
                return
        counters.epoch, counters.batch = counters.epoch + 1, 0

    def _batches(self, epoch: int, start: int) -> Iterator[Exposures]:
        seed = derived_seed(self.seed, "rows")
        return self.rows.batches(self.config.batch_size, seed, epoch, start=start)

    def _step(self, exposures: Exposures) -> None:
        """Train on one batch."""
        state, counters = self.state, self.state.counters
        dropped = drop_ids(exposures, self.config.id_dropout, self.seed, counters.step)
        state.touched.add(dropped)
        if not state.step(to_batch(dropped, self.device), counters.step):
            raise self._not_finite(counters.step)
        counters.batch += 1
        counters.step += 1

    def _check(self, on_check: OnCheck | None) -> None:
        """Validate, note the numbers, remember the best."""
        state, counters = self.state, self.state.counters
        self._require_finite()
        terms, diagnostics = state.step.means()
        losses: dict[str, float] = {}
        best = False
        if self.valid is not None and self.valid.labels is not None:
            scores = score(self.model, self.valid, device=self.device)
            losses = validation_losses(scores, self.valid.labels, self.model.observed)
            if not all(map(math.isfinite, losses.values())):
                raise self._not_finite(counters.step - 1, "the validation loss is NaN or infinite after")
            best = state.stopping.update(losses[self.config.stop_on], counters.epoch, counters.step)
            if best:
                state.remember_best()
        entry = {
            "epoch": counters.epoch,
            "step": counters.step,
            "terms": terms,
            "diagnostics": diagnostics,
            "valid": losses,
            "best": best,
        }
        state.step.reset()
        state.history.append(entry)
        if on_check is not None:
            on_check(entry)

    def _identity(self) -> dict[str, Any]:
        return identity(self.model, self.log.hash, self.config, self.seed)

    def _save(self) -> None:
        if self.checkpoints is None:
            return
        self._require_finite()
        state = self.state
        extra = {"identity": self._identity(), "threads": torch.get_num_threads()}
        self.checkpoints.save(state.counters.step, state.tensors(), {**state.counts(), **extra})

    def _require_finite(self) -> None:
        """Stop at the first step that was not finite; on an accelerator this is where it comes to light."""
        bad = self.state.step.first_bad
        if bad is not None:
            raise self._not_finite(bad)

    def _not_finite(self, step: int, what: str = "the loss or a gradient is NaN or infinite in") -> TrainingError:
        """Return the error for a step (from 0), whose batch is drawn again to name it."""
        epoch, batch = divmod(step, self.batches)
        exposures: Exposures = next(iter(self._batches(epoch, batch)))
        return not_finite(what, epoch, step, exposures, self.state.step.means(), self.folder)


def check_points(batches: int, checks: int) -> frozenset[int]:
    """Return after how many batches of an epoch to check: evenly spaced, the last at its end."""
    return frozenset(-(-batches * index // checks) for index in range(1, checks + 1)) - {0}


def _validation_rows(log: ExposureLog) -> Exposures | None:
    split = log.split("valid")
    if not split.num_blocks:
        return None
    rows = split.read("stop")
    return rows if len(rows) else None


class _Speed:
    """Rows a second over the last few steps."""

    def __init__(self) -> None:
        self.last = time.monotonic()
        self.value = 0.0

    def add(self, rows: int) -> float:
        """Take in one step's rows; returns rows a second, smoothed."""
        now = time.monotonic()
        current = rows / max(now - self.last, 1e-9)
        self.last = now
        self.value = current if not self.value else 0.9 * self.value + 0.1 * current
        return self.value
