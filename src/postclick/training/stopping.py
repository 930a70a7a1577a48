"""Early stopping: validation log-loss of a system's observed heads, never on test rows (SYSTEMS, Decision 10)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from postclick.data.arrays import CENSORED, Labels
from postclick.data.scores import Scores
from postclick.errors import ConfigError, Finding, nearest

__all__ = ["TOTAL", "EarlyStopping", "check_stop_on", "loss_name", "validation_losses"]

TOTAL = "logloss"


def loss_name(head: str, population: str) -> str:
    """Return the name of one head's log-loss, for instance ``ctr/logloss@exposure``."""
    return f"{head}/logloss@{population}"


def check_stop_on(stop_on: str, observed: tuple[tuple[str, str], ...]) -> None:
    """Refuse a name that the system has no loss for.

    Raises
    ------
    ConfigError
        ``config.value``, with the names there are.
    """
    known = [TOTAL, *(loss_name(head, population) for head, population in observed)]
    if stop_on not in known:
        near = nearest(stop_on, known)
        fix = f"did you mean {near!r}?" if near else f"known names: {', '.join(known)}"
        raise ConfigError(Finding("config.value", f"there is no {stop_on!r} to watch", "training.stop_on", fix=fix))


def _label(head: str, labels: Labels) -> NDArray[np.int8]:
    if head == "ctr":
        return labels.click
    if head in {"cvr", "ctcvr"}:
        return labels.conversion
    if labels.action is None:
        raise ConfigError(Finding("config.value", f"the log has no action label for the head {head!r}", "observed"))
    if head == "action":
        return labels.action
    joint = labels.click * labels.action
    return np.where((labels.click == CENSORED) | (labels.action == CENSORED), np.int8(CENSORED), joint)


def validation_losses(scores: Scores, labels: Labels, observed: tuple[tuple[str, str], ...]) -> dict[str, float]:
    """Return the log-loss of each observed head and their sum, each averaged over exposures.

    A head observed on clicks sums over clicked rows and divides by the weight of all exposures, as the training loss
    does (SYSTEMS, Decision 2), so that the parts add up. Rows with a censored label leave the sum and the weight, of
    cvr and ctcvr also those whose window was still open.

    Parameters
    ----------
    scores
        Log-odds of B exposures.
    labels
        Their labels.
    observed
        (head, population) pairs; populations ``exposure`` and ``click``.
    """
    weight = np.ones(len(labels)) if labels.sample_weight is None else labels.sample_weight.astype(np.float64)
    losses = {}
    for head, population in observed:
        label = _label(head, labels)
        known = (label != CENSORED) & (labels.click != CENSORED)
        if head in {"cvr", "ctcvr"}:
            known &= labels.conversion_known
        odds = scores.odds[head]
        # -[y log p + (1 - y) log(1 - p)] from log-odds
        each = np.logaddexp(0.0, odds) - np.where(label == 1, odds, 0.0)
        inside = known & (labels.click == 1) if population == "click" else known
        total = weight[known].sum()
        part = float((weight[inside] * each[inside]).sum() / total) if total > 0 else 0.0
        losses[loss_name(head, population)] = part
    losses[TOTAL] = math.fsum(losses.values())
    return losses


class EarlyStopping:
    """Remembers the best validation loss and how many checks passed since.

    Parameters
    ----------
    patience
        Checks without improvement before `stop`; None never stops.
    min_delta
        What counts as improvement must be larger than this.
    """

    def __init__(self, patience: int | None, min_delta: float) -> None:
        self.patience = patience
        self.min_delta = min_delta
        self.best_loss = math.inf
        self.best_epoch = -1
        self.best_step = -1
        self.checks_since = 0

    def update(self, loss: float, epoch: int, step: int) -> bool:
        """Take in the loss of one check; returns whether it is the best so far."""
        if loss < self.best_loss - self.min_delta or (math.isinf(self.best_loss) and math.isfinite(loss)):
            self.best_loss, self.best_epoch, self.best_step, self.checks_since = loss, epoch, step, 0
            return True
        self.checks_since += 1
        return False

    @property
    def stop(self) -> bool:
        """Whether patience has run out."""
        return self.patience is not None and self.checks_since >= self.patience

    def state(self) -> dict[str, Any]:
        """Return the state as JSON holds it."""
        best = self.best_loss if math.isfinite(self.best_loss) else None
        names = ("best_epoch", "best_step", "checks_since")
        return {"best_loss": best, **{name: getattr(self, name) for name in names}}

    def load(self, state: dict[str, Any]) -> None:
        """Take over a state that `state` returned."""
        self.best_loss = math.inf if state["best_loss"] is None else float(state["best_loss"])
        self.best_epoch, self.best_step = int(state["best_epoch"]), int(state["best_step"])
        self.checks_since = int(state["checks_since"])
