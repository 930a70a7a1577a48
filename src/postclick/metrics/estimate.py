"""What a metric gives back: a number with its interval, or the reason why there is none."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from scipy.special import ndtri

__all__ = ["Estimate", "Link", "linked_interval", "normal_quantile"]

Link = Literal["log", "logit"]


@dataclass(frozen=True)
class Estimate:
    """A metric's value and interval; never NaN and never a stand-in such as 0.5.

    Parameters
    ----------
    value
        The number, or None where the metric is undefined.
    undefined
        Why there is no value ("no positives", "no negatives", "no rows", ...), else None.
    low, high
        Ends of the interval; None where there is none.
    level
        Nominal coverage of the interval.
    method
        How the interval was made, in words.
    """

    value: float | None
    undefined: str | None = None
    low: float | None = None
    high: float | None = None
    level: float | None = None
    method: str = ""

    @classmethod
    def of(cls, value: float) -> Estimate:
        """Return an estimate without interval; a number that is not finite becomes an undefined outcome."""
        number = float(value)
        if math.isnan(number):
            return cls(None, "scores are not numbers")
        return cls(number) if math.isfinite(number) else cls(None, "infinite")

    @classmethod
    def none(cls, reason: str) -> Estimate:
        """Return an undefined outcome."""
        return cls(None, reason)

    def within(self, low: float, high: float, level: float, method: str) -> Estimate:
        """Return the same value with an interval; ends that are not finite stay open (None)."""
        ends = [float(end) if math.isfinite(end) else None for end in (low, high)]
        return replace(self, low=ends[0], high=ends[1], level=level, method=method)


def normal_quantile(level: float) -> float:
    """Return z such that a standard normal number lies in [-z, z] with probability `level`."""
    return float(ndtri(0.5 + level / 2.0))


def linked_interval(value: float, below: float, above: float, link: Link) -> tuple[float, float]:
    """Return the interval [g(value) - below, g(value) + above] carried back from the scale of `link`.

    On the log scale the ends stay positive, on the logit scale they stay inside (0, 1). A value on the border of the
    scale gives (nan, nan): there is no interval.
    """
    if value <= 0.0 or (link == "logit" and value >= 1.0):
        return math.nan, math.nan
    if link == "log":
        return value * math.exp(-min(below, 700.0)), value * math.exp(min(above, 700.0))
    odds = math.log(value) - math.log1p(-value)
    return _expit(odds - below), _expit(odds + above)


def _expit(odds: float) -> float:
    small = math.exp(-min(abs(odds), 700.0))
    return (1.0 if odds >= 0 else small) / (1.0 + small)
