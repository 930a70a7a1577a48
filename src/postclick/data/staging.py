"""First pass of `prepare`: each piece read once, labels parsed, faulty rows to quarantine, the rest to scratch files.

A staged file holds the feature columns in canonical types, the labels as ``label:*`` and the row numbers; it is what
the later passes read, so raw text is parsed once.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from postclick.data.arrays import Labels
from postclick.data.columns import at_row, column, ids, list_parts, numbers, require_columns
from postclick.data.faults import RowFaults, feature_faults, located, merge_examples, placed
from postclick.data.fingerprint import FileMark, check_unchanged
from postclick.data.ipc import BlockWriter
from postclick.data.labels import OrphanPolicy, parse_labels, row_number_ids
from postclick.data.ledger import Ledger
from postclick.data.narrow import narrowed
from postclick.data.partial import Marker
from postclick.data.rejects import RejectWriter
from postclick.data.sequences import canonical_lists, canonical_weights, count_values
from postclick.data.sources.base import Piece, Source, SourceBatch, ValueCounts
from postclick.data.staged import LABEL, ROW, StagedFile, StagedPiece
from postclick.errors import DataError, Finding
from postclick.schema import DenseFeature, EmbeddingFeature, Schema, SequenceFeature

__all__ = ["StageTask", "label_columns", "stage", "stage_or_error", "staged_pieces", "value_totals"]

_WIDE_VALUES = 4 << 20
"""Numbers of embedding features staged at once: 32 MB."""


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
    marker
        Sign that the piece is staged; None leaves none.
    marks
        What the files that are read looked like when the work was planned.
    """

    source: Source
    piece: Piece
    index: int
    file_index: int
    folder: Path
    policy: OrphanPolicy
    marker: Marker | None = None
    marks: tuple[FileMark, ...] = ()


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
        place = at_row(int(np.flatnonzero(wrong)[0]), feature.name)
        raise DataError(Finding("data.schema_mismatch", what, place, int(wrong.sum()), examples, fix))
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
    """Read one piece and write what is sound to scratch files, what is not to quarantine; or find it done already.

    Raises
    ------
    DataError
        What is wrong with the piece as a whole; ``data.changed_underfoot`` where a file is not the planned one.
    """
    body = None if task.marker is None else task.marker.read()
    if body is not None and (done := StagedPiece.from_dict(body, task.folder)).there:
        return done
    if task.marker is not None:
        task.marker.clear()
    for pattern in (f"staged-{task.index:05d}-*", f"rejects/{task.index:05d}-*"):
        for path in task.folder.glob(pattern):
            path.unlink()
    check_unchanged(task.marks)
    piece = _stage(task)
    check_unchanged(task.marks)
    if task.marker is not None:
        task.marker.write(piece.to_dict())
    return piece


def stage_or_error(task: StageTask) -> StagedPiece | DataError:
    """Stage one piece; what is wrong with it is returned, so that the other pieces are staged and judged as well."""
    try:
        return stage(task)
    except DataError as error:
        return error


def staged_pieces(results: Iterable[StagedPiece | DataError]) -> list[StagedPiece]:
    """Return the pieces of a whole pass.

    Raises
    ------
    DataError
        What is wrong with any of them, all together; the same fault of several pieces once, with their count.
    """
    pieces: list[StagedPiece] = []
    problems: dict[tuple[str, str, str], Finding] = {}
    for result in results:
        if isinstance(result, StagedPiece):
            pieces.append(result)
            continue
        for item in result.findings:
            key = (item.code, item.what, item.where.partition(":")[0])
            first = problems.get(key)
            problems[key] = item if first is None else replace(first, count=(first.count or 1) + (item.count or 1))
    if problems:
        raise DataError(*problems.values())
    return pieces


def _stage(task: StageTask) -> StagedPiece:
    schema = task.source.schema
    ledger, examples = Ledger(), dict[str, tuple[tuple[str, str], ...]]()
    refusals: list[Finding] = []
    with contextlib.ExitStack() as stack:
        writer = _FileWriter(task, stack)
        rejects = RejectWriter(task.folder, f"{task.index:05d}")
        for batch in _narrowed(task.source.read(task.piece), schema):
            with placed(batch.label, batch.first_row):
                part = _stage_batch(batch, schema, task, writer, rejects)
            ledger += part.ledger
            examples = merge_examples(examples, part.examples)
            refusals += part.refusals
        rejects.flush()
    staged = writer.files()
    return StagedPiece(task.index, task.piece.label, task.piece.role, staged, ledger, examples, _sum_findings(refusals))


def _narrowed(batches: Iterator[SourceBatch], schema: Schema) -> Iterator[SourceBatch]:
    """Cut batches with long vectors into shorter ones, which take less memory at once."""
    width = sum(feature.size for feature in schema.embeddings)
    most = max(1, _WIDE_VALUES // width) if width else 0
    for batch in batches:
        if not width or batch.table.num_rows <= most:
            yield batch
            continue
        for start in range(0, batch.table.num_rows, most):
            part = batch.table.slice(start, most)
            values, left = ({}, {}) if start else (batch.values, batch.filtered)
            yield SourceBatch(part, batch.label, batch.first_row + start, values, left)


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
    )
    features, lost = canonical(table, schema)
    whole = pa.RecordBatch.from_pydict(features) if features else table
    feature_faults(whole, schema, faults)
    numbered = np.arange(batch.first_row, batch.first_row + rows)
    staged = {**features, **label_columns(parsed.labels), ROW: pa.array(numbered)}
    if task.policy == "set_click":
        staged[f"{LABEL}set_click"] = pa.array(parsed.orphans.astype(np.int8))
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
    left = dict(batch.filtered)
    ledger = Ledger(read=rows + sum(left.values()), rejected=faults.counts(), filtered=left, values=values)
    refusals = tuple(located(finding, batch.label, batch.first_row) for finding in parsed.refusals)
    return _BatchPart(ledger, faults.located(batch.label, batch.first_row), refusals)


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
            columns[LABEL + entry.name] = pa.array(values)
        elif len(values) and values[0] is None:
            columns[LABEL + entry.name] = pa.nulls(len(values))
        else:
            columns[LABEL + entry.name] = pa.array(values, pa.large_string())
    return columns


class _FileWriter:
    """Writes batches to numbered files, a new one where the types change (a column that was null or narrow so far)."""

    def __init__(self, task: StageTask, stack: contextlib.ExitStack) -> None:
        self._task, self._stack = task, stack
        self._found: list[StagedFile] = []
        self._writer: BlockWriter | None = None
        self._types: dict[str, str] = {}
        self._wide: set[str] = set()
        self._rows = 0
        self._span: tuple[int, int] | None = None

    def write(self, batch: pa.RecordBatch) -> None:
        types = {item.name: str(item.type) for item in batch.schema}
        slim = self._slim(batch)
        if self._writer is None or self._writer.schema != slim.schema:
            self._finish()
            name = f"staged-{self._task.index:05d}-{len(self._found):03d}.arrow"
            self._writer, self._types = BlockWriter(self._task.folder / name), types
            self._stack.push(self._writer)
        ids = _ascending(batch)
        if not self._rows:
            self._span = ids
        elif self._span is not None:
            self._span = (self._span[0], ids[1]) if ids is not None and self._span[1] < ids[0] else None
        self._writer.write(slim)
        self._rows += batch.num_rows

    def _slim(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Return the columns narrowed; one that was too wide once stays wide, or files would open again and again."""
        columns = {}
        for name, array in zip(batch.schema.names, batch.columns, strict=True):
            slim = array if name in self._wide else narrowed(array)
            if slim is array and len(array) != array.null_count:
                self._wide.add(name)
            columns[name] = slim
        return pa.RecordBatch.from_pydict(columns)

    def _finish(self) -> None:
        if self._writer is None:
            return
        self._writer.close()
        self._found.append(StagedFile(self._writer.path, self._rows, self._types, self._span))
        self._writer, self._rows = None, 0

    def files(self) -> tuple[StagedFile, ...]:
        self._finish()
        return tuple(self._found)


def _ascending(batch: pa.RecordBatch) -> tuple[int, int] | None:
    """Return the first and the last exposure id where each is larger than the one before."""
    ids = batch.column(f"{LABEL}exposure_id")
    if not pa.types.is_int64(ids.type):
        return None
    values = np.asarray(ids)
    return (int(values[0]), int(values[-1])) if bool((values[1:] > values[:-1]).all()) else None
