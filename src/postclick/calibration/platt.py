"""Platt scaling: calibrated log-odds = slope * log-odds + offset (Platt 1999, without his label smoothing)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from postclick.data.scores import probability

__all__ = ["SLOPES", "Platt", "fit_platt", "log_loss", "newton"]

Array = NDArray[np.float64]
SLOPES = (0.05, 20.0)
"""A slope outside says that the score ranks (nearly) at random or separates the classes: it is not to be trusted."""
_STEPS = 60


@dataclass(frozen=True)
class Platt:
    """The map ``slope * l + offset`` with slope > 0, so order is kept and no ties arise."""

    slope: float = 1.0
    offset: float = 0.0

    def __call__(self, odds: Array) -> Array:
        """Return calibrated log-odds, [B]."""
        return self.slope * odds + self.offset

    def to_dict(self) -> dict[str, Any]:
        """Return the plain form."""
        return {"slope": self.slope, "offset": self.offset}

    @classmethod
    def from_dict(cls, form: Mapping[str, Any]) -> Platt:
        """Read the plain form; a wrong one raises KeyError, TypeError or ValueError."""
        slope, offset = float(form["slope"]), float(form["offset"])
        if not (slope > 0.0 and np.isfinite([slope, offset]).all()):
            raise ValueError(f"slope {slope}, offset {offset}")
        return cls(slope, offset)


def log_loss(odds: Array, label: Array, weight: Array) -> float:
    """Return the weighted mean of log(1 + e^l) - y l."""
    return float(np.sum(weight * (np.logaddexp(0.0, odds) - label * odds)) / np.sum(weight))


def fit_platt(odds: Array, label: Array, weight: Array) -> Platt:
    """Minimise the weighted log-loss over slope and offset by Newton's method with step halving.

    The loss is convex and the start is the identity, so the fitted rows' log-loss never gets worse. Where the best
    slope leaves `SLOPES`, the slope stays 1 and the offset alone is fitted.

    Parameters
    ----------
    odds
        Log-odds, [B].
    label
        0 or 1, [B]; both must occur.
    weight
        Sample weights > 0, [B].
    """
    design = np.stack([odds, np.ones_like(odds)], axis=1)
    slope, offset = newton(design, np.zeros_like(odds), np.array([1.0, 0.0]), label, weight)
    if SLOPES[0] <= slope <= SLOPES[1]:
        return Platt(float(slope), float(offset))
    (offset,) = newton(design[:, 1:], odds, np.zeros(1), label, weight)
    return Platt(1.0, float(offset))


def newton(design: Array, base: Array, start: Array, label: Array, weight: Array) -> Array:
    """Return the coefficients c, [P], that minimise the log-loss of ``base + design @ c``, by Newton's method.

    Parameters
    ----------
    design
        [B, P].
    base
        Log-odds that are there already, [B].
    start
        First c, [P]; the loss never rises above that of it.
    label, weight
        As in `fit_platt`.
    """
    coefficients, odds = start, base + design @ start
    loss = log_loss(odds, label, weight)
    total = float(np.sum(weight))
    for _ in range(_STEPS):
        fitted = probability(odds)
        gradient = design.T @ (weight * (fitted - label)) / total
        curvature = (design.T * (weight * fitted * (1.0 - fitted))) @ design / total
        step = np.linalg.lstsq(curvature, gradient, rcond=None)[0]
        size = 1.0
        while size > 1e-6:
            trial = coefficients - size * step
            trial_odds = base + design @ trial
            trial_loss = log_loss(trial_odds, label, weight)
            if trial_loss <= loss:
                break
            size /= 2.0
        else:
            return coefficients
        gain, coefficients, odds, loss = loss - trial_loss, trial, trial_odds, trial_loss
        if gain < 1e-14:
            return coefficients
    return coefficients
