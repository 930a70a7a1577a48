"""What clicked rows say of the CVR on all exposures: its mean and its log-loss, naive and debiased.

With z the conversion r (``mean``) or the loss l(r, q) (``logloss``), o the click, p the propensity within its floor,
w the sample weight and m(x) the scores' own expectation of z (q, or the entropy of q):

    naive   sum w o z / sum w o                        the mean over clicks, another population under selection
    ips     sum w o z / p / sum w                      Horvitz and Thompson (1952)
    snips   sum w o z / p / sum w o / p                Hajek (1971): a constant factor in p drops out
    dr      sum w [m + o (z - m) / p] / sum w          Robins et al. (1994): right if p is or if q is

IPS, SNIPS and DR estimate the mean of z over exposures when p = P(click | x), every confounder is in x, and no row lies
under the floor. With hidden confounders z is that of clicked rows at each x (cvr_click), not of all (cvr_do). No
estimator here is confined to [0, 1].
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from postclick.metrics.curve import Floats
from postclick.metrics.estimate import Estimate, linked_interval, normal_quantile
from postclick.metrics.probability import cross_entropy, sigmoid

__all__ = ["DEBIASED", "ESTIMATORS", "WEIGHTED", "debiased"]

ESTIMATORS = ("naive", "ips", "snips", "dr")
WEIGHTED = ("ips", "snips", "dr")
"""Estimators that divide by the propensity."""
DEBIASED = ("mean", "logloss")
LEAST_CONVERSIONS = 10
"""Under so many conversions the estimated variance is itself a matter of luck: a value, but no interval."""
_LOG_FROM = 2.0
"""Standard errors above 0 from which the interval is taken on the log scale; nearer to 0 it would reach to infinity."""


@dataclass(frozen=True)
class _Clicked:
    """The clicked rows, C of them: units, sample weights, weights w / p."""

    unit: NDArray[np.integer]
    own: Floats
    inverse: Floats

    def by_unit(self, column: Floats, units: int) -> Floats:
        return np.asarray(np.bincount(self.unit, column, units), np.float64)


def debiased(
    odds: Floats,
    click: NDArray[np.integer],
    conversion: NDArray[np.integer],
    propensity: Floats,
    *,
    floor: float = 0.0,
    weight: Floats | None = None,
    unit: NDArray[np.integer] | None = None,
    level: float = 0.95,
) -> dict[tuple[str, str], Estimate]:
    """Return the mean CVR and the CVR's log-loss over exposures by every estimator, with intervals.

    Each is a ratio T = A / B of sums over units (users, or rows): the influence of a unit is x_u = (a_u - T b_u) / B,
    the variance U / (U - 1) sum x_u^2, the interval normal on the scale of log T (of T where T is under two standard
    errors). The propensity is taken as given: its own estimation error is not counted, so it should come from rows
    other than these.

    Parameters
    ----------
    odds
        [B] log-odds of the predicted CVR q, on every exposure.
    click, conversion
        [B] 0/1; the conversion of an unclicked row is not read.
    propensity
        [B] P(click | x) in [0, 1].
    floor
        Smallest p that is divided by; clipping biases IPS and SNIPS, and DR where q is wrong.
    weight
        [B] sample weights, or None.
    unit
        [B] integer codes from 0, each with rows: rows of one unit may depend on each other. None: every row is one.
    level
        Nominal coverage.

    Returns
    -------
    dict
        (metric of `DEBIASED`, estimator of `ESTIMATORS`) -> estimate; undefined without rows or clicks, where a score
        is not a number, and "infinite" where a clicked row has propensity 0 or a certain score is wrong.
    """
    names = [(metric, estimator) for metric in DEBIASED for estimator in ESTIMATORS]
    own = np.ones(len(odds)) if weight is None else np.asarray(weight, np.float64)
    places = np.flatnonzero((click == 1) & (own > 0.0))
    reason = _unusable(odds, propensity, own, places)
    if reason is not None:
        return dict.fromkeys(names, Estimate.none(reason))
    codes = np.arange(len(odds)) if unit is None else unit
    units = int(codes.max()) + 1
    with np.errstate(divide="ignore"):
        inverse = own[places] / np.maximum(propensity[places], floor)
    clicked = _Clicked(codes[places], own[places], inverse)
    label = np.asarray(conversion[places], np.float64)
    exposures = np.asarray(np.bincount(codes, own, units), np.float64)
    bottoms = {
        "naive": clicked.by_unit(clicked.own, units),
        "ips": exposures,
        "snips": clicked.by_unit(clicked.inverse, units),
        "dr": exposures,
    }
    predicted = sigmoid(odds)
    interval = float(label.sum()) >= LEAST_CONVERSIONS
    found = {}
    for metric in DEBIASED:
        observed = label if metric == "mean" else cross_entropy(odds[places], label)
        expected = predicted if metric == "mean" else cross_entropy(odds, predicted)
        everywhere = np.asarray(np.bincount(codes, own * expected, units), np.float64)
        tops = _tops(clicked, observed, expected[places], everywhere)
        for estimator in ESTIMATORS:
            estimate = _ratio(tops[estimator], bottoms[estimator], level if interval else None)
            found[metric, estimator] = estimate
    return found


def _unusable(odds: Floats, propensity: Floats, own: Floats, places: NDArray[np.int64]) -> str | None:
    if not len(odds) or not float(own.sum()) > 0.0:
        return "no rows"
    if bool(np.isnan(np.min(odds))) or bool(np.isnan(np.min(propensity))):
        return "scores are not numbers"
    return None if len(places) else "no clicks"


def _tops(clicked: _Clicked, observed: Floats, expected: Floats, everywhere: Floats) -> Mapping[str, Floats]:
    """Return the numerators by unit: `observed` and `expected` on clicked rows, `everywhere` the sums of w m."""
    units = len(everywhere)
    # an infinite loss makes the estimate "infinite"; what else it touches on the way is not read
    with np.errstate(invalid="ignore"):
        weighted = clicked.by_unit(clicked.inverse * observed, units)
        residual = clicked.by_unit(clicked.inverse * (observed - expected), units)
    return {
        "naive": clicked.by_unit(clicked.own * observed, units),
        "ips": weighted,
        "snips": weighted,
        "dr": everywhere + residual,
    }


def _ratio(top: Floats, bottom: Floats, level: float | None) -> Estimate:
    """Return sum(top) / sum(bottom) with its interval, or without where `level` is None."""
    total = float(bottom.sum())
    if not (math.isfinite(total) and bool(np.all(np.isfinite(top)))):
        return Estimate.none("infinite")
    value, units = float(top.sum()) / total, len(top)
    estimate = Estimate.of(value)
    if level is None or units < 2:
        return estimate
    influence = (top - value * bottom) / total
    error = math.sqrt(units / (units - 1.0) * float(influence @ influence))
    if not error > 0.0:
        return estimate
    reach = normal_quantile(level) * error
    if value > _LOG_FROM * error:
        low, high = linked_interval(value, reach / value, reach / value, "log")
        return estimate.within(low, high, level, "influence function, log scale")
    return estimate.within(value - reach, value + reach, level, "influence function")
