"""Intervals of AUC: DeLong for independent rows, and Obuchowski's form of it for rows clustered by user.

Placement values: V10_i = share of negatives below positive i, V01_j = share of positives above negative j, ties half.
With X_u = sum of a_i (V10_i - AUC) / A and Z_u = sum of b_j (V01_j - AUC) / B over the rows of cluster u,

    var(AUC) = I10/(I10 - 1) sum X_u^2 + I01/(I01 - 1) sum Z_u^2 + 2 I/(I - 1) sum X_u Z_u,

I10, I01 and I the clusters with positives, with negatives and in all. One row a cluster is DeLong, DeLong and
Clarke-Pearson (1988); users as clusters is Obuchowski (1997). With sample weights, a = w p and b = w (1 - p).
Placements come from one sort (Sun and Xu 2014). The interval is symmetric on the logit scale (Pepe 2003, section
5.2.4), which stays inside (0, 1) and covers better than the plain one near 1; where no variance can be had (fewer than
two clusters of a class, or a perfect, reversed or constant ranking) Newcombe's (2006) method 5 takes its place.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

from postclick.metrics.curve import (
    Curve,
    Floats,
    Label,
    check_scores,
    class_masses,
    curve_of,
    hard_labels,
    summed_runs,
    tie_starts,
)
from postclick.metrics.estimate import Estimate, linked_interval, normal_quantile
from postclick.metrics.ranking import curve_auc

__all__ = ["Components", "auc_interval", "components", "curve_auc_interval"]


@dataclass(frozen=True)
class Components:
    """Placement values of one AUC summed by cluster, U clusters: what its variance and covariances are made of.

    Parameters
    ----------
    auc
        The AUC.
    positive, negative
        [U] sums of a_i V10_i / A and of b_j V01_j / B.
    positive_mass, negative_mass
        [U] sums of a_i / A and of b_j / B.
    """

    auc: float
    positive: Floats
    negative: Floats
    positive_mass: Floats
    negative_mass: Floats

    @property
    def clusters(self) -> tuple[int, int, int]:
        """I10, I01, I: clusters with positives, with negatives, and in all."""
        up, down = self.positive_mass > 0, self.negative_mass > 0
        return int(np.count_nonzero(up)), int(np.count_nonzero(down)), int(np.count_nonzero(up | down))

    def covariance(self, other: Components) -> float:
        """Return the covariance of two AUCs on the same rows and clusters; nan with fewer than two of a class."""
        ups, downs, both = self.clusters
        if min(ups, downs) < 2:
            return math.nan
        x, z = self.positive - self.auc * self.positive_mass, self.negative - self.auc * self.negative_mass
        x2, z2 = other.positive - other.auc * other.positive_mass, other.negative - other.auc * other.negative_mass
        own = ups / (ups - 1) * float(x @ x2) + downs / (downs - 1) * float(z @ z2)
        return own + both / (both - 1) * float(x @ z2 + x2 @ z)

    @property
    def variance(self) -> float:
        """Variance of the AUC; nan with fewer than two clusters of a class."""
        return self.covariance(self)


def components(
    odds: Floats, label: Label, weight: Floats | None = None, user: NDArray[np.integer] | None = None
) -> Components | None:
    """Return the placement values summed by user (by row without `user`), or None where AUC is undefined.

    Parameters
    ----------
    odds, label, weight
        As in `ranking.auc`.
    user
        [B] integer codes from 0.
    """
    check_scores(odds)
    positive = hard_labels(label) if weight is None and user is not None else None
    if positive is not None and user is not None:
        return _hard_components(odds, positive, user)
    return _general_components(odds, label, weight, np.arange(len(odds)) if user is None else user)


def _general_components(
    odds: Floats, label: Label, weight: Floats | None, user: NDArray[np.integer]
) -> Components | None:
    masses = class_masses(label, weight)
    total_up, total_down = (float(mass.sum()) for mass in masses)
    if not (total_up > 0 and total_down > 0):
        return None
    order = np.argsort(odds, kind="stable")
    starts = tie_starts(odds[order])
    sizes = np.diff(np.append(starts, len(odds)))
    up, down = (mass[order] for mass in masses)
    group_up, group_down = np.add.reduceat(up, starts), np.add.reduceat(down, starts)
    below = np.cumsum(group_down) - group_down / 2.0
    above = total_up - np.cumsum(group_up) + group_up / 2.0
    code, units = user[order], int(user.max()) + 1
    sums = (up * np.repeat(below, sizes), down * np.repeat(above, sizes), up, down)
    scale = (total_up * total_down, total_up * total_down, total_up, total_down)
    parts = [np.bincount(code, column, units) / by for column, by in zip(sums, scale, strict=True)]
    return Components(float(parts[0].sum()), *parts)


def _hard_components(odds: Floats, positive: NDArray[np.bool_], user: NDArray[np.integer]) -> Components | None:
    ups = int(np.count_nonzero(positive))
    downs = len(odds) - ups
    if not ups or not downs:
        return None
    if ups > downs:  # the rarer class is the one that is looked up
        flipped = _hard_components(-odds, ~positive, user)
        assert flipped is not None
        swapped = (flipped.negative, flipped.positive, flipped.negative_mass, flipped.positive_mass)
        return Components(flipped.auc, *swapped)
    units = int(user.max()) + 1  # all sums below are of whole numbers under 2^53: exact in any order
    scores, owners = odds[positive], user[positive]
    order = np.argsort(scores)
    starts = tie_starts(scores[order])
    values = scores[order][starts]
    edges = np.append(starts, ups)
    # twice the positives above, ties once: slot 2 i holds the scores under value i, slot 2 i + 1 those equal to it
    above = np.empty(2 * len(values) + 1)
    above[0::2] = 2.0 * (ups - edges)
    above[1::2] = 2.0 * ups - edges[:-1] - edges[1:]

    padded = np.append(values, np.nan)

    def place(run: slice) -> tuple[NDArray[Any], NDArray[Any]]:
        rows = np.flatnonzero(~positive[run]) + run.start
        rows = rows[_nearly_sorted(odds[rows])]
        negatives = odds[rows]
        slot = np.searchsorted(values, negatives)
        slot = 2 * slot + (padded[slot] == negatives)
        return np.bincount(slot, minlength=len(above)), np.bincount(user[rows], above[slot], units)

    negatives, lost = summed_runs(place, len(odds), 2 * len(values))
    # twice the negatives below each value, ties once
    below = 2.0 * np.cumsum(negatives)[0:-1:2] + negatives[1::2]
    won = np.bincount(owners[order], np.repeat(below, np.diff(edges)), units)
    pairs = 2.0 * ups * downs
    up_mass = np.bincount(owners, minlength=units)
    down_mass = np.bincount(user, minlength=units) - up_mass
    return Components(float(won.sum()) / pairs, won / pairs, lost / pairs, up_mass / ups, down_mass / downs)


def _nearly_sorted(odds: Floats) -> NDArray[np.int64]:
    """Return an order that is sorted up to the last bits of the numbers.

    It only makes the look-ups that follow local in memory, so it need not be exact: one sort of 64-bit keys that
    carry the row in their low bits takes half the time of an argsort.
    """
    low = np.int64((1 << max(1, len(odds).bit_length())) - 1)
    bits = odds.view(np.int64)
    key = bits ^ ((bits >> 63) & np.int64(0x7FFFFFFFFFFFFFFF))
    key &= ~low
    key |= np.arange(len(odds))
    key.sort()
    key &= low
    return key


def _curve_variance(ranked: Curve, value: float) -> float:
    """DeLong's variance from unweighted tie groups: V10 and V01 are the same for all rows of a group and class."""
    ups, downs = ranked.positives, ranked.negatives
    if min(ups, downs) < 2:
        return math.nan
    below = (downs - np.cumsum(ranked.negative) + ranked.negative / 2.0) / downs
    above = (np.cumsum(ranked.positive) - ranked.positive / 2.0) / ups
    spread_up = float(np.sum(ranked.positive * (below - value) ** 2)) / (ups - 1.0)
    spread_down = float(np.sum(ranked.negative * (above - value) ** 2)) / (downs - 1.0)
    return spread_up / ups + spread_down / downs


def _newcombe(value: float, ups: int, downs: int, z: float) -> tuple[float, float]:
    """Method 5 of Newcombe (2006): both t whose z sd(t) reach `value`, sd of Hanley and McNeil (1982)."""

    def distance(t: float) -> float:
        more = (ups + downs) / 2.0 - 1.0
        spread = t * (1.0 - t) * (1.0 + more * ((1.0 - t) / (2.0 - t) + t / (1.0 + t))) / (ups * downs)
        return (value - t) ** 2 - z * z * spread

    low = 0.0 if value <= 0.0 else brentq(distance, 0.0, value - 1e-12 if value >= 1.0 else value)
    high = 1.0 if value >= 1.0 else brentq(distance, value + 1e-12 if value <= 0.0 else value, 1.0)
    return float(low), float(high)


def _interval(value: float, variance: float, ups: int, downs: int, level: float) -> tuple[float, float, str]:
    z = normal_quantile(level)
    if variance > 0.0 and 0.0 < value < 1.0:
        half = z * math.sqrt(variance) / (value * (1.0 - value))
        return *linked_interval(value, half, half, "logit"), "DeLong, logit scale"
    return *_newcombe(value, ups, downs, z), "Newcombe method 5"


def curve_auc_interval(ranked: Curve, level: float = 0.95) -> Estimate:
    """Return AUC with DeLong's interval for independent, unweighted, hard-labelled rows that are already sorted."""
    estimate = curve_auc(ranked)
    if estimate.value is None:
        return estimate
    variance = _curve_variance(ranked, estimate.value)
    low, high, method = _interval(estimate.value, variance, int(ranked.positives), int(ranked.negatives), level)
    return estimate.within(low, high, level, f"{method}, independent rows")


def auc_interval(
    odds: Floats,
    label: Label,
    weight: Floats | None = None,
    user: NDArray[np.integer] | None = None,
    level: float = 0.95,
) -> Estimate:
    """Return AUC with its interval: clustered by `user` where given, otherwise for independent rows and labelled so.

    Parameters
    ----------
    odds, label, weight
        As in `ranking.auc`.
    user
        [B] integer codes from 0, or None.
    level
        Nominal coverage.

    Returns
    -------
    Estimate
        `method` says which variance and which scale.
    """
    if user is None and weight is None and hard_labels(label) is not None:
        return curve_auc_interval(curve_of(odds, label), level)
    found = components(odds, label, weight, user)
    if found is None:
        return curve_auc(curve_of(odds, label, weight))
    ups, downs, _ = found.clusters
    low, high, method = _interval(found.auc, found.variance, ups, downs, level)
    unit = "independent rows" if user is None else "clustered by user"
    return Estimate.of(found.auc).within(low, high, level, f"{method}, {unit}")
