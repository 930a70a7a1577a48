"""Value -> global row for one field: a direct table, binary search, a dictionary or a hash, whichever is quickest."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from postclick.data.hashing import stable_hash

__all__ = ["BucketLookup", "IntegerLookup", "Lookup", "NoLookup", "TextLookup"]

_DIRECT_SPAN = 1 << 25
"""A direct table of int32 up to 128 MB a field; beyond it, binary search."""
_SMALL_BATCH = 2_000
"""Below this many rows, as when serving, a Python dictionary beats Arrow's set-up."""
_LARGE_VOCABULARY = 2_000_000
"""A Python dictionary of more texts than this takes gigabytes; Arrow's `index_in` takes over for large batches."""


class Lookup(Protocol):
    """Maps normalised ids of the field's own kind to global rows."""

    def rows(self, array: pa.Array) -> NDArray[np.int32]:
        """Return int32 rows, the unknown row for null and for values that are not in the vocabulary."""


class NoLookup:
    """A field that never had a value."""

    def __init__(self, unknown: int) -> None:
        self.unknown = unknown

    def rows(self, array: pa.Array) -> NDArray[np.int32]:
        """Return the unknown row for all."""
        return np.full(len(array), self.unknown, np.int32)


def _filled(array: pa.Array) -> tuple[NDArray[np.int64], NDArray[np.bool_] | None]:
    if not array.null_count:
        return np.asarray(array), None
    return np.asarray(array.fill_null(0)), ~np.asarray(array.is_valid())


class IntegerLookup:
    """Integers: a direct table where they lie close together, binary search where not.

    Parameters
    ----------
    values, places
        int64 values and their global rows.
    unknown
        The field's unknown row.
    """

    def __init__(self, values: NDArray[np.int64], places: NDArray[np.int32], unknown: int) -> None:
        order = np.argsort(values, kind="stable")
        self.unknown = unknown
        self._values, self._places = values[order], places[order]
        self._low, self._high = int(self._values[0]), int(self._values[-1])
        span = self._high - self._low + 1
        self._table: NDArray[np.int32] | None = None
        if span <= min(max(1 << 20, 64 * len(values)), _DIRECT_SPAN):
            self._table = np.full(span + 1, unknown, np.int32)
            self._table[self._values - self._low] = self._places

    def rows(self, array: pa.Array) -> NDArray[np.int32]:
        """Return the rows of int64 values."""
        values, null = _filled(array)
        if self._table is not None:
            inside = (values >= self._low) & (values <= self._high)
            with np.errstate(over="ignore"):
                found = self._table[np.where(inside, values - self._low, len(self._table) - 1)]
        else:
            at = np.minimum(np.searchsorted(self._values, values), len(self._values) - 1)
            found = np.where(self._values[at] == values, self._places[at], np.int32(self.unknown))
        if null is not None:
            found[null] = self.unknown
        return found


class TextLookup:
    """Text: distinct values of a batch through a Python dictionary, the rest through their codes.

    Parameters
    ----------
    values, places
        Text values (no nulls) and their global rows.
    unknown
        The field's unknown row.
    """

    def __init__(self, values: pa.Array, places: NDArray[np.int32], unknown: int) -> None:
        self._values, self._places, self.unknown = values, places, unknown
        self._known: dict[str, int] | None = None

    def _dictionary(self) -> dict[str, int]:
        if self._known is None:
            texts = self._values.to_numpy(zero_copy_only=False).tolist()
            self._known = dict(zip(texts, self._places.tolist(), strict=True))
        return self._known

    def rows(self, array: pa.Array) -> NDArray[np.int32]:
        """Return the rows of texts."""
        if len(array) < _SMALL_BATCH:
            return self._few(array)
        coded = array.dictionary_encode()
        places = self._many(coded.dictionary)
        codes = coded.indices
        if codes.null_count:
            places = np.append(places, np.int32(self.unknown))
            codes = codes.fill_null(len(places) - 1)
        found: NDArray[np.int32] = places[np.asarray(codes)]
        return found

    def _few(self, array: pa.Array) -> NDArray[np.int32]:
        known, unknown = self._dictionary(), self.unknown
        return np.asarray([known.get(text, unknown) for text in array.to_pylist()], np.int32)

    def _many(self, distinct: pa.Array) -> NDArray[np.int32]:
        if len(self._values) <= _LARGE_VOCABULARY:
            known, unknown = self._dictionary(), self.unknown
            texts = distinct.to_numpy(zero_copy_only=False).tolist()
            return np.asarray([known.get(text, unknown) for text in texts], np.int32)
        at = np.asarray(pc.index_in(distinct, self._values).fill_null(len(self._places)))
        found: NDArray[np.int32] = np.append(self._places, np.int32(self.unknown))[at]
        return found


class BucketLookup:
    """A stable hash into a fixed number of rows.

    Parameters
    ----------
    first, buckets
        The first bucket's row and their number.
    unknown
        The row of null.
    """

    def __init__(self, first: int, buckets: int, unknown: int) -> None:
        self.first, self.buckets, self.unknown = first, buckets, unknown

    def rows(self, array: pa.Array) -> NDArray[np.int32]:
        """Return the rows of integers or texts."""
        null: NDArray[Any] | None = None if not array.null_count else ~np.asarray(array.is_valid())
        if pa.types.is_int64(array.type):
            found = self._bucket(_filled(array)[0])
        else:
            coded = array.fill_null("").dictionary_encode()
            distinct = np.asarray(coded.dictionary.to_numpy(zero_copy_only=False), object)
            found = self._bucket(distinct)[np.asarray(coded.indices)] if len(distinct) else np.zeros(0, np.int32)
        if null is not None:
            found[null] = self.unknown
        return found

    def _bucket(self, values: NDArray[Any]) -> NDArray[np.int32]:
        return (stable_hash(values) % np.uint64(self.buckets)).astype(np.int32) + np.int32(self.first)
