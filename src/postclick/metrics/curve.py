"""Rows in the order of their scores, tied rows together: what every ranking metric reads; sorted once.

With hard labels and no weights only the positives are sorted against sorted runs of negatives, in threads (NumPy
sorts without the interpreter's lock), so 40 million rows take seconds; counts are integers, so neither the number of
threads nor the order of rows changes a bit of the result.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from postclick.errors import DataError, Finding
from postclick.execution import cores

__all__ = [
    "Curve",
    "Floats",
    "Label",
    "check_scores",
    "class_masses",
    "curve_of",
    "hard_labels",
    "summed_runs",
    "tie_starts",
]

Floats = NDArray[np.float64]
Label = NDArray[Any]
_STEP_ROWS = 1 << 20


@dataclass(frozen=True)
class Curve:
    """Masses of positives and negatives in tie groups, highest score first; G groups.

    Parameters
    ----------
    positive, negative
        [G] sums of weights; a group may hold one class only, and neighbouring groups of negatives may be merged.
    """

    positive: Floats
    negative: Floats

    @property
    def positives(self) -> float:
        """Mass of all positives."""
        return float(self.positive.sum())

    @property
    def negatives(self) -> float:
        """Mass of all negatives."""
        return float(self.negative.sum())

    def missing(self, *, both: bool) -> str | None:
        """Return why a metric is undefined here, or None; `both`: it needs negatives as well as positives."""
        positives, negatives = self.positives, self.negatives
        if not positives + negatives > 0.0:
            return "no rows"
        if not positives > 0.0:
            return "no positives"
        return "no negatives" if both and not negatives > 0.0 else None


def check_scores(odds: Floats) -> None:
    """Refuse scores that cannot be ordered.

    Raises
    ------
    DataError
        Naming the first rows whose score is NaN.
    """
    if len(odds) and np.isnan(np.min(odds)):
        rows = np.flatnonzero(np.isnan(odds))
        where, count = f"row {rows[0]}", len(rows)
        raise DataError(Finding("eval.not_a_number", "scores that are not numbers cannot be ranked", where, count))


def hard_labels(label: Label) -> NDArray[np.bool_] | None:
    """Return 0/1 labels as booleans, or None where some are soft (between 0 and 1)."""
    if label.dtype.kind == "b":
        return label
    positive = label == 1
    return positive if label.dtype.kind in "iu" or bool(np.all(positive | (label == 0))) else None


def class_masses(label: Label, weight: Floats | None) -> tuple[Floats, Floats]:
    """Return each row's positive and negative mass: w p and w (1 - p); `label` p may be soft."""
    soft = np.asarray(label, np.float64)
    positive = soft if weight is None else soft * weight
    return positive, (1.0 if weight is None else weight) - positive


def tie_starts(ordered: NDArray[Any]) -> NDArray[np.int64]:
    """Return where each run of equal values starts in a sorted, non-empty array."""
    return np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))


def summed_runs(
    work: Callable[[slice], tuple[NDArray[Any], NDArray[Any]]], rows: int, step: int
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Add up the two arrays of ``work(slice)`` over consecutive slices of at most `step` rows, one thread a core.

    Short slices keep their scratch arrays in the cache and out of fresh pages, which cost more than the sort.
    """
    step = max(step, _STEP_ROWS)
    slices = [slice(start, min(start + step, rows)) for start in range(0, rows, step)]
    threads = min(cores(), len(slices))

    def share(first: int) -> tuple[NDArray[Any], NDArray[Any]]:
        left, right = work(slices[first])
        for run in slices[first + threads :: threads]:
            more = work(run)
            left += more[0]
            right += more[1]
        return left, right

    if threads == 1:
        return share(0)
    with ThreadPoolExecutor(threads) as pool:
        parts = list(pool.map(share, range(threads)))
    return np.sum([part[0] for part in parts], axis=0), np.sum([part[1] for part in parts], axis=0)


def curve_of(odds: Floats, label: Label, weight: Floats | None = None) -> Curve:
    """Sort rows by score and return the masses of positives and negatives in tie groups, highest score first.

    Parameters
    ----------
    odds
        [B] scores, any monotone scale; not NaN.
    label
        [B] 0/1, or soft labels p in [0, 1]: each row counts p positive and 1 - p negative.
    weight
        [B] sample weights; None is 1 a row.

    Raises
    ------
    DataError
        When a score is NaN.
    """
    check_scores(odds)
    positive = hard_labels(label) if weight is None else None
    if positive is not None:
        return _hard_curve(odds, positive)
    if not len(odds):
        return Curve(np.zeros(0), np.zeros(0))
    order = np.argsort(odds, kind="stable")
    starts = tie_starts(odds[order])
    masses = class_masses(label, weight)
    up, down = (np.add.reduceat(mass[order], starts)[::-1] for mass in masses)
    return Curve(np.ascontiguousarray(up), np.ascontiguousarray(down))


def _hard_curve(odds: Floats, positive: NDArray[np.bool_]) -> Curve:
    positives = int(np.count_nonzero(positive))
    if not positives:
        return Curve(np.zeros(1), np.full(1, float(len(odds))))
    ordered = np.sort(odds[positive])
    starts = tie_starts(ordered)
    values = ordered[starts]

    def count(run: slice) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        negatives = odds[run][~positive[run]]
        negatives.sort()
        return np.searchsorted(negatives, values, "left"), np.searchsorted(negatives, values, "right")

    below, through = summed_runs(count, len(odds), 2 * len(values))
    up, down = np.zeros((2, 2 * len(values) + 1))
    up[1::2] = np.diff(np.append(starts, positives))
    down[1::2] = through - below
    down[0::2] = np.append(below, len(odds) - positives) - np.concatenate([[0], through])
    keep = (up + down > 0)[::-1]
    return Curve(up[::-1][keep], down[::-1][keep])
