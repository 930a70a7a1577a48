"""A stable 64-bit hash of ids: equal on every machine, process and version; vectorised."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["stable_hash", "unit_interval"]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def _mix(word: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """One round of splitmix64 (Steele, Lea and Flood 2014)."""
    word = word + _GOLDEN
    word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return word ^ (word >> np.uint64(31))


def stable_hash(values: NDArray[Any], seed: int = 0) -> NDArray[np.uint64]:
    """Return a 64-bit hash a value.

    Parameters
    ----------
    values
        Integers, or text (numpy ``StringDType``, ``U`` or object arrays of str).
    seed
        Another seed gives an independent hash.
    """
    start = _mix(np.asarray([seed], np.uint64))[0]
    with np.errstate(over="ignore"):
        if np.issubdtype(values.dtype, np.integer):
            return _mix(values.astype(np.int64).view(np.uint64) ^ start)
        encoded = np.strings.encode(values.astype("U"), "utf-8") if values.dtype.kind != "S" else values
        width = max(8, -(-encoded.dtype.itemsize // 8) * 8)
        words = np.ascontiguousarray(encoded.astype(f"S{width}")).view(np.uint64).reshape(len(encoded), width // 8)
        digest = np.full(len(encoded), start, np.uint64)
        for column in words.T:  # a padding word must not change the hash, or it would depend on the longest neighbour
            digest = np.where(column == 0, digest, _mix(digest ^ column))
        return _mix(digest)


def unit_interval(values: NDArray[Any], seed: int = 0) -> NDArray[np.float64]:
    """Return the hash as a number in [0, 1)."""
    return (stable_hash(values, seed) >> np.uint64(11)).astype(np.float64) * 2.0**-53
