"""Temperature scaling: calibrated log-odds = log-odds / temperature (Guo et al. 2017)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from postclick.calibration.platt import SLOPES, newton

__all__ = ["Temperature", "fit_temperature"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Temperature:
    """The map ``l / temperature``: order is kept, and a probability of one half stays one."""

    temperature: float = 1.0

    def __call__(self, odds: Array) -> Array:
        """Return calibrated log-odds, [B]."""
        return odds / self.temperature

    def to_dict(self) -> dict[str, Any]:
        """Return the plain form."""
        return {"temperature": self.temperature}

    @classmethod
    def from_dict(cls, form: Mapping[str, Any]) -> Temperature:
        """Read the plain form; a wrong one raises KeyError, TypeError or ValueError."""
        temperature = float(form["temperature"])
        if not (temperature > 0.0 and np.isfinite(temperature)):
            raise ValueError(f"temperature {temperature}")
        return cls(temperature)


def fit_temperature(odds: Array, label: Array, weight: Array) -> Temperature:
    """Minimise the weighted log-loss over the temperature alone.

    It turns about one half: where positives are rare it cannot move the mean and the spread apart, which `fit_platt`
    can. Convex in 1 / temperature. A best 1 / temperature outside `SLOPES` is not to be trusted, and 1 is kept.

    Parameters
    ----------
    odds
        Log-odds, [B].
    label
        0 or 1, [B]; both must occur.
    weight
        Sample weights > 0, [B].
    """
    (slope,) = newton(odds[:, None], np.zeros_like(odds), np.ones(1), label, weight)
    return Temperature(float(1.0 / slope)) if SLOPES[0] <= slope <= SLOPES[1] else Temperature()
