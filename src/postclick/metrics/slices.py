"""Calibration by the values of a column: Field-RCE, tests of every slice, ratios shrunk towards each other.

Z slices, numbered from 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaincinv, gammaln, ndtr

from postclick.metrics.curve import Floats, Label, hard_labels
from postclick.metrics.estimate import Estimate, normal_quantile
from postclick.metrics.probability import sigmoid
from postclick.metrics.reliability import clustered_squares

__all__ = ["Shrunken", "SliceSums", "field_rce", "shrunken", "slice_sums"]

LEAST_EXPECTED = 10.0
"""A slice is tested where at least so many positives are predicted and observed (by effective number)."""
SMOOTHING = 0.01
"""Positives a slice is granted in Field-RCE, the paper's epsilon."""
_NULL_DRAWS = 2000
_DRAWN_AT_ONCE = 1 << 24
_SHAPES = (-3.0, 14.0)


@dataclass(frozen=True)
class SliceSums:
    """Sums over the rows of each slice, [Z] each; q predictions, p labels, w sample weights.

    Parameters
    ----------
    rows
        Rows.
    mass
        sum w.
    predicted, observed
        sum w q and sum w p.
    square
        sum w^2 p: observed^2 / square positives of equal weight carry as much.
    spread
        Variance of `observed` were every q right and every row independent: sum w^2 q (1 - q).
    clustered
        sum over units of (sum w (q - p))^2.
    """

    rows: Floats
    mass: Floats
    predicted: Floats
    observed: Floats
    square: Floats
    spread: Floats
    clustered: Floats

    @property
    def variance(self) -> Floats:
        """Variance of predicted - observed: the clustered one, never under that of independent rows."""
        return np.maximum(self.clustered, self.spread)

    @property
    def positives(self) -> Floats:
        """Effective positives: observed^2 / square, 0 where there are none."""
        return np.divide(self.observed**2, self.square, out=np.zeros_like(self.square), where=self.square > 0)

    @property
    def tested(self) -> NDArray[np.bool_]:
        """Slices with enough predicted and observed positives for a normal test."""
        scale = np.divide(self.square, self.observed, out=np.ones_like(self.square), where=self.observed > 0)
        return (self.positives >= LEAST_EXPECTED) & (self.predicted / scale >= LEAST_EXPECTED)

    @property
    def p(self) -> Floats:
        """Two-sided p-value a slice of being calibrated in the mean; nan where it is not tested."""
        with np.errstate(divide="ignore", invalid="ignore"):
            z = np.abs(self.predicted - self.observed) / np.sqrt(self.variance)
        return np.where(self.tested, 2.0 * ndtr(-z), np.nan)

    def pcoc(self, level: float) -> tuple[Floats, Floats, Floats]:
        """Return predicted / observed and the interval of the test `p` inverted; nan where the slice is not tested.

        It holds the ratios t with |predicted - t observed| <= z sqrt(t V): were t true, t observed would be predicted
        in the mean and its variance t V, as that of counts grows with their mean. At t = 1 that is the test, so the
        interval leaves out 1 exactly where p < 1 - level. Solved for t it is

            predicted / observed  x  exp(+-2 asinh(z sqrt(V) / (2 sqrt(predicted observed)))).
        """
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = self.predicted / self.observed
            error = normal_quantile(level) * np.sqrt(self.variance)
            half = 2.0 * np.arcsinh(error / (2.0 * np.sqrt(self.predicted * self.observed)))
            ends = ratio * np.exp(-half), ratio * np.exp(half)
        low, high = (np.where(self.tested, end, np.nan) for end in ends)
        return np.where(self.observed > 0, ratio, np.nan), low, high


def slice_sums(
    odds: Floats,
    label: Label,
    code: NDArray[np.integer],
    weight: Floats | None = None,
    unit: NDArray[np.integer] | None = None,
) -> SliceSums:
    """Return the sums of each slice.

    Parameters
    ----------
    odds
        [B] log-odds of q.
    label
        [B] 0/1 or soft.
    code
        [B] slice, 0 to Z - 1.
    weight
        [B] sample weights; None is 1.
    unit
        [B] codes of independent units (users); None makes every row one.
    """
    slices = int(code.max(initial=-1)) + 1
    own = np.ones(len(odds)) if weight is None else weight
    chance, truth = sigmoid(odds), np.asarray(label, np.float64)
    residual = own * (chance - truth)
    columns = (own, own * chance, own * truth, own**2 * truth, own**2 * chance * (1.0 - chance))
    mass, predicted, observed, square, spread = (
        np.asarray(np.bincount(code, column, slices), np.float64) for column in columns
    )
    rows = np.bincount(code, minlength=slices).astype(np.float64)
    clustered = clustered_squares(residual, code, unit, slices)
    return SliceSums(rows, mass, predicted, observed, square, spread, clustered)


def field_rce(sums: SliceSums, label: Label, *, level: float = 0.95, seed: int = 0) -> Estimate:
    """Return Field-RCE with its null band.

    1 / W sum_z W_z |sum_z w q - sum_z w p| / (sum_z w p + .01), W_z the mass of slice z: how far off the slices are,
    relative to their positives, on average over rows. In [0, inf). Like ECE it is biased upwards, so `low` and `high`
    are the band of calibrated scores (seeded normal draws of every slice, independent rows), not an interval; slices
    with few positives dominate it. Soft labels have no noise, no band.

    Parameters
    ----------
    sums
        Of `slice_sums`.
    label
        The labels, to tell soft ones.
    level, seed
        Of the null band.

    Returns
    -------
    Estimate
        Undefined without rows. Source: Pan et al. (2020), eq. 6.
    """
    total = float(sums.mass.sum())
    if not total > 0.0:
        return Estimate.none("no rows")
    share = sums.mass / total
    estimate = Estimate.of(float(share @ (np.abs(sums.predicted - sums.observed) / (sums.observed + SMOOTHING))))
    method = f"{int(np.count_nonzero(sums.rows))} slices"
    if estimate.value is None or hard_labels(label) is None:
        return Estimate(estimate.value, estimate.undefined, method=method)
    rng = np.random.default_rng(seed)
    error, null = np.sqrt(sums.spread), []
    step = max(1, _DRAWN_AT_ONCE // max(len(error), 1))
    for start in range(0, _NULL_DRAWS, step):
        noise = rng.normal(0.0, 1.0, (min(step, _NULL_DRAWS - start), len(error))) * error
        null.append((np.abs(noise) / (np.maximum(sums.predicted + noise, 0.0) + SMOOTHING)) @ share)
    low, high = np.quantile(np.concatenate(null), [(1.0 - level) / 2.0, (1.0 + level) / 2.0])
    return estimate.within(low, high, level, f"null band of calibrated scores, {method}")


@dataclass(frozen=True)
class Shrunken:
    """PCOC of each slice, drawn towards that of all the more, the less the slice has seen.

    Parameters
    ----------
    value, low, high
        [Z] 1 / posterior mean of observed / predicted, and the ends of its posterior interval.
    center
        PCOC that slices are drawn to.
    spread
        Standard deviation of observed / predicted over slices, relative to its mean: 0 is no difference at all.
    """

    value: Floats
    low: Floats
    high: Floats
    center: float
    spread: float


def shrunken(sums: SliceSums, *, level: float = 0.95) -> Shrunken | None:
    """Return PCOC by slice with empirical-Bayes shrinkage (gamma-Poisson; Clayton and Kaldor 1987).

        observed_z ~ Poisson(r_z predicted_z),    r_z ~ Gamma(shape k, mean m),    PCOC_z = 1 / r_z

    k and m maximise the marginal (negative binomial) likelihood; the posterior of r_z is Gamma(k + observed_z,
    k / m + predicted_z). Under sample weights, and where the rows of a user are alike, both counts are first divided by
    the design effect, so that they are worth what they say.

    Parameters
    ----------
    sums
        Of `slice_sums`.
    level
        Of the posterior intervals.

    Returns
    -------
    Shrunken or None
        None without positives, or with fewer than two slices.
    """
    from scipy.optimize import minimize

    total = float(sums.observed.sum())
    if not total > 0.0 or len(sums.observed) < 2:
        return None
    effect = float(sums.square.sum()) / total * max(1.0, float(sums.clustered.sum() / max(sums.spread.sum(), 1e-300)))
    observed, predicted = sums.observed / effect, np.maximum(sums.predicted / effect, 1e-12)

    def surprise(point: Floats) -> float:
        mean, shape = np.exp(point)
        expected = mean * predicted
        parts = gammaln(shape + observed) - gammaln(shape) - (shape + observed) * np.log1p(expected / shape)
        return -float(np.sum(parts + observed * np.log(expected / shape)))

    start = [np.log(observed.sum() / predicted.sum()), 2.0]
    bounds = [(start[0] - 5.0, start[0] + 5.0), _SHAPES]
    mean, shape = np.exp(minimize(surprise, start, method="L-BFGS-B", bounds=bounds).x)
    alpha, rate = shape + observed, shape / mean + predicted
    tail = (1.0 - level) / 2.0
    low, high = (rate / gammaincinv(alpha, share) for share in (1.0 - tail, tail))
    return Shrunken(rate / alpha, low, high, float(1.0 / mean), float(1.0 / np.sqrt(shape)))
