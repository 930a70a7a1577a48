"""Raw Arrow columns in one form a feature kind: ids as int64 or text, numbers as float64, lists as large lists.

What comes in differs from file to file (int32 here, a dictionary of text there, a float column because one id was
missing); what goes out does not, and nothing is rounded on the way: an id that floating point cannot hold is refused.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from postclick.errors import DataError, Finding, nearest

__all__ = [
    "IdKind",
    "as_kind",
    "at_row",
    "check_text",
    "column",
    "id_kind",
    "ids",
    "list_parts",
    "numbers",
    "require_columns",
    "vectors",
]

IdKind = Literal["int64", "text", "none"]
"""How a field's values are held; ``none`` where every value was null."""

_EXACT_INTEGER = r"^(0|-?[1-9][0-9]{0,17})$"
_NINETEEN_DIGITS = r"^-?[1-9][0-9]{18}$"
_LARGEST = str(np.iinfo(np.int64).max)
_LONGEST_ID = 1_024
LONGEST_LIST = 1 << 17
"""Bytes of one id, and of one text that a separator splits; what is longer is no id but a fault (D21)."""


def column(batch: pa.RecordBatch | pa.Table, name: str) -> pa.Array:
    """Return one column as a single array, dictionaries decoded."""
    array = batch.column(name)
    if isinstance(array, pa.ChunkedArray):
        # a chunked array of no chunks has no array to combine to
        array = array.combine_chunks() if array.num_chunks else pa.array([], array.type)
    if isinstance(array, pa.ChunkedArray):
        array = array.chunk(0)
    return array.dictionary_decode() if pa.types.is_dictionary(array.type) else array


def require_columns(batch: pa.RecordBatch | pa.Table, names: tuple[str, ...], where: str = "") -> None:
    """Refuse a batch that lacks columns or has one of them twice: all in one error, with the likely spelling."""
    present = list(batch.schema.names)
    problems = []
    for name in names:
        if present.count(name) > 1:
            problems.append(
                Finding("data.schema_mismatch", f"column {name!r} occurs {present.count(name)} times", where)
            )
        if name not in present:
            near = nearest(name, present)
            fix = f"did you mean {near!r}?" if near else f"columns found: {', '.join(present[:20])}"
            problems.append(Finding("data.schema_mismatch", f"there is no column {name!r}", where, fix=fix))
    if problems:
        raise DataError(*problems)


def id_kind(array: pa.Array) -> IdKind:
    """Return how the values of an array that `ids` gave are held."""
    if pa.types.is_null(array.type):
        return "none"
    return "int64" if pa.types.is_int64(array.type) else "text"


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def at_row(row: int, name: str, lengths: NDArray[np.int64] | None = None) -> str:
    """Return the place ``row R:NAME`` of a fault within a batch; `faults.placed` makes file and row number of it.

    Parameters
    ----------
    row
        Position of the row, or, with `lengths`, of a value among the lists laid end to end.
    name
        The column.
    lengths
        Values a row.
    """
    if lengths is not None:
        row = int(np.searchsorted(np.cumsum(lengths), row, side="right"))
    return f"row {row}:{name}"


def check_text(
    array: pa.Array, where: str, lengths: NDArray[np.int64] | None = None, *, limit: int = _LONGEST_ID
) -> pa.Array:
    """Return text as large strings; refuse what is not UTF-8, holds NUL, or is longer than `limit` bytes (D21).

    Other control characters stay as they are; every output escapes them.

    Raises
    ------
    DataError
        ``data.text`` with the first place and the count.
    """
    array = array.cast(pa.large_binary()) if _is_binary(array.type) else array.cast(pa.large_string())
    sizes = np.asarray(pc.binary_length(array).fill_null(0))
    array = array.cast(pa.large_binary()).view(pa.large_string()) if _is_binary(array.type) else array
    long = sizes > limit
    problems: list[tuple[str, NDArray[np.bool_], str]] = []
    if long.any():
        problems.append((f"text longer than {limit:,} bytes", long, "shorten it, or leave the column out"))
    raw = _text_bytes(array)
    if raw is not None and not raw.all():
        holds = np.asarray(
            [value is not None and b"\0" in value for value in array.cast(pa.large_binary()).to_pylist()]
        )
        problems.append(("text that holds a NUL character", holds, "take the NUL characters out"))
    try:
        array.validate(full=True)
    except pa.ArrowInvalid:
        odd = np.asarray([not _is_utf8(value) for value in array.cast(pa.large_binary()).to_pylist()])
        problems.append(("text that is not UTF-8", odd, "write the column as UTF-8"))
    found = [
        Finding("data.text", what, at_row(int(np.flatnonzero(mask)[0]), where, lengths), int(mask.sum()), fix=fix)
        for what, mask, fix in problems
        if mask.any()
    ]
    if found:
        raise DataError(*found)
    return array


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def _is_utf8(value: bytes | None) -> bool:
    try:
        str(value or b"", "utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _text_bytes(array: pa.Array) -> NDArray[np.uint8] | None:
    """Return the bytes of all values of a large string array end to end, without a copy."""
    _, offsets, data = array.buffers()
    if data is None or not len(array):
        return None
    bounds = np.frombuffer(offsets, np.int64)
    first, last = bounds[array.offset], bounds[array.offset + len(array)]
    return np.frombuffer(data, np.uint8)[first:last]


def ids(array: pa.Array, where: str, lengths: NDArray[np.int64] | None = None) -> tuple[pa.Array, int]:
    """Return ids as int64, text or all null, and how many numbers were no integers (null in the result).

    Parameters
    ----------
    array
        Integers, booleans, floating point holding integers, text, dates; nulls and NaN are missing.
    where
        Column name for the message.
    lengths
        Values a row, where `array` holds lists laid end to end: for the place in the message.

    Raises
    ------
    DataError
        ``data.lossy_cast`` where floating point has lost digits, ``data.text`` where text cannot be an id,
        ``data.schema_mismatch`` where the type holds no ids.
    """
    kind = array.type
    if pa.types.is_null(kind) or pa.types.is_int64(kind):
        return array, 0
    if _is_text(kind) or _is_binary(kind):
        return check_text(array, where, lengths), 0
    if pa.types.is_floating(kind):
        return _float_ids(array, where, lengths)
    try:
        if pa.types.is_integer(kind) or pa.types.is_boolean(kind):
            return array.cast(pa.int64()), 0
        if pa.types.is_decimal(kind) and kind.scale == 0:
            return array.cast(pa.int64()), 0
    except pa.ArrowInvalid as error:
        raise _beyond_integers(array, where, lengths) from error
    if pa.types.is_date(kind) or pa.types.is_timestamp(kind):
        return array.cast(pa.timestamp("us", getattr(kind, "tz", None))).cast(pa.int64()), 0
    raise DataError(Finding("data.schema_mismatch", f"expected ids, found {kind}", where, fix="declare another kind"))


def _beyond_integers(array: pa.Array, where: str, lengths: NDArray[np.int64] | None) -> DataError:
    bound = float(2**63)
    wrong = np.flatnonzero(np.abs(np.asarray(array.cast(pa.float64(), safe=False).fill_null(0.0))) >= bound)
    examples = tuple(str(array[int(row)].as_py()) for row in wrong[:3])
    place = at_row(int(wrong[0]), where, lengths) if len(wrong) else where
    what = f"ids beyond 64-bit integers ({array.type})"
    return DataError(Finding("data.lossy_cast", what, place, len(wrong), examples, "deliver these ids as text"))


def _float_ids(array: pa.Array, where: str, lengths: NDArray[np.int64] | None) -> tuple[pa.Array, int]:
    # a float holds every integer below 2^53 (float32: 2^24) and skips some from there on
    bound = 2.0**53 if pa.types.is_float64(array.type) else 2.0**24
    values = np.asarray(array.cast(pa.float64()).fill_null(np.nan))
    present = ~np.isnan(values)
    lossy = present & np.isfinite(values) & (np.abs(values) >= bound)
    if lossy.any():
        what = f"ids were read as floating point and have lost digits ({array.type}, beyond {bound:.0f})"
        examples = tuple(f"{value:.0f}" for value in values[lossy][:3])
        fix = "deliver the column as integers or text"
        place = at_row(int(np.flatnonzero(lossy)[0]), where, lengths)
        raise DataError(Finding("data.lossy_cast", what, place, int(lossy.sum()), examples, fix))
    whole = present & (np.floor(values) == values) & np.isfinite(values)
    kept = pa.array(np.where(whole, values, 0.0).astype(np.int64), mask=~whole)
    return kept, int(present.sum() - whole.sum())


def as_kind(array: pa.Array, kind: IdKind) -> pa.Array:
    """Return normalised ids in another kind: text is an integer only where it is written exactly as one, else null."""
    found = id_kind(array)
    if kind in (found, "none"):
        return array
    if found == "none":
        return array.cast(pa.int64() if kind == "int64" else pa.large_string())
    if kind == "text":
        return array.cast(pa.large_string())
    exact = pc.match_substring_regex(array, _EXACT_INTEGER)
    long = pc.match_substring_regex(array, _NINETEEN_DIGITS)
    if pc.any(long).as_py():
        fits = pc.less_equal(pc.utf8_ltrim(array, characters="-"), _LARGEST)
        exact = pc.or_(exact, pc.and_(long, fits))
    return pc.if_else(exact, array, pa.scalar(None, pa.large_string())).cast(pa.int64())


def numbers(array: pa.Array, where: str) -> NDArray[np.float64]:
    """Return a column as float64, null as NaN.

    Raises
    ------
    DataError
        ``data.schema_mismatch`` where a value is no number.
    """
    try:
        values = array.cast(pa.float64(), safe=False)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        what = f"expected numbers, found {array.type} ({error})"
        raise DataError(Finding("data.schema_mismatch", what, where, fix="declare the feature sparse")) from error
    result: NDArray[np.float64] = np.asarray(values.fill_null(np.nan) if values.null_count else values, np.float64)
    return result


def list_parts(array: pa.Array, where: str) -> tuple[pa.Array, NDArray[np.int64]]:
    """Return the values of a list column end to end and the length of each list (0 where null)."""
    kind = array.type
    if pa.types.is_null(kind):
        return pa.nulls(0), np.zeros(len(array), np.int64)
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)):
        fix = "deliver lists, or declare the separator that splits the text"
        raise DataError(Finding("data.schema_mismatch", f"expected lists, found {kind}", where, fix=fix))
    if array.null_count or pa.types.is_fixed_size_list(kind):
        lengths = np.asarray(pc.list_value_length(array).cast(pa.int64()).fill_null(0))
        values = pc.list_flatten(array)
    else:
        offsets = np.asarray(array.offsets).astype(np.int64, copy=False)
        lengths = np.diff(offsets)
        values = array.values.slice(offsets[0], offsets[-1] - offsets[0])
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    return values, lengths


def vectors(array: pa.Array, size: int, where: str) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return a column of equally long lists as float64 [B, size], and which rows were null (zeros in the result).

    Raises
    ------
    DataError
        ``data.schema_mismatch`` where a list has another length.
    """
    values, lengths = list_parts(array, where)
    missing = np.zeros(len(array), np.bool_) if not array.null_count else ~np.asarray(array.is_valid())
    wrong = ~missing & (lengths != size)
    if wrong.any():
        examples = tuple(str(length) for length in lengths[wrong][:3])
        what = f"expected vectors of {size} numbers, found other lengths"
        place, fix = at_row(int(np.flatnonzero(wrong)[0]), where), "declare the size that is there"
        raise DataError(Finding("data.schema_mismatch", what, place, int(wrong.sum()), examples, fix))
    result: NDArray[Any] = np.zeros((len(array), size))
    result[~missing] = numbers(values, where).reshape(-1, size)
    return result, missing
