"""First pass of `prepare`: each piece read once, labels parsed, faulty rows to quarantine, the rest to scratch files.

A staged file holds the feature columns in canonical types, the labels as ``label:*`` and the row numbers; it is what
the later passes read, so raw text is parsed once.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from postclick.data.arrays import Labels
from postclick.data.columns import column, ids, list_parts, numbers, require_columns
from postclick.data.faults import RowFaults, feature_faults, merge_examples
from postclick.data.ipc import BlockWriter, read_batches
from postclick.data.labels import ID_ROLES, NO_ID, OrphanPolicy, parse_labels, row_number_ids
from postclick.data.ledger import Ledger
from postclick.data.log import labels_from_arrow
from postclick.data.rejects import RejectWriter
from postclick.data.sequences import canonical_lists, canonical_weights, count_values
from postclick.data.sources.base import Piece, Source, SourceBatch, SplitRole, ValueCounts
from postclick.errors import DataError, Finding
from postclick.schema import DenseFeature, EmbeddingFeature, Schema, SequenceFeature

__all__ = [
    "ROW",
    "StageTask",
    "StagedFile",
    "StagedPiece",
    "column_types",
    "label_columns",
    "read_staged",
    "stage",
    "staged_labels",
    "value_totals",
]

ROW = "row:number"
"""Column of a staged file: the row's number in its source file."""
_LABEL = "label:"


@dataclass(frozen=True)
class StageTask:
    """One piece to stage; survives pickling.

    Parameters
    ----------
    source
        Reads the piece.
    piece
        What to read.
    index
        Position among all pieces.
    file_index
        Position of its file among all files, for exposure ids made of file and row number.
    folder
        Scratch folder.
    policy
        What a conversion without click is.
    """

    source: Source
    piece: Piece
    index: int
    file_index: int
    folder: Path
    policy: OrphanPolicy


@dataclass(frozen=True)
class StagedFile:
    """One scratch file: rows of one piece whose columns have one set of types."""

    path: Path
    rows: int
    types: Mapping[str, str]


@dataclass(frozen=True)
class StagedPiece:
    """What staging a piece left.

    Parameters
    ----------
    index, label, role
        The piece.
    files
        Scratch files in order.
    ledger
        Rows read and rejected, values read, and those lost in the source or with a rejected row.
    examples
        Reason -> (place, value) of the first few rejected rows.
    refusals
        Findings that stop the preparation.
    """

    index: int
    label: str
    role: SplitRole | None
    files: tuple[StagedFile, ...]
    ledger: Ledger
    examples: Mapping[str, tuple[tuple[str, str], ...]] = field(default_factory=dict)
    refusals: tuple[Finding, ...] = ()

    @property
    def rows(self) -> int:
        """Rows kept."""
        return sum(file.rows for file in self.files)


def canonical(batch: pa.RecordBatch, schema: Schema) -> tuple[dict[str, pa.Array], dict[str, int]]:
    """Return the feature columns in one type a kind, and how many numbers of a sparse field were no ids (now null)."""
    columns: dict[str, pa.Array] = {}
    lost: dict[str, int] = {}
    for feature in schema.features:
        raw = column(batch, feature.name)
        if isinstance(feature, DenseFeature):
            columns[feature.name] = pa.array(numbers(raw, feature.name))
        elif isinstance(feature, SequenceFeature):
            columns[feature.name] = canonical_lists(raw, feature)
            if feature.weights:
                columns[feature.weights] = canonical_weights(column(batch, feature.weights), feature)
        elif isinstance(feature, EmbeddingFeature):
            columns[feature.name] = _embedding(raw, feature)
        else:
            columns[feature.name], lost[feature.name] = ids(raw, feature.name)
    return columns, lost


def _embedding(raw: pa.Array, feature: EmbeddingFeature) -> pa.Array:
    """Return vectors as large lists of float64, null where there is none."""
    values, lengths = list_parts(raw, feature.name)
    wrong = (lengths != feature.size) & np.asarray(raw.is_valid())
    if wrong.any():
        examples = tuple(str(length) for length in lengths[wrong][:3])
        what = f"expected vectors of {feature.size} numbers, found other lengths"
        fix = "declare the size that is there"
        raise DataError(Finding("data.schema_mismatch", what, feature.name, int(wrong.sum()), examples, fix))
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    flat = pa.array(numbers(values, feature.name))
    mask = raw.is_null() if raw.null_count else None
    return pa.LargeListArray.from_arrays(pa.array(offsets), flat, mask=mask)


def value_totals(batch: pa.RecordBatch | pa.Table, schema: Schema) -> dict[str, int]:
    """Return how many values each sparse and sequence field holds in canonical columns."""
    totals = {}
    for feature in schema.fields:
        array = column(batch, feature.name)
        if isinstance(feature, SequenceFeature):
            totals[feature.name] = count_values(array, feature)
        else:
            totals[feature.name] = len(array) - array.null_count
    return totals


def stage(task: StageTask) -> StagedPiece:
    """Read one piece and write what is sound to scratch files, what is not to quarantine."""
    schema = task.source.schema
    ledger, examples = Ledger(), dict[str, tuple[tuple[str, str], ...]]()
    refusals: list[Finding] = []
    with contextlib.ExitStack() as stack:
        writer = _FileWriter(task, stack)
        rejects = RejectWriter(task.folder, f"{task.index:05d}")
        for batch in task.source.read(task.piece):
            part = _stage_batch(batch, schema, task, writer, rejects)
            ledger += part.ledger
            examples = merge_examples(examples, part.examples)
            refusals += part.refusals
        rejects.flush()
    staged = writer.files()
    return StagedPiece(task.index, task.piece.label, task.piece.role, staged, ledger, examples, _sum_findings(refusals))


@dataclass(frozen=True)
class _BatchPart:
    ledger: Ledger
    examples: Mapping[str, tuple[tuple[str, str], ...]]
    refusals: tuple[Finding, ...]


def _stage_batch(
    batch: SourceBatch, schema: Schema, task: StageTask, writer: _FileWriter, rejects: RejectWriter
) -> _BatchPart:
    table, rows = batch.table, batch.table.num_rows
    require_columns(table, schema.raw_columns(), batch.label)
    faults = RowFaults(rows)
    parsed = parse_labels(
        table,
        schema,
        faults,
        policy=task.policy,
        row_ids=row_number_ids(task.file_index, batch.first_row, rows),
        where=batch.label,
    )
    features, lost = canonical(table, schema)
    whole = pa.RecordBatch.from_pydict(features) if features else table
    feature_faults(whole, schema, faults)
    numbered = np.arange(batch.first_row, batch.first_row + rows)
    staged = {**features, **label_columns(parsed.labels), ROW: pa.array(numbered)}
    if task.policy == "set_click":
        staged[f"{_LABEL}set_click"] = pa.array(parsed.orphans.astype(np.int8))
    kept = pa.RecordBatch.from_pydict(staged)
    gone: dict[str, int] = {}
    if faults.any:
        places = np.flatnonzero(faults.faulty)
        gone = value_totals(whole.take(pa.array(places)), schema)
        rejects.write(table.take(pa.array(places)), faults.names(places), batch.label, numbered[places])
        kept = kept.filter(pa.array(~faults.faulty))
    if kept.num_rows:
        writer.write(kept)
    values = _values(batch, value_totals(whole, schema), lost, gone)
    ledger = Ledger(read=rows, rejected=faults.counts(), values=values)
    return _BatchPart(ledger, faults.located(batch.label, batch.first_row), parsed.refusals)


def _values(
    batch: SourceBatch, totals: Mapping[str, int], lost: Mapping[str, int], gone: Mapping[str, int]
) -> dict[str, ValueCounts]:
    """Return the values read and lost so far; those kept are counted when they are encoded.

    The source counts what it did not hand on; what it did is in the batch.
    """
    found = dict(batch.values)
    for name, total in totals.items():
        no_id = lost.get(name, 0)
        part = ValueCounts(read=total + no_id, rejected=no_id + gone.get(name, 0))
        found[name] = found[name] + part if name in found else part
    return found


def _sum_findings(found: Sequence[Finding]) -> tuple[Finding, ...]:
    """Join the findings of one code and text: the first place and examples, the whole count."""
    joined: dict[tuple[str, str], Finding] = {}
    for item in found:
        key = (item.code, item.what)
        first = joined.get(key)
        count = (item.count or 0) + (first.count or 0 if first else 0)
        base = first or item
        joined[key] = Finding(base.code, base.what, base.where, count, base.examples, base.fix)
    return tuple(joined.values())


def label_columns(labels: Labels) -> dict[str, pa.Array]:
    """Return labels as Arrow columns ``label:*``; an id column of None throughout is a null column."""
    columns = {}
    for entry in fields(Labels):
        values = getattr(labels, entry.name)
        if values is None:
            continue
        if values.dtype != object:
            columns[_LABEL + entry.name] = pa.array(values)
        elif len(values) and values[0] is None:
            columns[_LABEL + entry.name] = pa.nulls(len(values))
        else:
            columns[_LABEL + entry.name] = pa.array(values, pa.large_string())
    return columns


class _FileWriter:
    """Writes batches to numbered files, a new one where the types change (a column that was null so far)."""

    def __init__(self, task: StageTask, stack: contextlib.ExitStack) -> None:
        self._task, self._stack = task, stack
        self._found: list[StagedFile] = []
        self._writer: BlockWriter | None = None
        self._rows = 0

    def write(self, batch: pa.RecordBatch) -> None:
        if self._writer is None or self._writer.schema != batch.schema:
            self._finish()
            name = f"staged-{self._task.index:05d}-{len(self._found):03d}.arrow"
            self._writer = BlockWriter(self._task.folder / name, compress=True)
            self._stack.push(self._writer)
        self._writer.write(batch)
        self._rows += batch.num_rows

    def _finish(self) -> None:
        if self._writer is None:
            return
        assert self._writer.schema is not None
        self._writer.close()
        types = {item.name: str(item.type) for item in self._writer.schema}
        self._found.append(StagedFile(self._writer.path, self._rows, types))
        self._writer, self._rows = None, 0

    def files(self) -> tuple[StagedFile, ...]:
        self._finish()
        return tuple(self._found)


def column_types(pieces: Sequence[StagedPiece]) -> dict[str, pa.DataType]:
    """Return the one type of each staged column over all pieces.

    Raises
    ------
    DataError
        ``data.schema_mismatch`` (D09) for every column that has two, with the first file of each.
    """
    seen: dict[str, dict[str, str]] = {}
    for piece in pieces:
        for file in piece.files:
            for name, kind in file.types.items():
                seen.setdefault(name, {}).setdefault(kind, piece.label)
    problems, types = [], {}
    for name, kinds in seen.items():
        typed = {kind: label for kind, label in kinds.items() if "null" not in kind}
        untyped = "int64" if name.startswith(_LABEL) else max(kinds, key=len)
        if len(typed) > 1:
            found = " and ".join(f"{_readable(kind)} in {label}" for kind, label in typed.items())
            fix = "deliver one type in all files"
            what = f"column {name.removeprefix(_LABEL)!r} is {found}"
            problems.append(Finding("data.schema_mismatch", what, fix=fix))
        types[name] = _type(next(iter(typed), untyped))
    if problems:
        raise DataError(*problems)
    return types


def _readable(kind: str) -> str:
    return kind.replace("large_string", "text").replace("large_list", "list").replace("int64", "integer")


def _type(text: str) -> pa.DataType:
    if text.startswith("large_list<"):
        return pa.large_list(_type(text.removesuffix(">").split(": ")[-1]))
    return pa.null() if text == "null" else pa.type_for_alias(text)


def read_staged(
    file: StagedFile, types: Mapping[str, pa.DataType], names: Sequence[str] | None = None
) -> Iterator[pa.RecordBatch]:
    """Yield a staged file's batches with every column in its type over all pieces."""
    for batch in read_batches(file.path, names):
        columns: dict[str, Any] = {}
        for name in batch.schema.names:
            array, kind = batch.column(name), types[name]
            if array.type != kind:
                absent = _absent_id(name, kind)
                array = array.cast(kind) if absent is None else pa.repeat(pa.scalar(absent, kind), len(array))
            columns[name] = array
        yield pa.RecordBatch.from_pydict(columns)


def _absent_id(name: str, kind: pa.DataType) -> str | int | None:
    if name.removeprefix(_LABEL) not in ID_ROLES or not name.startswith(_LABEL):
        return None
    return NO_ID if pa.types.is_int64(kind) else ""


def staged_labels(batch: pa.RecordBatch | pa.Table) -> Labels:
    """Return the labels of staged rows."""
    if isinstance(batch, pa.Table):
        batch = pa.RecordBatch.from_pydict({name: column(batch, name) for name in batch.schema.names})
    labels = labels_from_arrow(batch)
    assert labels is not None
    return labels
