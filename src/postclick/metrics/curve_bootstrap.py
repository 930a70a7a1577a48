"""Intervals by user bootstrap for metrics of the sorted rows: PR-AUC, KS, recall, F1, lift.

Rows are counted once into a table of score bins by groups of users; a replicate is a column of one matrix product, so
the cost does not grow with the rows. The table has at most 2,048 bins, cut so that no bin holds much of either class
(every distinct score is a bin where there are fewer), and at most 1,024 random groups of users. The replicates give
the standard error on the scale of the link; the value itself is the exact one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from postclick.metrics.bootstrap import fold_units, poisson_weights
from postclick.metrics.curve import Curve, Floats, Label, class_masses
from postclick.metrics.estimate import Estimate, Link, linked_interval, normal_quantile

__all__ = ["curve_bootstrap"]

REPLICATES = 300
_BINS = 2048
_GROUPS = 1024
_SAMPLE = 1 << 17
_VALID_SHARE = 0.9

Metric = tuple[Callable[[Curve], Estimate], Link]


def _edges(odds: Floats, positive: Floats) -> Floats:
    """Return bin edges: quantiles of the scores of either class, by sorted samples; every score where they are few."""
    parts = []
    for side in (positive > 0, positive <= 0):
        scores = odds[side]
        sample = np.unique(scores[:: max(1, len(scores) // _SAMPLE)])
        parts.append(
            sample[np.unique(np.linspace(0, len(sample) - 1, _BINS // 2).astype(np.int64))] if len(sample) else sample
        )
    return np.unique(np.concatenate(parts))


def curve_bootstrap(
    odds: Floats,
    label: Label,
    weight: Floats | None,
    user: NDArray[np.integer] | None,
    metrics: Mapping[str, Metric],
    *,
    level: float = 0.95,
    seed: int = 0,
    replicates: int = REPLICATES,
) -> dict[str, Callable[[Estimate], Estimate]]:
    """Return, a metric, the function that puts its interval around its exact value.

    Parameters
    ----------
    odds, label, weight
        As in `ranking.auc`.
    user
        [B] integer codes from 0; None draws rows.
    metrics
        Name -> (function of a `Curve`, link).
    level, seed, replicates
        Nominal coverage; equal seeds give equal bits; how many.
    """
    positive, negative = class_masses(label, weight)
    edges = _edges(odds, positive)
    group, groups = fold_units(user, len(odds), _GROUPS)
    cell = np.searchsorted(edges, odds, side="right") * groups + group
    shape = (len(edges) + 1, groups)
    weights = poisson_weights(np.random.default_rng(seed), replicates, groups).T
    ups, downs = (
        np.bincount(cell, mass, shape[0] * groups).reshape(shape)[::-1] @ weights for mass in (positive, negative)
    )
    curves = [Curve(ups[:, index], downs[:, index]) for index in range(replicates)]
    unit = "row" if user is None else "user"
    intervals = {}
    for name, (function, link) in metrics.items():
        found = [function(ranked).value for ranked in curves]
        spread = _spread(np.array([math.nan if value is None else value for value in found]), link)
        intervals[name] = _attach(spread, link, level, f"{unit} bootstrap standard error, {link} scale")
    return intervals


def _spread(values: Floats, link: Link) -> float:
    with np.errstate(all="ignore"):
        linked = np.log(values) - (np.log1p(-values) if link == "logit" else 0.0)
    linked = linked[np.isfinite(linked)]
    return float(np.std(linked, ddof=1)) if len(linked) > max(1.0, _VALID_SHARE * len(values)) else math.nan


def _attach(spread: float, link: Link, level: float, method: str) -> Callable[[Estimate], Estimate]:
    def attach(estimate: Estimate) -> Estimate:
        if estimate.value is None or not spread > 0.0:
            return estimate
        half = normal_quantile(level) * spread
        low, high = linked_interval(estimate.value, half, half, link)
        return estimate.within(low, high, level, method)

    return attach
