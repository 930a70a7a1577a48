"""Is one system better than another on the same rows? Variance over seeds and users, several tests at once, words.

Let d_s be the difference of two systems' metrics under seed s, S seeds a system, on the same test rows, and x_us what
unit (user) u adds to it. Seeds and users are crossed, so with T(x) the clustered variance of a linear statistic

    var(mean d) = var_s(d_s) / S + max(0, T(mean_s x_us) - I),   I = [mean_s T(x_us) - T(mean_s x_us)] / (S - 1):

seed variance over S plus the test variance of the seed-mean difference. I is the share of the second term that the
first one already holds: users who like one seed better than another move d_s too (the interaction of a two-way layout,
Searle et al. 1992; without this, equal systems get intervals up to 1.4 times too wide). The interval is Student's t,
its degrees of freedom Satterthwaite's (1946) over the two parts, the seed part with more weight (`Contrast.df`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, product

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit

from postclick.metrics.curve import Floats
from postclick.metrics.influence import Influence

__all__ = ["Contrast", "Distance", "Needed", "contrast", "holm", "letters", "needed", "satterthwaite"]


def satterthwaite(variances: Sequence[float], freedoms: Sequence[float]) -> float:
    """Return the degrees of freedom of a sum of independent variance estimates.

    (sum V_k)^2 / sum (V_k^2 / df_k); infinite where every part is 0. Source: Satterthwaite (1946).
    """
    below = sum(part * part / freedom for part, freedom in zip(variances, freedoms, strict=True) if part > 0.0)
    return sum(variances) ** 2 / below if below > 0.0 else math.inf


@dataclass(frozen=True)
class Contrast:
    """A difference (or sum) of two systems' metrics, with the two parts of its variance.

    Parameters
    ----------
    value
        The difference of the seed means.
    seed_variance
        Variance of the seed means over seeds: seed variance / S. 0 with one seed, where it cannot be known.
    test_variance
        Variance over test users (rows) that the seeds do not hold already.
    seed_df, test_df
        Degrees of freedom of the two.
    """

    value: float
    seed_variance: float
    test_variance: float
    seed_df: float
    test_df: float

    @property
    def variance(self) -> float:
        """Variance of the difference."""
        return self.seed_variance + self.test_variance

    @property
    def df(self) -> float:
        """Degrees of freedom by Satterthwaite, the seed part's weight raised by 1 + 3 / (its own).

        Of few seeds, the draws that agree by chance give a small variance and, as it is small, many degrees of freedom
        as well: plain Satterthwaite covers 92 % at worst with 3 seeds and 87 % with 2. So weighted it covers 94 % and
        92 % at worst, and never over 96.5 % (normal seeds and users, 300,000 draws for each share of seed variance).
        """
        raised = self.seed_variance * (1.0 + 3.0 / self.seed_df)
        return satterthwaite((raised, self.test_variance), (self.seed_df, self.test_df))

    @property
    def limiting(self) -> Contrast:
        """The contrast whose significance decides: itself."""
        return self

    @property
    def p(self) -> float:
        """Two-sided p-value of no difference; nan where there is no variance."""
        if math.isnan(self.variance):
            return math.nan
        if self.variance == 0.0:
            return 1.0 if self.value == 0.0 else 0.0
        return 2.0 * student_cdf(self.df, -abs(self.value) / math.sqrt(self.variance))

    def interval(self, level: float) -> tuple[float, float]:
        """Return the interval at `level`; (nan, nan) where there is no variance."""
        if not self.variance > 0.0:
            return self.value + self.variance, self.value + self.variance
        half = student_quantile(self.df, 1.0 - level) * math.sqrt(self.variance)
        return self.value - half, self.value + half


@dataclass(frozen=True)
class Distance:
    """|a| - |b| of two logarithms of PCOC: how much farther from calibration the first system is.

    With d = a - b and s = a + b it is sign(d s) min(|d|, |s|). The interval is the image of the two intervals of d and
    s, and covers at least as often as each: away from a = 0 and b = 0 one of the two decides; at a = 0 or b = 0 what
    one end misses more the other misses less; and the image leaves out 0 only where both intervals do (an
    intersection-union test, Berger 1982). There is no derivative at 0 to get wrong.

    Parameters
    ----------
    difference, total
        The contrasts d and s.
    """

    difference: Contrast
    total: Contrast

    @property
    def value(self) -> float:
        """|a| - |b|."""
        return _folded(self.difference.value, self.total.value)

    @property
    def limiting(self) -> Contrast:
        """The less significant of the two: where it tells, both tell."""
        return max(self.difference, self.total, key=lambda contrast: contrast.p)

    @property
    def p(self) -> float:
        """Two-sided p-value of equal distances."""
        return self.limiting.p

    def interval(self, level: float) -> tuple[float, float]:
        """Return the interval at `level`."""
        ends = self.difference.interval(level), self.total.interval(level)
        corners = [_folded(d, s) for d, s in product(*ends)]
        if any(low <= 0.0 <= high for low, high in ends):
            corners.append(0.0)
        return min(corners), max(corners)


def _folded(difference: float, total: float) -> float:
    size = min(abs(difference), abs(total))
    return math.copysign(size, difference) * math.copysign(1.0, total) if size > 0.0 else size


def student_cdf(df: float, value: float) -> float:
    """Return P(t <= value) of Student's t; df may be infinite."""
    return float(stdtr(min(df, 1e9), value))


def student_quantile(df: float, alpha: float) -> float:
    """Return the number that |t| exceeds with probability `alpha`; df may be infinite."""
    return float(-stdtrit(min(df, 1e9), alpha / 2.0))


def contrast(one: Sequence[Influence], other: Sequence[Influence], *, sign: float = -1.0) -> Contrast:
    """Return mean(one) + sign mean(other) over seeds, with its variance; see the module.

    Parameters
    ----------
    one, other
        One influence a seed, on the same rows and units. As many on both sides: seeds are paired in the order given.
        Otherwise they are independent samples, and their seed variances add (Welch 1947).
    sign
        -1 for the difference, 1 for the sum.
    """
    values = [np.array([entry.value for entry in side]) for side in (one, other)]
    parts = [np.stack([entry.parts for entry in side]) for side in (one, other)]
    if len(one) == len(other):
        values, parts = [values[0] + sign * values[1]], [parts[0] + sign * parts[1]]
    else:
        values[1], parts[1] = sign * values[1], sign * parts[1]
    factors = one[0].factors
    mean = np.sum([part.mean(axis=0) for part in parts], axis=0)
    whole = _quadratic(mean, factors)
    shares, freedoms, interaction = [], [], 0.0
    for value, part in zip(values, parts, strict=True):
        seeds = len(value)
        if seeds > 1:
            shares.append(float(value.var(ddof=1)) / seeds)
            freedoms.append(seeds - 1.0)
            spread = np.mean([_quadratic(own, factors) for own in part]) - _quadratic(part.mean(axis=0), factors)
            interaction += float(spread) / (seeds - 1)
    test = whole if math.isnan(whole) else max(0.0, whole - interaction)
    total = float(sum(value.mean() for value in values))
    return Contrast(total, sum(shares), test, satterthwaite(shares, freedoms), _unit_freedom(mean))


def _quadratic(parts: Floats, factors: Floats) -> float:
    """Clustered variance of a linear statistic: sum_pq factors_pq (parts_p . parts_q)."""
    return float(np.sum(factors * (parts @ parts.T)))


def _unit_freedom(parts: Floats) -> float:
    """Degrees of freedom of the clustered variance: 2 / relative variance of sum x_u^2, at most U - 1.

    The relative variance is sum x^4 / (sum x^2)^2 - 1 / U. Normal x_u give U; a few users that carry the whole metric
    count as few.
    """
    square = np.sum(parts, axis=0) ** 2
    units, total = len(square), float(square.sum())
    if not total > 0.0 or units < 2:
        return math.inf
    relative = float(square @ square) / total**2 - 1.0 / units
    return max(1.0, min(units - 1.0, 2.0 / relative if relative > 0.0 else math.inf))


def holm(p: Sequence[float]) -> NDArray[np.float64]:
    """Return p-values adjusted for all tests of a table by Holm (1979), not capped at 1; nan stays nan.

    The k-th smallest of m becomes max over j <= k of (m - j + 1) p_(j): rejecting those under alpha errs anywhere in
    the table with probability at most alpha, whatever the dependence.
    """
    values = np.asarray(p, np.float64)
    result = np.full(len(values), math.nan)
    tested = np.flatnonzero(~np.isnan(values))
    order = tested[np.argsort(values[tested], kind="stable")]
    result[order] = np.maximum.accumulate(values[order] * np.arange(len(order), 0, -1))
    return result


@dataclass(frozen=True)
class Needed:
    """What more it takes to tell a difference as large as the observed one.

    Parameters
    ----------
    rows
        Factor on the test rows less 1: 0.5 is half as many again; 0 if rows do not matter.
    seeds
        The same of seeds.
    """

    rows: float
    seeds: float


def needed(found: Contrast, alpha: float) -> Needed | None:
    """Return how many more test rows (or seeds) would make the half width of the interval equal the difference.

    Half width h = t sqrt(V_seed + V_test), t the quantile at `alpha`. More rows shrink V_test alone, more seeds V_seed
    alone. If rows can do it, V_test / ((d / t)^2 - V_seed) - 1, which is (h / d)^2 - 1 where V_seed = 0; else if seeds
    can do it, the mirror image; else both grow by (h / d)^2 - 1.

    Returns
    -------
    Needed or None
        None where the difference is 0 or has no variance.
    """
    if not found.variance > 0.0 or found.value == 0.0:
        return None
    reach = (found.value / student_quantile(found.df, alpha)) ** 2
    if found.seed_variance < reach:
        return Needed(max(0.0, found.test_variance / (reach - found.seed_variance) - 1.0), 0.0)
    if found.test_variance < reach:
        return Needed(0.0, max(0.0, found.seed_variance / (reach - found.test_variance) - 1.0))
    more = found.variance / reach - 1.0
    return Needed(more, more)


def letters(apart: NDArray[np.bool_]) -> list[str]:
    """Return letters a system such that two systems share a letter exactly where they cannot be told apart.

    Parameters
    ----------
    apart
        [K, K] symmetric: true where the two are told apart. Best system first, so that it carries the ``a``.

    Returns
    -------
    list
        [K] for instance ``["a", "ab", "b"]``. Source: insert-and-absorb, Piepho (2004).
    """
    groups = [frozenset(range(len(apart)))]
    for pair in combinations(range(len(apart)), 2):
        if apart[pair]:
            split = [group - {system} for group in groups if group.issuperset(pair) for system in pair]
            kept = [group for group in groups if not group.issuperset(pair)]
            groups = kept
            for group in sorted(split, key=len, reverse=True):
                if not any(group <= other for other in groups):
                    groups.append(group)
    ordered = sorted(groups, key=sorted)
    names = [_letter(index) for index in range(len(ordered))]
    return [
        "".join(name for name, group in zip(names, ordered, strict=True) if system in group)
        for system in range(len(apart))
    ]


def _letter(index: int) -> str:
    """``a`` to ``z``, then ``a1`` to ``z1``, ..."""
    turn, place = divmod(index, 26)
    return chr(ord("a") + place) + (str(turn) if turn else "")
