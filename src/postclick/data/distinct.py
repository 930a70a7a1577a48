"""How many different values there are, and how many ids occur twice, in one pass and bounded memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from postclick.data.arrays import Labels
from postclick.data.hashing import stable_hash

__all__ = ["CopyCounts", "CopySketch", "DistinctSketch", "hash_array"]

_TOP = float(2**64)


def hash_array(array: pa.Array) -> NDArray[np.uint64]:
    """Return the hashes of the different values of normalised ids, nulls left out."""
    values = pc.unique(array).drop_null()
    if pa.types.is_null(array.type) or not len(values):
        return np.zeros(0, np.uint64)
    if pa.types.is_int64(values.type):
        return stable_hash(np.asarray(values))
    return stable_hash(np.asarray(values.to_numpy(zero_copy_only=False), object))


class DistinctSketch:
    """Counts different values by their smallest hashes (Bar-Yossef et al. 2002): exact below `most`, then to 1.6 %.

    Parameters
    ----------
    most
        Hashes kept.
    """

    def __init__(self, most: int = 4_096) -> None:
        self._most = most
        self._kept = np.zeros(0, np.uint64)

    def add(self, array: pa.Array) -> None:
        """Take normalised ids in."""
        self._kept = np.unique(np.concatenate([self._kept, hash_array(array)]))[: self._most]

    def estimate(self) -> int:
        """Return how many different values were taken in."""
        if len(self._kept) < self._most:
            return len(self._kept)
        return round((self._most - 1) / (float(self._kept[-1]) / _TOP))


@dataclass(frozen=True)
class CopyCounts:
    """Later copies of an id: those whose labels equal the first one's, and those whose labels differ.

    Parameters
    ----------
    exact, conflicting
        How many; estimates where only a share of the ids was looked at.
    share
        Share of the ids that were looked at: 1 or less.
    """

    exact: int = 0
    conflicting: int = 0
    share: float = 1.0


class CopySketch:
    """Counts ids that occur more than once, on as many ids as fit, chosen by their hash: all copies or none.

    Parameters
    ----------
    most
        Rows kept.
    """

    def __init__(self, most: int = 1_000_000) -> None:
        self._most = most
        self._limit = np.uint64(np.iinfo(np.uint64).max)
        self._keys, self._labels = [np.zeros(0, np.uint64)], [np.zeros(0, np.int8)]
        self._held = 0

    def add(self, labels: Labels) -> None:
        """Take rows in, in the order of the log."""
        ids = labels.exposure_id
        if ids is None or not len(ids) or (ids.dtype == object and ids[0] is None):
            return
        keys = stable_hash(ids)
        inside = keys <= self._limit
        code = labels.click + 2 * labels.conversion
        self._keys.append(keys[inside])
        self._labels.append(code[inside].astype(np.int8))
        self._held += int(inside.sum())
        while self._held > 2 * self._most:
            self._limit //= np.uint64(2)
            joined, codes = np.concatenate(self._keys), np.concatenate(self._labels)
            inside = joined <= self._limit
            self._keys, self._labels = [joined[inside]], [codes[inside]]
            self._held = int(inside.sum())

    def result(self) -> CopyCounts:
        """Return what was found."""
        keys, labels = np.concatenate(self._keys), np.concatenate(self._labels)
        order = np.argsort(keys, kind="stable")
        keys, labels = keys[order], labels[order]
        fresh = np.ones(len(keys), np.bool_)
        fresh[1:] = keys[1:] != keys[:-1]
        first = np.maximum.accumulate(np.where(fresh, np.arange(len(keys)), 0)) if len(keys) else order
        later = ~fresh
        differs = labels != labels[first]
        share = (float(self._limit) + 1.0) / _TOP
        exact, conflicting = int((later & ~differs).sum()), int((later & differs).sum())
        return CopyCounts(round(exact / share), round(conflicting / share), min(share, 1.0))
