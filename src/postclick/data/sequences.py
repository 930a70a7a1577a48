"""Multi-valued columns: lists, or text cut at a separator, to values with offsets; every value is accounted for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from postclick.data.columns import LONGEST_LIST, at_row, check_text, column, ids, list_parts, numbers
from postclick.errors import DataError, Finding
from postclick.schema import SequenceFeature

__all__ = ["SequenceColumn", "canonical_lists", "check_weights", "count_values", "read_sequence", "sequence_weights"]


_LISTS, _WEIGHTS = pa.large_list(pa.int64()), pa.large_list(pa.float64())


@dataclass(frozen=True)
class SequenceColumn:
    """The values of one sequence field over B rows: read = len(values) + truncated + rejected.

    Parameters
    ----------
    values
        Ids (int64 or text), no nulls.
    offsets
        int64 [B + 1].
    weights
        float32 beside `values`, or None.
    read, truncated, rejected
        Values that came in, that lay past the maximal length, that were null, empty or no id.
    """

    values: pa.Array
    offsets: NDArray[np.int64]
    weights: NDArray[np.float32] | None
    read: int
    truncated: int
    rejected: int


def canonical_lists(array: pa.Array, feature: SequenceFeature) -> pa.Array:
    """Return a raw sequence column as large lists of ids, or as text where the feature has a separator."""
    kind = array.type
    scalar = not (pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))
    if scalar and feature.separator is not None:
        if pa.types.is_null(kind):
            return array
        # a file where every list has one value reads as numbers
        return check_text(array.cast(pa.large_string()), feature.name, limit=LONGEST_LIST)
    if pa.types.is_null(kind) or (kind == _LISTS and not array.null_count):
        return array
    values, lengths = list_parts(array, feature.name)
    return pa.LargeListArray.from_arrays(pa.array(_offsets(lengths)), ids(values, feature.name, lengths)[0])


def _offsets(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def _split(array: pa.Array, separator: str | None, where: str) -> tuple[pa.Array, NDArray[np.int64]]:
    """Return values and lengths; an empty text is an empty list."""
    if separator is not None and (pa.types.is_large_string(array.type) or pa.types.is_string(array.type)):
        filled = pc.if_else(pc.equal(array, ""), pa.scalar(None, array.type), array)
        array = pc.split_pattern(filled, pattern=separator)
    return list_parts(array, where)


def count_values(array: pa.Array, feature: SequenceFeature) -> int:
    """Return how many values a raw sequence column holds."""
    array = canonical_lists(array, feature)
    if pa.types.is_null(array.type) or len(array) == 0:
        return 0
    if pa.types.is_large_string(array.type):
        assert feature.separator is not None
        present = pc.and_(pc.is_valid(array), pc.not_equal(array, ""))
        cuts = pc.count_substring(array, pattern=feature.separator)
        return int(pc.sum(pc.if_else(present, pc.add(cuts, 1), 0)).as_py() or 0)
    return int(pc.sum(pc.list_value_length(array)).as_py() or 0)


def sequence_weights(array: pa.Array, feature: SequenceFeature) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the weights of a sequence column end to end (null as NaN) and their number a row."""
    values, lengths = _split(canonical_weights(array, feature), feature.separator, feature.weights or feature.name)
    return numbers(values, feature.weights or feature.name), lengths


def canonical_weights(array: pa.Array, feature: SequenceFeature) -> pa.Array:
    """Return a raw column of weights as large lists of float64, or as text where the feature has a separator."""
    where, kind = feature.weights or feature.name, array.type
    if pa.types.is_null(kind) or (kind == _WEIGHTS and not array.null_count):
        return array
    scalar = not (pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))
    if scalar and feature.separator is not None:
        return array.cast(pa.large_string())
    values, lengths = list_parts(array, where)
    flat = pa.array(numbers(values, where), from_pandas=True)
    return pa.LargeListArray.from_arrays(pa.array(_offsets(lengths)), flat)


def check_weights(batch: pa.RecordBatch | pa.Table, feature: SequenceFeature) -> None:
    """Refuse rows with more or fewer weights than values.

    Raises
    ------
    DataError
        ``data.multivalue``.
    """
    if feature.weights:
        raw = canonical_lists(column(batch, feature.name), feature)
        lengths = _split(raw, feature.separator, feature.name)[1]
        _refuse_odd(feature, lengths, sequence_weights(column(batch, feature.weights), feature)[1])


def _refuse_odd(feature: SequenceFeature, lengths: NDArray[np.int64], counts: NDArray[np.int64]) -> None:
    odd = counts != lengths
    if odd.any():
        place = int(np.flatnonzero(odd)[0])
        what = f"{feature.name!r} and {feature.weights!r} have different numbers of values"
        example = f"{lengths[place]} values with {counts[place]} weights"
        where, fix = at_row(place, feature.weights or ""), "deliver one weight a value"
        raise DataError(Finding("data.multivalue", what, where, int(odd.sum()), (example,), fix))


def read_sequence(batch: pa.RecordBatch | pa.Table, feature: SequenceFeature) -> SequenceColumn:
    """Read one sequence field of a batch.

    A null list is empty. Null and empty values are dropped and counted as rejected,
    those past `max_length` as truncated.

    Raises
    ------
    DataError
        ``data.multivalue`` where a row's weights are not as many as its values, ``data.non_finite`` where one is no
        number.
    """
    raw, lengths = _split(canonical_lists(column(batch, feature.name), feature), feature.separator, feature.name)
    values, _ = ids(raw, feature.name, lengths)
    keep = np.asarray(values.is_valid()) if values.null_count else np.ones(len(values), np.bool_)
    if pa.types.is_large_string(values.type):
        keep &= np.asarray(pc.not_equal(values, "").fill_null(False))
    weights = _checked_weights(batch, feature, lengths, keep) if feature.weights else None
    if keep.all() and lengths.max(initial=0) <= feature.max_length:
        sound_weights = None if weights is None else weights.astype(np.float32)
        return SequenceColumn(values, _offsets(lengths), sound_weights, len(values), 0, 0)
    rejected = int(len(keep) - keep.sum())
    row = np.repeat(np.arange(len(lengths)), lengths)
    sound = np.bincount(row[keep], minlength=len(lengths)).astype(np.int64)
    starts = _offsets(sound)[:-1]
    within = np.zeros(len(values), np.int64)
    within[keep] = np.arange(int(keep.sum())) - np.repeat(starts, sound)
    taken = keep & (within < feature.max_length)
    whole = bool(taken.all())
    return SequenceColumn(
        values if whole else values.filter(pa.array(taken)),
        _offsets(np.minimum(sound, feature.max_length)),
        None if weights is None else weights[taken].astype(np.float32),
        len(values),
        len(values) - rejected - int(taken.sum()),
        rejected,
    )


def _checked_weights(
    batch: pa.RecordBatch | pa.Table, feature: SequenceFeature, lengths: NDArray[np.int64], keep: NDArray[np.bool_]
) -> NDArray[np.float64]:
    assert feature.weights is not None
    weights, counts = sequence_weights(column(batch, feature.weights), feature)
    _refuse_odd(feature, lengths, counts)
    wrong = keep & ~np.isfinite(weights)
    if wrong.any():
        what = "weights that are no finite numbers"
        raise DataError(Finding("data.non_finite", what, feature.weights, int(wrong.sum()), fix="repair or drop them"))
    return weights
