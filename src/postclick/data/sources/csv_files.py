"""CSV files: where their names come from, and their rows as Arrow batches."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from postclick.data.columns import at_row
from postclick.data.faults import placed
from postclick.data.sources.csv_ranges import CsvRange
from postclick.data.sources.inputs import RawFile, is_csv
from postclick.errors import DataError, Finding
from postclick.schema import DenseFeature, Schema, SequenceFeature, SparseFeature
from postclick.schema.csv_stream import line_of
from postclick.schema.csv_text import CsvLayout, CutEnd, csv_error, csv_layout, open_csv
from postclick.schema.sampling import MISSING_WORDS, TextKind, without_zone

__all__ = ["CsvPlan", "csv_batches", "csv_plans", "file_order"]

Purpose: TypeAlias = Literal["label", "id", "number", "time", "text"]
_WHOLE = CsvRange()
_SCIENTIFIC = r"^-?[0-9]\.[0-9]+[eE]\+[0-9]{2,3}$"
"""An id as spreadsheets write it when they take it for a number: its last digits are lost."""
_ROLE_PURPOSES: dict[str, Purpose] = {
    **dict.fromkeys(("click", "conversion", "action", "randomised"), "label"),
    **dict.fromkeys(("exposure_id", "user_id", "item_id", "campaign"), "id"),
    **dict.fromkeys(("time", "click_time", "conversion_time", "observed_until"), "time"),
    **dict.fromkeys(("sample_weight", "propensity", "value", "bid"), "number"),
}
_FEATURE_PURPOSES: dict[type, Purpose] = {SparseFeature: "id", DenseFeature: "number"}


def file_order(schema: Schema) -> tuple[str, ...]:
    """Return the order in which a CSV without a header is expected to hold a schema's columns.

    First the columns of the funnel and its company that are not features (in the order click, conversion, action,
    exposure_id, ...), then the features in the order they are declared, each sequence followed by its weights.
    """
    features: list[str] = []
    for feature in schema.features:
        features.append(feature.name)
        if isinstance(feature, SequenceFeature) and feature.weights:
            features.append(feature.weights)
    others = [name for name in schema.columns.named().values() if name not in features]
    return tuple(dict.fromkeys([*others, *features]))


@dataclass(frozen=True)
class CsvPlan:
    """How one CSV file is read: its delimiter, the names of its columns, the lines before its first row."""

    delimiter: str
    names: tuple[str, ...]
    skip: int


def csv_plans(files: Sequence[RawFile], schema: Schema | None) -> tuple[dict[str, CsvPlan], list[str]]:
    """Find each CSV's names; a file without a header takes them from another file of the call, else from the schema."""
    paths = {file.label: file.path for file in files if file.path is not None and is_csv(file)}
    wanted = set(schema.raw_columns()) if schema else set()
    layouts = {label: csv_layout(path, wanted) for label, path in paths.items()}
    if not wanted:
        wanted = set(next((layout.names for layout in layouts.values() if layout.names), ()))
    headed = {label: layout for label, layout in layouts.items() if _has_header(layout, wanted)}
    found, notes = {}, []
    for label, layout in layouts.items():
        if label in headed or not layout.names:
            found[label] = CsvPlan(layout.delimiter, layout.names, layout.header_lines if layout.names else 0)
            continue
        names, origin = _names_for(label, layout, headed, schema)
        found[label] = CsvPlan(layout.delimiter, names, 0)
        notes.append(f"{label} has no header: its {len(names)} columns are named in the order of {origin}")
    return found, notes


def _has_header(layout: CsvLayout, wanted: set[str]) -> bool:
    """Any wanted name makes a header; so do only words, all different (then every name is wrong, and will be said)."""
    if wanted & set(layout.names):
        return True
    words = [cell for cell in layout.names if cell and not re.fullmatch(r"[-+0-9.eE]+", cell)]
    return len(words) == len(layout.names) == len(set(words))


def _names_for(
    label: str, layout: CsvLayout, headed: Mapping[str, CsvLayout], schema: Schema | None
) -> tuple[tuple[str, ...], str]:
    width = len(layout.names)
    for other, theirs in headed.items():
        if len(theirs.names) == width:
            return theirs.names, other
    order = file_order(schema) if schema else ()
    if len(order) == width:
        return order, "the schema"
    wants = f", the schema has {len(order)} columns" if schema else ""
    what = f"no header with a known name, and {width} columns{wants}"
    fix = "add a header line, or pass --schema with the columns in the order of the file"
    raise DataError(Finding("data.csv", what, f"{label}:1", examples=layout.names[:5], fix=fix))


def _column_purposes(schema: Schema) -> dict[str, Purpose]:
    """Return raw column -> how its text is to be read."""
    found: dict[str, Purpose] = {name: _ROLE_PURPOSES[role] for role, name in schema.columns.named().items()}
    for feature in schema.features:
        found[feature.name] = _FEATURE_PURPOSES.get(type(feature), "text")
        if isinstance(feature, SequenceFeature) and feature.weights:
            found[feature.weights] = "text"
    return found


def csv_batches(
    file: RawFile,
    plan: CsvPlan,
    schema: Schema,
    kinds: Mapping[str, TextKind],
    part: CsvRange = _WHOLE,
    cut_end: CutEnd | None = None,
) -> Iterator[pa.RecordBatch]:
    """Stream the columns of a CSV, or of a part of it, that a schema names.

    Ids are int64 where the sample of all files held whole numbers only, else text (never a float, so 2^53 + 1 stays
    exact); dense features and weights float64; labels numbers where every one is a number; times numbers or timestamps.
    A last line that is cut off is passed over, and remembered, where `cut_end` is given.

    Raises
    ------
    DataError
        ``data.schema_mismatch``: a value that does not fit its column, with file, line and column. ``data.lossy_cast``:
        an id in scientific notation, or beyond 64 bits among whole numbers. ``data.csv``: a ragged row, a quote that
        is not closed. ``data.text``: no UTF-8. ``data.bomb``, ``data.corrupt_file``: compression that swells beyond
        reason, or is damaged.
    """
    if not plan.names:
        return
    purposes = _column_purposes(schema)
    places = [name for name in plan.names if name in purposes]
    types = {
        str(place): _csv_type(purposes[name], kinds.get(name)) if name in purposes else pa.null()
        for place, name in enumerate(plan.names)
    }
    row, span = part.first_row, (part.start, part.end)
    assert file.path is not None
    try:
        with open_csv(file.path, file.label, plan.delimiter, plan.skip, types, MISSING_WORDS, span, cut_end) as reader:
            for batch in reader:
                with placed(file.label, row):
                    columns = [
                        _finish(array, name, purposes[name], kinds.get(name))
                        for name, array in zip(places, batch.columns, strict=True)
                    ]
                yield pa.RecordBatch.from_arrays(columns, names=places)
                row += batch.num_rows
        if cut_end is not None:
            cut_end.refuse_unless_last(row - part.first_row + (0 if part.start else plan.skip))
    except pa.ArrowInvalid as error:
        if "Empty CSV" in str(error):
            return
        raise _csv_fault(error, file, plan, part.first_row if part.start else -plan.skip) from error
    except (OSError, EOFError) as error:
        raise DataError(Finding("data.corrupt_file", str(error), file.label, fix="replace the file")) from error


def _csv_type(purpose: Purpose, kind: TextKind | None) -> pa.DataType:
    if purpose in ("id", "time") and kind == "integer":
        return pa.int64()
    return pa.float64() if purpose == "number" else pa.string()


def _finish(array: pa.Array, name: str, purpose: Purpose, kind: TextKind | None) -> pa.Array:
    """Turn the text of a column into what it stands for; text that stands for nothing else keeps only "" as missing."""
    if not pa.types.is_string(array.type):
        return array
    if purpose == "id" and kind == "number":
        _refuse_scientific(array, name)
    if purpose == "text" or (purpose == "id" and kind not in ("integral", "boolean")):
        return pc.if_else(pc.equal(array, ""), pa.scalar(None, pa.string()), array)
    known = pc.if_else(pc.is_in(array, pa.array(MISSING_WORDS)), pa.scalar(None, pa.string()), array)
    if purpose == "label":
        return _label(known)
    if purpose == "time":
        return known.cast(pa.float64()) if kind in ("integral", "number") else without_zone(known)
    if kind == "boolean":
        return known.cast(pa.bool_())
    return pc.replace_substring_regex(known, r"\.0*$", "").cast(pa.int64())


def _refuse_scientific(array: pa.Array, name: str) -> None:
    """Refuse ids that were written as floating point numbers, as 1.2345679e+17 (D10)."""
    lost = pc.match_substring_regex(array, _SCIENTIFIC)
    if pc.any(lost).as_py():
        mask = np.asarray(lost.fill_null(False))
        first, count = int(np.flatnonzero(mask)[0]), int(mask.sum())
        examples = tuple(array.filter(lost)[:3].to_pylist())
        what = "ids in scientific notation have lost their last digits"
        fix = "write the column as whole numbers or as text"
        raise DataError(Finding("data.lossy_cast", what, at_row(first, name), count, examples, fix))


def _label(array: pa.Array) -> pa.Array:
    """Labels as numbers, or as booleans, where every one is; a word among them is the fault of its row: text."""
    for kind in (pa.float64(), pa.bool_()):
        try:
            return array.cast(kind)
        except pa.ArrowInvalid:
            continue
    return array


def _csv_fault(error: Exception, file: RawFile, plan: CsvPlan, before: int) -> DataError:
    """Name row and column of a value that does not fit; everything else is a malformed file."""
    hit = re.search(
        r"In CSV column #(\d+): (?:Row #(\d+): )?CSV conversion error to (\w+): invalid value '(.*)'", str(error), re.S
    )
    if hit is None and "Failed to parse" in str(error):  # while casting ids written 12.0
        what = f"an id is no whole number, though the first rows of its column are: {' '.join(str(error).split())}"
        return DataError(Finding("data.schema_mismatch", what, file.label, fix="repair the row"))
    assert file.path is not None
    if hit is None:
        return csv_error(error, file.label, file.path, plan.delimiter, plan.skip, before)
    column, record, kind, value = hit.groups()
    name = plan.names[int(column)]
    line = line_of(file.path, plan.delimiter, plan.skip, int(record) + before) if record else "?"
    where = f"{file.label}:{line}:{name}"
    if kind == "int64" and re.fullmatch(r"[-+]?[0-9]{18,}", value.strip()):
        what = "an id beyond 64-bit integers, in a column whose first rows hold whole numbers"
        fix = "deliver these ids as text: a Parquet file, or a letter before the digits"
        return DataError(Finding("data.lossy_cast", what, where, examples=(value,), fix=fix))
    wanted = "whole numbers in the first rows of all files" if kind == "int64" else "declared as numbers"
    fix = "repair the row; a column that mixes numbers and words must come as text: a Parquet file"
    if kind != "int64":
        fix = "repair the row, or declare the column as kind = 'sparse'"
    return DataError(
        Finding("data.schema_mismatch", f"column {name!r} is {wanted}, here a word", where, examples=(value,), fix=fix)
    )
