"""Intervals by user bootstrap in one pass over per-user sums: for metrics that are functions of sums over rows.

A replicate draws a Poisson(1) weight for every user (Chamandy et al. 2012) and never touches a row again. The interval
is the bootstrap-t (Efron 1982; Hall 1988) on the scale of the metric's link: each replicate is studentised by its own
linearised standard error, which the second moments of the same sums give, so that few users or skewed sums widen it as
they should. More than 32,768 users (or rows, where there is no user) are first folded at random into as many groups:
groups of independent users are independent too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import combinations_with_replacement

import numpy as np
from numpy.typing import NDArray

from postclick.metrics.curve import Floats
from postclick.metrics.estimate import Link, linked_interval

__all__ = ["Statistic", "bootstrap_t", "fold_units", "poisson_weights", "ratio"]

REPLICATES = 1000
MOST_UNITS = 1 << 15
_BLOCK = 1 << 22
_VALID_SHARE = 0.9
_MOST_ERRORS = 20.0
"""A pivot quantile past this many standard errors says that the replicates' own variance collapsed (three positives,
say), not that the metric is that uncertain: no interval is better than one from here to 1e17."""


@dataclass(frozen=True)
class Statistic:
    """A metric as a function of sums over rows.

    Parameters
    ----------
    columns
        Names of its k sums.
    value
        [k, ...] sums -> [...] metric. Homogeneous of degree 0: doubling all rows changes nothing.
    slope
        [k, ...] sums -> [k, ...] derivative of link(metric) by each sum.
    link
        Scale of the interval.
    """

    columns: tuple[str, ...]
    value: Callable[[Floats], Floats]
    slope: Callable[[Floats], Floats]
    link: Link = "log"

    def linked(self, sums: Floats) -> Floats:
        """Return link(metric)."""
        value = self.value(sums)
        log = np.log(value)
        return log if self.link == "log" else np.asarray(log - np.log1p(-value))


def ratio(numerator: str, denominator: str, link: Link = "log") -> Statistic:
    """Return the statistic numerator / denominator."""

    def slope(sums: Floats) -> Floats:
        top, bottom = sums
        if link == "log":
            return np.stack([1.0 / top, -1.0 / bottom])
        return np.stack([1.0 / top + 1.0 / (bottom - top), -1.0 / (bottom - top)])

    return Statistic((numerator, denominator), lambda sums: np.asarray(sums[0] / sums[1]), slope, link)


def fold_units(unit: NDArray[np.integer] | None, rows: int, most: int) -> tuple[NDArray[np.int64], int]:
    """Return a group a row, and the number of groups: the units present, folded at random into `most` when more.

    Parameters
    ----------
    unit
        [B] integer codes from 0; None makes every row a unit.
    rows
        B.
    most
        A power of two.
    """
    if unit is None:
        codes, count = np.arange(rows), rows
    else:
        present = np.bincount(unit, minlength=1) > 0
        codes, count = (np.cumsum(present) - 1)[unit], int(np.count_nonzero(present))
    if count <= most:
        return codes, count
    # a multiplicative hash (Knuth, TAOCP 6.4): neighbours in time or in id part company
    shift = np.uint64(64 - (most.bit_length() - 1))
    return ((codes.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)) >> shift).astype(np.int64), most


def _poisson_table() -> NDArray[np.uint8]:
    mass = np.array([math.exp(-1.0) / math.factorial(count) for count in range(9)])
    steps = np.rint(np.append(np.cumsum(mass)[:-1], 1.0) * 65536).astype(np.int64)
    return np.repeat(np.arange(9, dtype=np.uint8), np.diff(steps, prepend=0))


_TABLE = _poisson_table()


def poisson_weights(rng: np.random.Generator, replicates: int, units: int) -> Floats:
    """Return [replicates, units] Poisson(1) counts by a table of 65,536 entries, five times as fast as drawing them."""
    draws = rng.integers(0, 65536, (replicates, units), np.uint16)
    return np.asarray(_TABLE[draws], np.float64)


def bootstrap_t(
    sums: Mapping[str, Floats],
    statistics: Mapping[str, Statistic],
    *,
    level: float = 0.95,
    seed: int = 0,
    replicates: int = REPLICATES,
) -> dict[str, tuple[float, float]]:
    """Return the interval of each statistic from sums by unit.

    Parameters
    ----------
    sums
        Column -> [U] sum over the rows of each unit (user, or group of users).
    statistics
        Metric -> its function of the columns.
    level
        Nominal coverage.
    seed
        Equal seeds give equal bits.
    replicates
        How many.

    Returns
    -------
    dict
        Metric -> (low, high); (nan, nan) where more than a tenth of the replicates are undefined (too few positives)
        or all but the same (a handful of positives), or the value lies on the border of its scale.
    """
    names = sorted({column for statistic in statistics.values() for column in statistic.columns})
    if not names or len(sums[names[0]]) < 2:
        return dict.fromkeys(statistics, (math.nan, math.nan))
    matrix = np.stack([sums[name] for name in names])
    pairs = list(combinations_with_replacement(range(len(names)), 2))
    rng = np.random.default_rng(seed)
    first, second = np.zeros((replicates, len(names))), np.zeros((replicates, len(pairs)))
    step = max(1, _BLOCK // replicates)
    left, right = (list(side) for side in zip(*pairs, strict=True))
    for start in range(0, matrix.shape[1], step):
        block = matrix[:, start : start + step]
        weights = poisson_weights(rng, replicates, block.shape[1])
        first += weights @ block.T
        second += weights @ (block[left] * block[right]).T
    found = {}
    for metric, statistic in statistics.items():
        places = [names.index(column) for column in statistic.columns]
        moments = _moments(second, pairs, places)
        own = matrix[places]
        found[metric] = _studentised(statistic, own, first[:, places].T, moments, level)
    return found


def _moments(second: Floats, pairs: list[tuple[int, int]], places: list[int]) -> Floats:
    """Return [k, k, replicates] second moments of the columns at `places`."""
    lookup = {pair: index for index, pair in enumerate(pairs)}
    return np.stack([np.stack([second[:, lookup[min(i, j), max(i, j)]] for j in places]) for i in places])


def _studentised(
    statistic: Statistic, own: Floats, first: Floats, moments: Floats, level: float
) -> tuple[float, float]:
    with np.errstate(all="ignore"):
        totals = own.sum(axis=1)
        value, center = float(statistic.value(totals)), float(statistic.linked(totals))
        error = math.sqrt(float(np.sum((statistic.slope(totals) @ own) ** 2)))
        slope = statistic.slope(first)
        variance = np.einsum("ir,ijr,jr->r", slope, moments, slope)
        pivot = (statistic.linked(first) - center) / np.sqrt(variance)
    pivot = pivot[np.isfinite(pivot)]
    if not (math.isfinite(center) and error > 0.0) or len(pivot) < _VALID_SHARE * first.shape[1]:
        return math.nan, math.nan
    tail = (1.0 - level) / 2.0
    low, high = np.quantile(pivot, [tail, 1.0 - tail])
    if max(-low, high) > _MOST_ERRORS:
        return math.nan, math.nan
    return linked_interval(value, float(high) * error, -float(low) * error, statistic.link)
