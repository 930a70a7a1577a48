"""Isotonic calibration: the best non-decreasing step function, drawn as a strictly increasing line in log-odds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Isotonic", "fit_isotonic", "increasing"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Isotonic:
    """Linear interpolation between knots, slope 1 outside them: strictly increasing, so order is kept without new ties.

    Parameters
    ----------
    knots
        Log-odds in, strictly increasing, [N].
    levels
        Log-odds out, strictly increasing, [N].
    """

    knots: tuple[float, ...]
    levels: tuple[float, ...]

    def __call__(self, odds: Array) -> Array:
        """Return calibrated log-odds, [B]."""
        knots, levels = np.array(self.knots, np.float64), np.array(self.levels, np.float64)
        outside = np.minimum(odds - knots[0], 0.0) + np.maximum(odds - knots[-1], 0.0)
        inside: Array = np.interp(odds, knots, levels)
        calibrated: Array = inside + outside
        return calibrated

    def to_dict(self) -> dict[str, Any]:
        """Return the plain form."""
        return {"knots": list(self.knots), "levels": list(self.levels)}

    @classmethod
    def from_dict(cls, form: Mapping[str, Any]) -> Isotonic:
        """Read the plain form; a wrong one raises KeyError, TypeError or ValueError."""
        knots, levels = (tuple(map(float, form[name])) for name in ("knots", "levels"))
        if len(knots) != len(levels) or not knots or not increasing(knots) or not increasing(levels):
            raise ValueError("knots and levels must increase together")
        return cls(knots, levels)


def increasing(values: Sequence[float]) -> bool:
    """Return whether the numbers are finite and each is larger than the one before."""
    return bool(np.isfinite(values).all() and (np.diff(values) > 0).all())


def fit_isotonic(odds: Array, label: Array, weight: Array) -> Isotonic:
    """Fit by pooling adjacent violators (Ayer et al. 1955; as a calibrator Zadrozny and Elkan 2002).

    Each block of the step function becomes a knot at its mean log-odds; the level of a block without positives (or
    negatives) is pulled in to half an observation, below (above) every other block, so log-odds stay finite.

    Parameters
    ----------
    odds
        Log-odds, [B].
    label
        0 or 1, [B]; both must occur.
    weight
        Sample weights > 0, [B].
    """
    from scipy.optimize import isotonic_regression

    distinct, place = np.unique(odds, return_inverse=True)
    mass = np.bincount(place, weight)
    step = isotonic_regression(np.bincount(place, weight * label) / mass, weights=mass).x
    block = np.cumsum(np.diff(step, prepend=step[0]) > 0.0)
    knots = np.bincount(block, mass * distinct) / np.bincount(block, mass)
    levels = _inside(np.unique(step), len(odds))
    apart = np.concatenate([[True], (np.diff(knots) > 0.0) & (np.diff(levels) > 0.0)])
    return Isotonic(tuple(knots[apart].tolist()), tuple(levels[apart].tolist()))


def _inside(level: Array, rows: int) -> Array:
    """Return increasing probabilities as finite log-odds: 0 and 1 are pulled in, past no other level."""
    half = 0.5 / (rows + 1.0)
    inner = level[(level > 0.0) & (level < 1.0)]
    floor = min(half, inner[0] / 2.0) if len(inner) else half
    ceiling = max(1.0 - half, (1.0 + inner[-1]) / 2.0) if len(inner) else 1.0 - half
    clipped = np.clip(level, floor, ceiling)
    return np.log(clipped) - np.log1p(-clipped)
