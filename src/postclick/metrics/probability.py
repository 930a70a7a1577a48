"""Metrics of probabilities: log-loss, normalised entropy, Brier, PCOC, MAE, mean; all are functions of sums over rows.

They read log-odds, not rounded probabilities: log-loss is softplus of them, so nothing is clipped.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from postclick.metrics.bootstrap import Statistic, ratio
from postclick.metrics.curve import Floats, Label
from postclick.metrics.estimate import Estimate

__all__ = [
    "STATISTICS",
    "brier",
    "columns",
    "cross_entropy",
    "from_sums",
    "logloss",
    "mae",
    "mean",
    "ne",
    "pcoc",
    "sigmoid",
]


def sigmoid(odds: Floats) -> Floats:
    """Return 1 / (1 + exp(-odds)), [B], without overflow."""
    small = np.exp(-np.abs(odds))
    return np.asarray(np.where(odds >= 0, 1.0, small) / (1.0 + small))


def cross_entropy(odds: Floats, label: Floats) -> Floats:
    """Return -[p log q + (1 - p) log(1 - q)] = softplus(odds) - p odds; infinite for a certain wrong score."""
    if not bool(np.all(np.isfinite(odds))):
        finite = np.where(np.isfinite(odds), odds, 0.0)
        wrong = ((odds == np.inf) & (label < 1)) | ((odds == -np.inf) & (label > 0))
        certain = np.where(wrong, np.inf, np.where(np.isnan(odds), np.nan, 0.0))
        return np.where(np.isfinite(odds), cross_entropy(finite, label), certain)
    # softplus(x) = max(x, 0) + log1p(exp(-|x|)); label * x is taken apart so that large x leaves no rounding
    return np.log1p(np.exp(-np.abs(odds))) + np.where(odds >= 0, (1.0 - label) * odds, -label * odds)


def columns(odds: Floats, label: Label, weight: Floats | None = None) -> Iterator[tuple[str, Floats]]:
    """Yield the weighted columns, [B] each, whose sums `STATISTICS` reads.

    ``weight``, ``label``, ``prediction``, ``loss`` (cross-entropy), ``square`` (p (1 - q)^2 + (1 - p) q^2) and
    ``error`` (|q - p|), with q the predicted probability and p the label.
    """
    soft = np.asarray(label, np.float64)
    own = np.ones(len(odds)) if weight is None else weight

    def weighted(column: Floats) -> Floats:
        return column if weight is None else column * weight

    yield "weight", own
    yield "label", weighted(soft)
    yield "loss", weighted(cross_entropy(odds, soft))
    predicted = sigmoid(odds)
    yield "prediction", weighted(predicted)
    yield "square", weighted(soft * (1.0 - predicted) ** 2 + (1.0 - soft) * predicted**2)
    yield "error", weighted(np.abs(predicted - soft))


def _entropy(rate: Floats) -> Floats:
    return np.asarray(-(rate * np.log(rate) + (1.0 - rate) * np.log1p(-rate)))


def _ne_value(sums: Floats) -> Floats:
    loss, label, weight = sums
    return np.asarray(loss / weight / _entropy(label / weight))


def _ne_slope(sums: Floats) -> Floats:
    loss, label, weight = sums
    rate = label / weight
    steep = (np.log1p(-rate) - np.log(rate)) / (_entropy(rate) * weight)
    return np.stack([1.0 / loss, -steep, -1.0 / weight + steep * rate])


STATISTICS: Mapping[str, Statistic] = {
    "logloss": ratio("loss", "weight"),
    "brier": ratio("square", "weight"),
    "mae": ratio("error", "weight"),
    "mean": ratio("prediction", "weight"),
    "pcoc": ratio("prediction", "label"),
    "ne": Statistic(("loss", "label", "weight"), _ne_value, _ne_slope),
}


def from_sums(metric: str, sums: Mapping[str, float]) -> Estimate:
    """Return a metric from the sums of its columns, or why it is undefined."""
    if not sums["weight"] > 0.0:
        return Estimate.none("no rows")
    if metric in ("pcoc", "ne") and not sums["label"] > 0.0:
        return Estimate.none("no positives")
    if metric == "ne" and not sums["label"] < sums["weight"]:
        return Estimate.none("no negatives")
    statistic = STATISTICS[metric]
    return Estimate.of(float(statistic.value(np.array([sums[name] for name in statistic.columns]))))


def _compute(metric: str, odds: Floats, label: Label, weight: Floats | None) -> Estimate:
    wanted = {*STATISTICS[metric].columns, "weight", "label"}
    found = columns(odds, label, weight)
    return from_sums(metric, {name: float(column.sum()) for name, column in found if name in wanted})


def logloss(odds: Floats, label: Label, weight: Floats | None = None) -> Estimate:
    """Return sum w [p softplus(-odds) + (1 - p) softplus(odds)] / sum w, in nats, in [0, inf).

    Parameters
    ----------
    odds
        [B] log-odds of the predicted probability q.
    label
        [B] 0/1, or soft labels p in [0, 1]: each row counts p positive and 1 - p negative.
    weight
        [B] sample weights w; None is 1.

    Returns
    -------
    Estimate
        Undefined without rows, and "infinite" where a probability of exactly 0 or 1 is wrong.
    """
    return _compute("logloss", odds, label, weight)


def ne(odds: Floats, label: Label, weight: Floats | None = None) -> Estimate:
    """Return log-loss / entropy of the labels' own mean, in [0, inf); 1 is no better than that constant.

    Parameters as in `logloss`; undefined when there is one class. Source: He et al. (2014), "normalised entropy".
    """
    return _compute("ne", odds, label, weight)


def brier(odds: Floats, label: Label, weight: Floats | None = None) -> Estimate:
    """Return sum w [p (1 - q)^2 + (1 - p) q^2] / sum w, in [0, 1]. Parameters as in `logloss`. Source: Brier (1950)."""
    return _compute("brier", odds, label, weight)


def mae(odds: Floats, label: Label, weight: Floats | None = None) -> Estimate:
    """Return sum w |q - p| / sum w, in [0, 1]; a soft label is the number it is. Parameters as in `logloss`."""
    return _compute("mae", odds, label, weight)


def mean(odds: Floats, label: Label, weight: Floats | None = None) -> Estimate:
    """Return sum w q / sum w, the mean predicted probability. Parameters as in `logloss`."""
    return _compute("mean", odds, label, weight)


def pcoc(odds: Floats, label: Label, weight: Floats | None = None) -> Estimate:
    """Return sum w q / sum w p, predicted over observed, in [0, inf); 1 is calibrated in the large.

    Parameters as in `logloss`; undefined without positives.
    """
    return _compute("pcoc", odds, label, weight)
