"""Propensities of ratings, P(a pair is rated): from counts alone, or from a slice of ratings of random items."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import fmin_l_bfgs_b
from scipy.special import expit

from postclick.data.hashing import unit_interval
from postclick.data.sources.exposure_space import ExposureSpace, Pairs

__all__ = ["PropensityName", "RatingPropensity", "logistic", "naive_bayes", "popularity", "slice_users"]

PropensityName = Literal["popularity", "logistic", "naive-bayes"]
Floats = NDArray[np.float64]
SLICE_SHARE = 0.05
_SLICE_SEED = 0x51CE5
_MOST_VALUES = 16
"""More different ratings than this are a measurement (a watch ratio); then only the side of the threshold counts."""
_RIDGE = 1.0
_LEAST = 1e-6


class RatingPropensity(Protocol):
    """P(rated) of pairs."""

    def __call__(self, pairs: Pairs) -> Floats:
        """Return it in (0, 1], one a pair."""


def slice_users(users: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return 5 % of the users of the random ratings, rounded up: those of the smallest hashes."""
    distinct = np.unique(users)
    order = np.argsort(unit_interval(distinct, _SLICE_SEED), kind="stable")
    return np.sort(distinct[order[: math.ceil(SLICE_SHARE * len(distinct))]])


@dataclass(frozen=True)
class _OfSides:
    """sigmoid(a_u + b_i)."""

    user: Floats
    item: Floats

    def __call__(self, pairs: Pairs) -> Floats:
        return np.asarray(np.maximum(expit(self.user[pairs.user] + self.item[pairs.item]), _LEAST), np.float64)


@dataclass(frozen=True)
class _OfRating:
    """P(rated | rating) of the pairs with a rating, one number for all others."""

    values: Floats
    known: Floats
    unrated: float
    threshold: float | None

    def __call__(self, pairs: Pairs) -> Floats:
        place = np.minimum(np.searchsorted(self.values, _levels(pairs.value, self.threshold)), len(self.values) - 1)
        return np.where(pairs.click & ~np.isnan(pairs.value), self.known[place], self.unrated)


def _levels(value: Floats, threshold: float | None) -> Floats:
    """Return the ratings, or, given a threshold, 1 at and over it and 0 under it."""
    return value if threshold is None else (value >= threshold).astype(np.float64)


def popularity(space: ExposureSpace) -> RatingPropensity:
    """Return p_ui = (n_i + c) / (U + 1): the share of users that rated the item, and one user of the mean share c.

    Parameters
    ----------
    space
        n_i ratings of each item by U users; c = ratings / pairs.
    """
    _, item = space.counts()
    share = (item + len(space.pair) / len(space)) / (len(space.users) + 1.0)
    with np.errstate(divide="ignore"):  # every pair rated: odds of infinity
        odds = np.log(np.maximum(share, _LEAST)) - np.log1p(-share)
    return _OfSides(np.zeros(len(space.users)), odds)


def logistic(space: ExposureSpace) -> RatingPropensity:
    """Return p_ui = sigmoid(c + a_u + b_i), the logistic regression on user and item (Rasch 1960), ridge 1 on a and b.

    Users of equally many ratings have one a, items likewise, so the fit works on the different counts: exact, and a
    few thousand numbers for any number of pairs. The mean of p over all pairs is the share of rated ones.

    Parameters
    ----------
    space
        At least one pair has a rating.
    """
    counts = space.counts()
    (user_count, user_group, users), (item_count, item_group, items) = (
        np.unique(side, return_inverse=True, return_counts=True) for side in counts
    )
    rate = min(max(len(space.pair) / len(space), _LEAST), 1.0 - _LEAST)
    cut = len(users) + 1

    def loss(point: Floats) -> tuple[float, Floats]:
        c, a, b = point[0], point[1:cut], point[cut:]
        odds = c + a[:, None] + b  # [user groups, item groups]
        p = expit(odds)
        cells = users @ np.logaddexp(0.0, odds) @ items
        value = cells - c * len(space.pair) - a @ (users * user_count) - b @ (items * item_count)
        value += _RIDGE / 2 * (a**2 @ users + b**2 @ items)
        of_user = users * (p @ items - user_count + _RIDGE * a)
        of_item = items * (users @ p - item_count + _RIDGE * b)
        overall = users @ p @ items - len(space.pair)
        return float(value), np.concatenate([[overall], of_user, of_item])

    start = np.zeros(1 + len(users) + len(items))
    start[0] = math.log(rate) - math.log1p(-rate)
    point, _, _ = fmin_l_bfgs_b(loss, start, factr=10.0, pgtol=1e-6, maxiter=2000, maxfun=4000)
    return _OfSides(point[0] + point[1:cut][user_group], point[cut:][item_group])


def naive_bayes(space: ExposureSpace, slice_values: Floats, threshold: float) -> RatingPropensity:
    """Return P(rated | r) = P(r | rated) P(rated) / P(r), with P(r) from ratings of random items.

    Source: Schnabel et al. (2016), section 5. Each level of the rating is counted once more than it occurs, on both
    sides; of more than 16 different ratings only the side of the threshold counts. A pair without a rating gets what
    makes the mean over all pairs the share of rated ones; no weight divides by it.

    Parameters
    ----------
    space
        P(r | rated) and P(rated).
    slice_values
        Ratings of random items, which are then test rows of nobody.
    threshold
        Of a conversion.
    """
    observed, drawn = (side[~np.isnan(side)] for side in (space.value, slice_values))
    cut = threshold if len(np.unique(np.concatenate([observed, drawn]))) > _MOST_VALUES else None
    observed, drawn = _levels(observed, cut), _levels(drawn, cut)
    values = np.unique(np.concatenate([observed, drawn]))
    given, every = (_shares(side, values) for side in (observed, drawn))
    rate = len(space.pair) / len(space)
    known = np.clip(given * rate / every, _LEAST, 1.0)
    clicked = known[np.searchsorted(values, observed)].sum()
    others = len(space) - len(space.pair)
    unrated = (rate * len(space) - clicked) / others if others else rate
    return _OfRating(values, known, float(np.clip(unrated, _LEAST, 1.0)), cut)


def _shares(found: Floats, values: Floats) -> Floats:
    counts = np.bincount(np.searchsorted(values, found), minlength=len(values)) + 1.0
    return np.asarray(counts / counts.sum(), np.float64)
