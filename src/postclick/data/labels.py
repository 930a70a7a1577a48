"""Raw funnel columns to `Labels`: 0/1 labels, ids, times in microseconds, weights; what is wrong is a row fault."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from postclick.data.arrays import Labels
from postclick.data.clock import NO_TIME, censor, mark_disorder, open_outcomes
from postclick.data.columns import at_row, check_text, column, ids
from postclick.data.faults import RowFaults
from postclick.errors import DataError, Finding
from postclick.schema import Columns, Schema

__all__ = [
    "ID_ROLES",
    "NO_ID",
    "NO_TIME",
    "OrphanPolicy",
    "ParsedLabels",
    "parse_labels",
    "row_number_ids",
    "to_microseconds",
]

OrphanPolicy = Literal["reject", "set_click", "view_through"]
NO_ID = int(np.iinfo(np.int64).min)
"""An integer user, item or campaign that is missing; a missing text one is ``""``."""
ID_ROLES = ("exposure_id", "user_id", "item_id", "campaign")
_TIME_ROLES = ("time", "click_time", "conversion_time", "observed_until")
_ROW_BITS = 40
_LARGEST_WEIGHT = 1e9
"""A row that counts more than a billion others is an overflow, or another column."""
_BEYOND = 9e18
_MICROSECONDS = {"s": 1_000_000.0, "ms": 1_000.0, "us": 1.0, "ns": 0.001}
_MISSING_TEXTS = ("", "nan", "null", "none", "na", "inf", "-inf", "infinity", "-infinity")


@dataclass(frozen=True)
class ParsedLabels:
    """The labels of a batch of B rows.

    Parameters
    ----------
    labels
        B each; faulty rows hold arbitrary numbers. An id column that is null throughout is an object array of None.
    orphans
        bool [B]: conversions without click that stay by policy (never with ``reject``).
    refusals
        Findings that stop the preparation: weights or propensities out of range (D23), outcomes still open (D19);
        their places are rows of the batch (`faults.located`).
    """

    labels: Labels
    orphans: NDArray[np.bool_]
    refusals: tuple[Finding, ...] = ()


def row_number_ids(file_index: int, first_row: int, rows: int) -> NDArray[np.int64]:
    """Return exposure ids for a file without any: ``file_index << 40 | row number``, unique below 2^40 rows a file."""
    return (np.int64(file_index) << np.int64(_ROW_BITS)) | np.arange(first_row, first_row + rows, dtype=np.int64)


def parse_labels(
    batch: pa.RecordBatch,
    schema: Schema,
    faults: RowFaults,
    *,
    policy: OrphanPolicy = "reject",
    row_ids: NDArray[np.int64] | None = None,
) -> ParsedLabels:
    """Read the funnel columns of a batch.

    Parameters
    ----------
    batch
        Columns named as in the schema.
    schema
        Names the columns.
    faults
        Faulty rows are marked here: D01, D02, D03, D17, missing exposure ids and times, infinite values. In a log of
        clicks (``population = "click"``) a click of 0 is out of its domain (D02).
    policy
        What a conversion without click is (D03): a fault (``reject``), a click too (``set_click``), or a row that is
        counted and never a label (``view_through``).
    row_ids
        Exposure ids where the schema names no such column.

    Raises
    ------
    DataError
        Where a column's type cannot hold what it should.
    """
    columns = schema.columns
    binary = {
        role: _binary(column(batch, name), name, faults)
        for role, name in columns.named().items()
        if role in ("click", "conversion", "action", "randomised")
    }
    orphans = _orphans(binary, columns, policy, faults)
    if schema.population == "click":
        unclicked = (binary["click"] == 0) & ~faults.faulty
        faults.mark("data.label_domain", unclicked, columns.click, show=lambda _: "0 in a log of clicks")
    found: dict[str, Any] = dict(binary)
    if policy == "view_through":
        found["view_through"] = orphans.astype(np.int8)
    found["exposure_id"] = row_ids
    refusals = []
    for role, name in columns.named().items():
        raw = column(batch, name)
        if role in ID_ROLES:
            found[role] = _identity(raw, role, name, faults)
        elif role in _TIME_ROLES:
            found[role] = _time(raw, role, columns, faults)
        elif role in ("value", "bid"):
            found[role] = _amount(raw, name, faults)
        elif role in ("sample_weight", "propensity"):
            found[role], refusal = _weight(raw, role, name)
            refusals += [refusal] if refusal else []
    mark_disorder(found, columns, faults)
    found["immature"], refusal = open_outcomes(found, columns, ~faults.faulty)
    found["conversion"] = censor(found["click"], found["conversion"], found["immature"])
    refusals += [refusal] if refusal else []
    return ParsedLabels(Labels(**found), orphans, tuple(refusals))


def _binary(array: pa.Array, name: str, faults: RowFaults) -> NDArray[np.int8]:
    """Return a 0/1 label; mark what is missing (D01) or something else (D02)."""
    kind = array.type
    if pa.types.is_boolean(kind):
        values = np.asarray(array.cast(pa.float64()).fill_null(np.nan))
    elif pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        values = _binary_text(array, name)
    else:
        try:
            values = np.asarray(array.cast(pa.float64(), safe=False).fill_null(np.nan))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            what = f"expected a label of 0 and 1, found {kind}"
            raise DataError(Finding("data.schema_mismatch", what, name)) from error
    missing = ~np.isfinite(values)
    one: NDArray[np.bool_] = values == 1.0
    faults.mark("data.label_missing", missing, name, array)
    faults.mark("data.label_domain", ~missing & ~one & (values != 0.0), name, array)
    return one.astype(np.int8)


def _binary_text(array: pa.Array, name: str) -> NDArray[np.float64]:
    """Return 0 and 1 as written, NaN for a text that means missing, -1 for any other."""
    text = pc.utf8_lower(pc.utf8_trim_whitespace(check_text(array, name))).fill_null("")
    values = np.full(len(text), -1.0)
    for number, forms in ((0.0, ("0", "0.0")), (1.0, ("1", "1.0")), (np.nan, _MISSING_TEXTS)):
        values[np.asarray(pc.is_in(text, pa.array(forms, pa.large_string())))] = number
    return values


def _orphans(
    binary: dict[str, NDArray[np.int8]], columns: Columns, policy: OrphanPolicy, faults: RowFaults
) -> NDArray[np.bool_]:
    """Apply the policy for conversions without click; afterwards a conversion is 1 only where the click is."""
    orphans: NDArray[np.bool_] = (binary["conversion"] == 1) & (binary["click"] == 0) & ~faults.faulty
    if policy == "set_click":
        binary["click"] = np.where(orphans, np.int8(1), binary["click"])
    elif policy == "reject":
        faults.mark("data.conversion_without_click", orphans, columns.conversion)
        orphans = np.zeros_like(orphans)
    binary["conversion"] = binary["conversion"] * (binary["click"] == 1)
    return orphans


def _identity(raw: pa.Array, role: str, name: str, faults: RowFaults) -> NDArray[Any]:
    array, _ = ids(raw, name)
    if role == "exposure_id" and array.null_count:
        faults.mark("data.duplicate_key", ~np.asarray(array.is_valid()), name)
    if pa.types.is_null(array.type):
        return np.full(len(array), None, object)
    if pa.types.is_int64(array.type):
        return np.asarray(array.fill_null(NO_ID))
    return np.asarray(array.fill_null("").to_numpy(zero_copy_only=False), object)


def _time(raw: pa.Array, role: str, columns: Columns, faults: RowFaults) -> NDArray[np.int64]:
    name = columns.named()[role]
    values, missing = to_microseconds(raw, columns.time_unit, name)
    if role == "time":
        faults.mark("data.time_order", missing, name, raw)
    return values


def to_microseconds(
    array: pa.Array, unit: Literal["s", "ms", "us", "ns"], where: str
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return times as microseconds since 1970-01-01 UTC, and which are missing (`NO_TIME` in the result).

    Parameters
    ----------
    array
        Numbers in `unit`, timestamps (without zone: UTC), dates, or ISO 8601 text.
    unit
        Unit of numbers.
    where
        Column name for messages.

    Raises
    ------
    DataError
        ``data.schema_mismatch`` where a value is no time.
    """
    kind = array.type
    if pa.types.is_null(kind):
        return np.full(len(array), NO_TIME), np.ones(len(array), np.bool_)
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return _numeric_time(array, unit)
    try:
        zone = getattr(kind, "tz", None)
        stamps = array.cast(pa.timestamp("us", zone), safe=False)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        what = f"expected times, found {kind} ({error})"
        raise DataError(Finding("data.schema_mismatch", what, where, fix="deliver timestamps or numbers")) from error
    missing = ~np.asarray(stamps.is_valid())
    return np.asarray(stamps.cast(pa.int64()).fill_null(NO_TIME)), missing


def _numeric_time(array: pa.Array, unit: str) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    factor = _MICROSECONDS[unit]
    rough = np.asarray(array.cast(pa.float64(), safe=False).fill_null(np.nan)) * factor
    missing = ~np.isfinite(rough)
    beyond = ~missing & (np.abs(rough) > _BEYOND)
    if pa.types.is_integer(array.type):  # exact: a float64 has lost microseconds at today's dates in nanoseconds
        whole = np.asarray(array.cast(pa.int64()).fill_null(0))
        whole = np.where(beyond, 0, whole)
        exact = whole * np.int64(factor) if factor >= 1 else whole // 1000
    else:
        exact = np.rint(np.where(missing | beyond, 0.0, rough)).astype(np.int64)
    if beyond.any():  # another unit: a time that no calendar has, and a fault of its row
        exact = np.where(beyond, np.where(rough > 0, _BEYOND, -_BEYOND).astype(np.int64), exact)
    return np.where(missing, NO_TIME, exact), missing


def _amount(raw: pa.Array, name: str, faults: RowFaults) -> NDArray[np.float64]:
    """Return values or bids: null is NaN, an infinity is a fault."""
    values = _floats(raw, name)
    faults.mark("data.non_finite", np.isinf(values), name, raw)
    return values


def _weight(raw: pa.Array, role: str, name: str) -> tuple[NDArray[np.float64], Finding | None]:
    """Return weights, and the finding where one is out of range: weights in (0, 1e9], propensities in (0, 1]."""
    values = _floats(raw, name)
    wrong = ~((values > 0) & (values <= (1.0 if role == "propensity" else _LARGEST_WEIGHT)))
    if not wrong.any():
        return values, None
    allowed = "in (0, 1]" if role == "propensity" else f"above 0 and at most {_LARGEST_WEIGHT:.0e}"
    examples = tuple(str(value) for value in values[wrong][:3])
    what = f"a {role} must be {allowed}"
    place, fix = at_row(int(np.flatnonzero(wrong)[0]), name), "repair them, or drop the column"
    return values, Finding("data.weights", what, place, int(wrong.sum()), examples, fix)


def _floats(raw: pa.Array, name: str) -> NDArray[np.float64]:
    try:
        return np.asarray(raw.cast(pa.float64(), safe=False).fill_null(np.nan), np.float64)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        what = f"expected numbers, found {raw.type} ({error})"
        raise DataError(Finding("data.schema_mismatch", what, name)) from error
