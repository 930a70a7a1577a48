"""Metrics of order: AUC, AUC by user, area under the precision-recall curve."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from postclick.metrics.curve import Curve, Floats, Label, check_scores, class_masses, curve_of, tie_starts
from postclick.metrics.estimate import Estimate

__all__ = ["UserRanking", "auc", "curve_auc", "curve_pr_auc", "gauc", "pr_auc", "user_ranking"]


def curve_auc(ranked: Curve) -> Estimate:
    """Return the AUC of rows that are already sorted; see `auc`."""
    reason = ranked.missing(both=True)
    if reason:
        return Estimate.none(reason)
    negatives = ranked.negatives
    below = negatives - np.cumsum(ranked.negative)
    wins = float(np.sum(ranked.positive * (2.0 * below + ranked.negative)))
    return Estimate.of(wins / (2.0 * ranked.positives * negatives))


def auc(odds: Floats, label: Label, weight: Floats | None = None) -> Estimate:
    """Return P(score of a positive > score of a negative) + P(equal) / 2, exact with ties.

    AUC = sum_ij a_i b_j ([s_i > s_j] + [s_i = s_j] / 2) / (sum a  sum b), a = w p, b = w (1 - p), O(B log B).

    Parameters
    ----------
    odds
        [B] scores, any monotone scale; not NaN.
    label
        [B] 0/1, or soft labels in [0, 1]; a soft row meets itself as a tie.
    weight
        [B] sample weights; weight 2 is the row twice.

    Returns
    -------
    Estimate
        In [0, 1]; undefined without positives, negatives or rows. Source: Mann and Whitney (1947).
    """
    return curve_auc(curve_of(odds, label, weight))


def curve_pr_auc(ranked: Curve) -> Estimate:
    """Return the average precision of rows that are already sorted; see `pr_auc`."""
    reason = ranked.missing(both=False)
    if reason:
        return Estimate.none(reason)
    hits = np.cumsum(ranked.positive)
    taken = hits + np.cumsum(ranked.negative)
    precision = np.divide(hits, taken, out=np.zeros_like(hits), where=taken > 0)
    return Estimate.of(float(np.sum(ranked.positive * precision)) / float(hits[-1]))


def pr_auc(odds: Floats, label: Label, weight: Floats | None = None) -> Estimate:
    """Return average precision: sum over thresholds of (recall gained) x precision, ties taken together.

    Parameters and range as in `auc`; undefined without positives. No interpolation between thresholds, which would
    flatter it (Davis and Goadrich 2006).
    """
    return curve_pr_auc(curve_of(odds, label, weight))


@dataclass(frozen=True)
class UserRanking:
    """AUC user by user, U users by code.

    Parameters
    ----------
    wins
        [U] rows' mass x AUC of the user; 0 for skipped users.
    mass
        [U] rows' mass of the users that have both classes; 0 for skipped users.
    users, skipped
        How many users have rows, and how many of them were skipped because they have one class.
    """

    wins: Floats
    mass: Floats
    users: int
    skipped: int

    @property
    def estimate(self) -> Estimate:
        """GAUC = sum_u mass_u AUC_u / sum_u mass_u."""
        if not self.users:
            return Estimate.none("no rows")
        total = float(self.mass.sum())
        return Estimate.of(float(self.wins.sum()) / total) if total > 0 else Estimate.none("no user has both classes")


def user_ranking(odds: Floats, label: Label, user: NDArray[np.integer], weight: Floats | None = None) -> UserRanking:
    """Return the AUC of every user; see `gauc`."""
    check_scores(odds)
    positive, negative = class_masses(label, weight)
    up, down = np.bincount(user, positive), np.bincount(user, negative)
    mixed = (up > 0) & (down > 0)
    users = int(np.count_nonzero(up + down > 0))
    wins = np.zeros(len(up))
    rows = np.flatnonzero(mixed[user])
    if len(rows):
        codes, scores = user[rows], odds[rows]
        order = _by_user_and_score(codes, scores)
        rows, codes, scores = rows[order], codes[order], scores[order]
        starts = np.flatnonzero(
            np.concatenate([[True], (scores[1:] != scores[:-1]) | (codes[1:] != codes[:-1])]),
        )
        a, b = (np.add.reduceat(mass[rows], starts) for mass in (positive, negative))
        owner = codes[starts]
        first = tie_starts(owner)
        before = np.cumsum(b) - b
        before -= np.repeat(before[first], np.diff(np.append(first, len(owner))))
        wins += np.bincount(owner, a * (before + b / 2.0), minlength=len(up))
    pairs = np.where(mixed, up * down, 1.0)
    mass = np.where(mixed, up + down, 0.0)
    return UserRanking(wins / pairs * mass, mass, users, users - int(np.count_nonzero(mixed)))


def _by_user_and_score(codes: NDArray[np.integer], scores: Floats) -> NDArray[np.int64]:
    """Return the order by user, then score: one sort, then a counting sort (a coordinate matrix turned to rows)."""
    order = np.argsort(scores, kind="stable")
    places = (codes[order].astype(np.int64), np.arange(len(order)))
    by_user = sparse.csr_array((np.ones(len(order), np.int8), places))
    return np.asarray(order[by_user.indices], np.int64)


def gauc(odds: Floats, label: Label, user: NDArray[np.integer], weight: Floats | None = None) -> Estimate:
    """Return the mean of the users' AUCs, each user weighted by its rows (by their sample weights).

    GAUC = sum_u n_u AUC_u / sum_u n_u over users with both classes; users of one class are skipped
    (`user_ranking` counts them).

    Parameters
    ----------
    odds, label, weight
        As in `auc`.
    user
        [B] integer codes from 0.

    Returns
    -------
    Estimate
        In [0, 1]. Source: Zhou et al. (2018), section 5.3.
    """
    return user_ranking(odds, label, user, weight).estimate
