"""Calibration by bins: the reliability table, and ECE shown against its null band."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from postclick.metrics.curve import Floats, Label, hard_labels
from postclick.metrics.estimate import Estimate, normal_quantile
from postclick.metrics.probability import sigmoid

__all__ = ["Reliability", "clustered_squares", "ece", "reliability_table"]

BINS = 15
_NULL_DRAWS = 2000
_DENSE_CELLS = 1 << 24


@dataclass(frozen=True)
class Reliability:
    """Predicted against observed, bin by bin from low to high scores; K bins.

    Parameters
    ----------
    predicted, observed
        [K] sums of w q and of w p.
    mass
        [K] sums of w.
    spread
        [K] variance of `observed` if every q were right: sums of w^2 q (1 - q).
    rows
        [K] rows.
    clustered
        [K] variance of `observed` around its own mean rate, over units: sums of (sum of w (p - rate))^2.
    """

    predicted: Floats
    observed: Floats
    mass: Floats
    spread: Floats
    rows: Floats
    clustered: Floats

    @property
    def ece(self) -> float:
        """Sum over bins of |predicted - observed| over all mass."""
        return float(np.abs(self.predicted - self.observed).sum() / self.mass.sum())

    def rates(self, level: float = 0.95) -> tuple[Floats, Floats, Floats, Floats]:
        """Return mean prediction, observed rate, and the ends of the rate's interval, [K] each.

        Wilson's (1927) score interval at the effective number of rows: rate (1 - rate) / variance of the rate, the
        variance clustered by unit, never more than the rows there are.
        """
        predicted, rate = self.predicted / self.mass, self.observed / self.mass
        own = rate * (1.0 - rate)
        with np.errstate(divide="ignore", invalid="ignore"):
            effective = own * self.mass**2 / self.clustered
        worth = np.where(np.isfinite(effective) & (own > 0.0), np.minimum(effective, self.rows), self.rows)
        z = normal_quantile(level)
        center = (rate + z**2 / (2.0 * worth)) / (1.0 + z**2 / worth)
        half = z / (1.0 + z**2 / worth) * np.sqrt(own / worth + z**2 / (4.0 * worth**2))
        return predicted, rate, np.maximum(center - half, 0.0), np.minimum(center + half, 1.0)


def reliability_table(
    odds: Floats,
    label: Label,
    weight: Floats | None = None,
    bins: int = BINS,
    unit: NDArray[np.integer] | None = None,
) -> Reliability:
    """Return the reliability table in bins of equal mass.

    Equal scores share a bin and one without mass is left out, so there may be fewer.

    Parameters
    ----------
    odds
        [B] log-odds of the predicted probability q, B > 0.
    label
        [B] 0/1, or soft labels p.
    weight
        [B] sample weights; None is 1.
    bins
        How many at most.
    unit
        [B] codes of independent units (users), for `Reliability.rates`; None makes every row one.
    """
    place = np.searchsorted(_cuts(odds, weight, bins), odds, side="left")
    predicted = sigmoid(odds)
    own = np.ones(len(odds)) if weight is None else weight
    columns = (own * predicted, own * np.asarray(label, np.float64), own, own**2 * predicted * (1.0 - predicted))
    sums = [np.asarray(np.bincount(place, column, bins), np.float64) for column in columns]
    rows = np.bincount(place, minlength=bins).astype(np.float64)
    keep = sums[2] > 0.0  # a bin whose rows all have weight 0 says nothing
    predicted_sum, observed, mass, spread = (column[keep] for column in sums)
    rate = np.divide(sums[1], sums[2], out=np.zeros(bins), where=sums[2] > 0)
    noise = own * (np.asarray(label, np.float64) - rate[place])
    clustered = clustered_squares(noise, place, unit, bins)[keep]
    return Reliability(predicted_sum, observed, mass, spread, rows[keep], clustered)


def clustered_squares(
    residual: Floats, code: NDArray[np.integer], unit: NDArray[np.integer] | None, codes: int
) -> Floats:
    """Return sum over units of (sum of residuals)^2, for each code, [codes].

    Parameters
    ----------
    residual
        [B].
    code
        [B] 0 to `codes` - 1.
    unit
        [B] codes of units; None makes every row one.
    codes
        How many.
    """
    if unit is None:
        return np.asarray(np.bincount(code, residual**2, codes), np.float64)
    units = int(unit.max(initial=-1)) + 1
    cell = code.astype(np.int64) * units + unit
    if codes * units > _DENSE_CELLS:
        held, cell = np.unique(cell, return_inverse=True)
        return np.asarray(np.bincount(held // units, np.bincount(cell, residual) ** 2, codes), np.float64)
    sums = np.bincount(cell, residual, codes * units).reshape(codes, units)
    return np.asarray((sums**2).sum(axis=1), np.float64)


def _cuts(odds: Floats, weight: Floats | None, bins: int) -> Floats:
    """Return the highest score of each bin but the last."""
    rows = len(odds)
    if weight is None:
        ends = np.maximum(rows * np.arange(1, bins) // bins - 1, 0)
        return np.unique(np.partition(odds, ends)[ends])
    order = np.argsort(odds, kind="stable")
    mass = np.cumsum(weight[order])
    # the last row whose running mass is at most k / bins of all, as above; the tolerance absorbs the sum's rounding
    ends = np.searchsorted(mass, mass[-1] * np.arange(1, bins) / bins * (1.0 + 1e-12), side="right") - 1
    return np.unique(odds[order][np.maximum(ends, 0)])


def ece(
    odds: Floats, label: Label, weight: Floats | None = None, *, bins: int = BINS, level: float = 0.95, seed: int = 0
) -> Estimate:
    """Return the expected calibration error with its null band.

    ECE = sum_k |sum_k w q - sum_k w p| / sum w over bins of equal mass, in [0, 1]. It is biased upwards: noise alone
    gives a positive ECE. `low` and `high` are therefore not an interval of the ECE but the band where `level` of the
    ECEs of perfectly calibrated scores would lie with these predictions, independent rows (by 2,000 seeded draws:
    binomial bin counts, normal ones under sample weights). No coverage is claimed; soft labels have no noise, no band.

    Parameters
    ----------
    odds, label, weight, bins
        As in `reliability_table`.
    level, seed
        Of the null band; equal seeds give equal bits.

    Returns
    -------
    Estimate
        Undefined without rows. Source: Naeini et al. (2015); null band after Vaicenavicius et al. (2019).
    """
    if not len(odds) or (weight is not None and not float(np.sum(weight)) > 0.0):
        return Estimate.none("no rows")
    table = reliability_table(odds, label, weight, bins)
    estimate = Estimate.of(table.ece)
    method = f"{len(table.mass)} bins of equal mass"
    if estimate.value is None or hard_labels(label) is None:
        return Estimate(estimate.value, estimate.undefined, method=method)
    rng = np.random.default_rng(seed)
    size = (_NULL_DRAWS, len(table.mass))
    if weight is None:
        rate = np.clip(table.predicted / table.rows, 0.0, 1.0)
        noise = rng.binomial(table.rows.astype(np.int64), rate, size) - table.predicted
    else:
        noise = rng.normal(0.0, np.sqrt(table.spread), size)
    null = np.abs(noise).sum(axis=1) / table.mass.sum()
    low, high = np.quantile(null, [(1.0 - level) / 2.0, (1.0 + level) / 2.0])
    return estimate.within(low, high, level, f"null band of calibrated scores, {method}")
