"""What each unit of rows (a user, or a row) adds to a metric: the linear form that variances of differences need.

For a metric T of the rows' distribution, T(sample) - T = sum over units of x_u, to first order (von Mises 1947).
The x_u of one metric under several scorings of the same rows are all that a paired comparison reads, so the covariance
between systems and between seeds comes for free.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from postclick.metrics.curve import Floats, Label
from postclick.metrics.delong import components
from postclick.metrics.probability import columns, from_sums
from postclick.metrics.ranking import user_ranking

__all__ = ["COMPARED", "HIGHER_IS_BETTER", "Influence", "influence"]

HIGHER_IS_BETTER = ("auc", "gauc")
COMPARED = (*HIGHER_IS_BETTER, "logloss", "ne", "brier", "mae", "pcoc")
"""Metrics that have an influence here; lower is better from ``logloss`` on, nearer 1 for ``pcoc``."""
_RATIOS = {"logloss": "loss", "brier": "square", "mae": "error"}


@dataclass(frozen=True)
class Influence:
    """One metric of one scoring, and what each of U units adds to it.

    Parameters
    ----------
    value
        The metric; its logarithm for ``pcoc``.
    parts
        [P, U] influence, each row summing to 0: P is 1, or 2 for ``auc`` (through positives, through negatives).
    factors
        [P, P] corrections for small samples: variance = sum_pq factors_pq (parts_p . parts_q). For ``auc`` they are
        Obuchowski's (1997), else U / (U - 1).
    undefined
        Why there is no value, else None.
    """

    value: float
    parts: Floats
    factors: Floats
    undefined: str | None = None

    @classmethod
    def none(cls, reason: str) -> Influence:
        """Return an undefined outcome."""
        return cls(math.nan, np.zeros((1, 0)), np.full((1, 1), math.nan), reason)

    @classmethod
    def single(cls, value: float, part: Floats) -> Influence:
        """Return the influence of a metric that has one part."""
        units = len(part)
        return cls(value, part[None, :], np.full((1, 1), _correction(units)))


def _correction(units: int) -> float:
    return units / (units - 1.0) if units > 1 else math.nan


def influence(
    metric: str,
    odds: Floats,
    label: Label,
    *,
    weight: Floats | None = None,
    user: NDArray[np.integer] | None = None,
    unit: NDArray[np.integer] | None = None,
) -> Influence:
    """Return a metric and what each unit adds to it.

    With a, b the sums of a ratio's two columns by unit, A and B their totals and T = A / B: x_u = (a_u - T b_u) / B.
    log PCOC: x_u = q_u / Q - y_u / Y. NE = L / H(r), L the log-loss, H the entropy of the base rate r = Y / W:
    x_u = (l_u - L w_u) / (W H) - NE log((1 - r) / r) (y_u - r w_u) / (W H). AUC: placement values (`delong`).

    Parameters
    ----------
    metric
        One of `COMPARED`.
    odds, label, weight
        [B] as in `ranking.auc` and `probability.logloss`.
    user
        [B] integer codes from 0: who ranks together in ``gauc``.
    unit
        [B] integer codes 0 to U - 1, each with rows; rows of one unit may depend on each other. None: every row is one.

    Returns
    -------
    Influence
        Undefined where the metric is (one class, no rows, an infinite loss, scores that are not numbers).
    """
    if len(odds) and bool(np.isnan(np.min(odds))):
        return Influence.none("scores are not numbers")
    codes = np.arange(len(odds)) if unit is None else unit
    if metric == "auc":
        return _auc(odds, label, weight, codes)
    if metric == "gauc":
        return _gauc(odds, label, weight, user, codes)
    return _additive(metric, odds, label, weight, codes)


def _auc(odds: Floats, label: Label, weight: Floats | None, unit: NDArray[np.integer]) -> Influence:
    found = components(odds, label, weight, unit) if len(odds) else None
    if found is None:
        positives = float(np.sum(label, dtype=np.float64))
        return Influence.none("no rows" if not len(odds) else "no negatives" if positives > 0 else "no positives")
    parts = np.stack(
        [found.positive - found.auc * found.positive_mass, found.negative - found.auc * found.negative_mass]
    )
    ups, downs, both = (_correction(count) for count in found.clusters)
    return Influence(found.auc, parts, np.array([[ups, both], [both, downs]]))


def _gauc(
    odds: Floats,
    label: Label,
    weight: Floats | None,
    user: NDArray[np.integer] | None,
    unit: NDArray[np.integer],
) -> Influence:
    if user is None:
        return Influence.none("no user id")
    ranking = user_ranking(odds, label, user, weight)
    estimate = ranking.estimate
    if estimate.value is None:
        return Influence.none(estimate.undefined or "")
    of_user = np.zeros(len(ranking.mass), np.int64)
    of_user[user] = unit
    own = (ranking.wins - estimate.value * ranking.mass) / float(ranking.mass.sum())
    return Influence.single(estimate.value, np.asarray(np.bincount(of_user, own, int(unit.max()) + 1), np.float64))


def _additive(metric: str, odds: Floats, label: Label, weight: Floats | None, unit: NDArray[np.integer]) -> Influence:
    needed = {"weight", "label", {"pcoc": "prediction"}.get(metric, _RATIOS.get(metric, "loss"))}
    units = int(unit.max()) + 1 if len(unit) else 0
    sums = {name: np.bincount(unit, column, units) for name, column in columns(odds, label, weight) if name in needed}
    totals = {name: float(column.sum()) for name, column in sums.items()}
    estimate = from_sums(metric, totals)
    if estimate.value is None:
        return Influence.none(estimate.undefined or "")
    value, mass = estimate.value, totals["weight"]
    if metric == "pcoc":
        if not value > 0.0:
            return Influence.none("predicts none")
        part = sums["prediction"] / totals["prediction"] - sums["label"] / totals["label"]
        return Influence.single(math.log(value), part)
    if metric in _RATIOS:
        return Influence.single(value, (sums[_RATIOS[metric]] - value * sums["weight"]) / mass)
    rate = totals["label"] / mass
    slope = math.log1p(-rate) - math.log(rate)
    entropy = -(rate * math.log(rate) + (1.0 - rate) * math.log1p(-rate))
    loss = sums["loss"] - totals["loss"] / mass * sums["weight"]
    return Influence.single(value, (loss - value * slope * (sums["label"] - rate * sums["weight"])) / (mass * entropy))
