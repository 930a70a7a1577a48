"""Metrics of the first K rows of each user's list: NDCG@K and Recall@K, averaged over users."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from postclick.metrics.curve import Floats, Label, check_scores, class_masses
from postclick.metrics.estimate import Estimate

__all__ = ["EmptyUser", "UserMeans", "ndcg", "recall_at", "user_ndcg", "user_recall"]

EmptyUser = Literal["skip", "zero", "one"]
"""What a user without a positive counts: nothing at all (the default), 0 or 1."""


@dataclass(frozen=True)
class UserMeans:
    """A number a user, U users by code.

    Parameters
    ----------
    value
        [U]; 0 for users that do not count.
    counted
        [U] 1 where the user counts, else 0.
    users, empty
        How many users have rows, and how many of them have no positive.
    """

    value: Floats
    counted: Floats
    users: int
    empty: int

    @property
    def estimate(self) -> Estimate:
        """The mean over the users that count, each with weight 1."""
        if not self.users:
            return Estimate.none("no rows")
        total = float(self.counted.sum())
        return Estimate.of(float(self.value.sum()) / total) if total > 0 else Estimate.none("no positives")


def user_ndcg(
    odds: Floats,
    label: Label,
    user: NDArray[np.integer],
    k: int,
    weight: Floats | None = None,
    *,
    empty: EmptyUser = "skip",
) -> UserMeans:
    """Return NDCG@K of every user; see `ndcg`."""
    discount = 1.0 / np.log2(np.arange(k) + 2.0)
    ranked = _Ranked.of(odds, label, user, weight)
    best = _Ranked.of(ranked.gain, label, user, weight)  # the gains themselves as scores
    return ranked.means(ranked.collected(discount), best.collected(discount), empty)


def user_recall(
    odds: Floats,
    label: Label,
    user: NDArray[np.integer],
    k: int,
    weight: Floats | None = None,
    *,
    empty: EmptyUser = "skip",
) -> UserMeans:
    """Return Recall@K of every user; see `recall_at`."""
    ranked = _Ranked.of(odds, label, user, weight)
    return ranked.means(ranked.collected(np.ones(k)), ranked.total, empty)


def ndcg(
    odds: Floats,
    label: Label,
    user: NDArray[np.integer],
    k: int,
    weight: Floats | None = None,
    *,
    empty: EmptyUser = "skip",
) -> Estimate:
    """Return the mean over users of DCG@K / best DCG@K, DCG@K = sum over places j <= K of gain_j / log2(j + 1).

    Rows of equal score share the places they take, so each counts the mean of their discounts and the result does not
    depend on their order (McSherry and Najork 2008).

    Parameters
    ----------
    odds
        [B] scores, any monotone scale; not NaN.
    label
        [B] 0/1, or soft labels in [0, 1]; times the weight it is the gain.
    user
        [B] integer codes from 0.
    k
        K, at least 1.
    weight
        [B] sample weights. They scale gains; places are counted in rows, and users count alike.
    empty
        What a user without a positive counts; the mean changes by as much as their share.

    Returns
    -------
    Estimate
        In [0, 1]; undefined where no user counts. Source: Jarvelin and Kekalainen (2002).
    """
    return user_ndcg(odds, label, user, k, weight, empty=empty).estimate


def recall_at(
    odds: Floats,
    label: Label,
    user: NDArray[np.integer],
    k: int,
    weight: Floats | None = None,
    *,
    empty: EmptyUser = "skip",
) -> Estimate:
    """Return the mean over users of (gain among the K rows of highest score) / (gain of all rows).

    Parameters, ties and range as in `ndcg`. A user with more than K positives cannot reach 1.
    """
    return user_recall(odds, label, user, k, weight, empty=empty).estimate


@dataclass(frozen=True)
class _Ranked:
    """Rows by user, then by falling score.

    Parameters
    ----------
    gain
        [B] weight x label, in the order of the rows as they came.
    owner, first, size, part
        A group of rows of one user and one score: its user, place of its first row in the user's list (from 0), rows,
        and sum of gains.
    total
        [U] gains of each user.
    present
        bool [U], users with rows.
    """

    gain: Floats
    owner: NDArray[np.int64]
    first: NDArray[np.int64]
    size: NDArray[np.int64]
    part: Floats
    total: Floats
    present: NDArray[np.bool_]

    @classmethod
    def of(cls, odds: Floats, label: Label, user: NDArray[np.integer], weight: Floats | None) -> _Ranked:
        check_scores(odds)
        gain, _ = class_masses(label, weight)
        order = np.lexsort((-np.asarray(odds, np.float64), user))
        codes, scores = user[order].astype(np.int64), odds[order]
        new_user = np.concatenate([[True], codes[1:] != codes[:-1]])[: len(codes)]
        starts = np.flatnonzero(new_user | np.concatenate([[True], scores[1:] != scores[:-1]])[: len(codes)])
        size = np.diff(np.append(starts, len(codes)))
        begin = np.flatnonzero(new_user)
        place = starts - np.repeat(begin, np.diff(np.append(begin, len(codes))))[starts]
        part = np.add.reduceat(gain[order], starts) if len(starts) else np.zeros(0)
        rows = np.bincount(user)
        return cls(
            gain, codes[starts], place, size, part, np.asarray(np.bincount(user, gain, len(rows)), np.float64), rows > 0
        )

    def collected(self, discount: Floats) -> Floats:
        """Return the sum over each user's rows of gain x discount of its place, [U]; 0 from place len(discount) on."""
        until = np.concatenate([[0.0], np.cumsum(discount)])
        last = len(discount)
        inside = until[np.minimum(self.first + self.size, last)] - until[np.minimum(self.first, last)]
        return np.asarray(np.bincount(self.owner, self.part * inside / self.size, len(self.total)), np.float64)

    def means(self, top: Floats, bottom: Floats, empty: EmptyUser) -> UserMeans:
        """Return top / bottom a user, and what `empty` says where there is no gain."""
        positive = self.total > 0
        alone = self.present & ~positive
        value = np.divide(top, bottom, out=np.zeros_like(top), where=positive)
        value[alone] = 1.0 if empty == "one" else 0.0
        counted = self.present if empty != "skip" else positive
        return UserMeans(value, counted.astype(np.float64), int(self.present.sum()), int(alone.sum()))
