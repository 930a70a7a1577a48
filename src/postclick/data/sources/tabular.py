"""CSV, Parquet and Arrow IPC files, and frames and tables in memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from postclick.data.fingerprint import FileMark, check_unchanged, marks_of
from postclick.data.sources.base import Piece, SourceBatch, SourceProtocol, ValueCounts
from postclick.data.sources.csv_files import CsvPlan, csv_batches, csv_plans
from postclick.data.sources.csv_ranges import CsvRange, csv_ranges
from postclick.data.sources.differences import clock_notes, compared, drifted, ignored_columns
from postclick.data.sources.inputs import Inputs, RawFile, is_csv, raw_inputs
from postclick.errors import DataError, Finding, InputMissingError
from postclick.schema import Schema
from postclick.schema.check import check_columns
from postclick.schema.csv_text import CutEnd
from postclick.schema.inference import propose
from postclick.schema.parquet_files import parquet_batches, reading
from postclick.schema.parquet_footer import read_footer
from postclick.schema.sampling import (
    MISSING_WORDS,
    TextKind,
    castable,
    head,
    ipc_batches,
    ipc_reader,
    raw_format,
    text_kind,
    typed,
)

__all__ = ["BATCH_ROWS", "CUT_LINES", "TabularSource"]

BATCH_ROWS = 65_536
CUT_LINES = "cut lines"
"""In `SourceBatch.values`: a last line that was cut off, rejected."""
_PIECE_ROWS = 250_000
_SAMPLE_ROWS = 20_000
_LATER_SAMPLE_ROWS = 1_000


@dataclass(frozen=True)
class TabularSource:
    """Rows of files or tables whose columns are named.

    Parameters
    ----------
    protocol, schema
        As `Source`.
    files
        What is read, in order.
    csv
        Label of a CSV file -> how it is read.
    kinds
        Column -> what its text is in all CSV files sampled: ids are int64 only where every one is a whole number.
    marks
        Path -> what the file looked like before its first rows were looked at (D08).
    cut_ends
        A CSV may end in the middle of its last line, which is then counted as `CUT_LINES`; else that is refused.
    """

    protocol: SourceProtocol
    schema: Schema
    files: tuple[RawFile, ...]
    csv: Mapping[str, CsvPlan] = field(default_factory=dict)
    kinds: Mapping[str, TextKind] = field(default_factory=dict)
    marks: Mapping[str, FileMark] = field(default_factory=dict, repr=False)
    cut_ends: bool = False

    @classmethod
    def open(
        cls,
        inputs: Inputs,
        *,
        schema: Schema | None = None,
        labels: bool = True,
        protocol: SourceProtocol | None = None,
        cut_ends: bool = False,
    ) -> TabularSource:
        """Look at every file's names and first rows; check them all against the schema, or infer one.

        Parameters
        ----------
        inputs
            Files, folders, globs, frames and tables by role.
        schema
            None infers one from the training rows.
        labels
            False: funnel columns may be missing (scoring).
        protocol
            What a source of fixed format declares.
        cut_ends
            A CSV may end in the middle of its last line.

        Raises
        ------
        InputMissingError
            ``input.missing``, ``input.wrong_kind``, ``data.empty`` (not one row).
        DataError
            ``data.schema_mismatch`` (all files' findings together), ``data.csv``, ``data.corrupt_file``.
        """
        files = raw_inputs(inputs)
        marks = marks_of(str(file.path) for file in files if file.path is not None)
        csv, notes = csv_plans(files, schema)
        samples = _samples(files, csv, cut_ends=cut_ends)
        if not any(len(sample) for sample in samples):
            where = ", ".join(file.label for file in files[:3])
            raise InputMissingError(Finding("data.empty", "no row at all", where, fix="pass files with rows"))
        kinds = _kinds(files, samples)
        schema = schema or _inferred(files, samples, kinds)
        _check(schema, files, samples, kinds, labels=labels)
        declared = protocol or SourceProtocol("tabular")
        notes += [*ignored_columns(schema, files, samples), *clock_notes(schema, samples, kinds)]
        declared = replace(declared, provider_split=inputs.has_roles, notes=(*declared.notes, *notes))
        return cls(declared, schema, tuple(files), csv, kinds, marks, cut_ends)

    def pieces(self) -> list[Piece]:
        """Ranges of a CSV, row groups of a Parquet file some together; one piece an IPC file or table."""
        found: list[Piece] = []
        for index, file in enumerate(self.files):
            if is_csv(file):
                found += _csv_pieces(file, index, self.csv.get(file.label))
            else:
                found += _pieces_of(file, index)
        return found

    def read(self, piece: Piece) -> Iterator[SourceBatch]:
        """Yield the piece's rows in batches of at most 65,536, the columns that the schema names in their raw types.

        Raises
        ------
        DataError
            ``data.changed_underfoot`` where the file is not the one that was opened; else what is wrong with it.
        """
        marks = [self.marks[path] for path in piece.paths]
        check_unchanged(marks)
        try:
            yield from self._read(piece)
        except DataError:
            check_unchanged(marks)  # a file that is being written looks damaged, but the cause is this
            raise
        check_unchanged(marks)

    def _read(self, piece: Piece) -> Iterator[SourceBatch]:
        index, groups, row = piece.payload
        file = self.files[index]
        wanted = self.schema.raw_columns()
        cut_end = CutEnd() if self.cut_ends else None
        for batch in self._batches(file, groups, wanted, cut_end):
            present = [name for name in wanted if name in batch.schema.names]
            chosen = batch.select(present)
            for start in range(0, batch.num_rows, BATCH_ROWS):
                part = chosen.slice(start, BATCH_ROWS)
                yield SourceBatch(part, file.label, row)
                row += part.num_rows
        if cut_end is not None and cut_end.row is not None:
            nothing = pa.RecordBatch.from_pydict({name: pa.array([], pa.null()) for name in wanted})
            yield SourceBatch(nothing, file.label, row, {CUT_LINES: ValueCounts(read=1, rejected=1)})

    def _batches(
        self,
        file: RawFile,
        groups: tuple[int, ...] | CsvRange | None,
        names: tuple[str, ...],
        cut_end: CutEnd | None,
    ) -> Iterator[pa.RecordBatch]:
        if file.path is None:
            return iter(file.table.to_batches(max_chunksize=BATCH_ROWS))
        if isinstance(groups, CsvRange):
            return csv_batches(file, self.csv[file.label], self.schema, self.kinds, groups, cut_end)
        return _columnar_batches(file, groups, names)


def _samples(files: Sequence[RawFile], csv: Mapping[str, CsvPlan], *, cut_ends: bool = False) -> list[pa.Table]:
    """Return the first rows of every file; many of the first file of each role, fewer of the others."""
    seen: set[str | None] = set()
    samples = []
    for file in files:
        rows = _LATER_SAMPLE_ROWS if file.role in seen else _SAMPLE_ROWS
        if file.path is None:
            sample = file.table.slice(0, rows)
        else:
            plan = csv.get(file.label)
            names = plan.names if plan is not None and plan.skip == 0 and plan.names else None
            sample = head(file.path, rows, names, cut_end=cut_ends)
        if len(sample):
            seen.add(file.role)
        samples.append(sample)
    return samples


def _kinds(files: Sequence[RawFile], samples: Sequence[pa.Table]) -> dict[str, TextKind]:
    """Return what the text of each CSV column is over all files: the widest of the files' kinds."""
    found: dict[str, set[TextKind]] = {}
    for file, sample in zip(files, samples, strict=True):
        if is_csv(file):
            for name, column in zip(sample.column_names, sample.columns, strict=True):
                found.setdefault(name, set()).add(text_kind(column))
    return {name: _widest(kinds) for name, kinds in found.items()}


def _widest(kinds: set[TextKind]) -> TextKind:
    kinds = kinds - {"empty"}
    steps: tuple[TextKind, ...] = ("integer", "integral", "number")
    if kinds <= set(steps):
        return next((step for step in reversed(steps) if step in kinds), "empty")
    return kinds.pop() if len(kinds) == 1 else "text"


def _inferred(files: Sequence[RawFile], samples: Sequence[pa.Table], kinds: Mapping[str, TextKind]) -> Schema:
    """Infer from the training rows, or from those without a role, or from what there is."""
    pairs = [(file, sample) for file, sample in zip(files, samples, strict=True) if len(sample)]
    for role in ("train", None, "valid", "test"):
        chosen = next(((file, sample) for file, sample in pairs if file.role == role), None)
        if chosen is not None:
            break
    assert chosen is not None
    file, sample = chosen
    twice = [name for name, count in Counter(sample.column_names).items() if count > 1]
    if twice:
        what = f"columns occur more than once: {', '.join(map(repr, twice[:5]))}"
        fix = "give every column its own name; a file without a header needs --schema"
        raise DataError(Finding("data.schema_mismatch", what, file.label, fix=fix))
    return propose(_typed_as(sample, kinds) if is_csv(file) else sample)


def _typed_as(sample: pa.Table, kinds: Mapping[str, TextKind]) -> pa.Table:
    """Type a CSV sample; where the files disagree the column is text."""
    result = typed(sample)
    for place, name in enumerate(sample.column_names):
        if kinds.get(name) == "text":
            result = result.set_column(place, name, sample.column(place))
    return result


def _check(
    schema: Schema,
    files: Sequence[RawFile],
    samples: Sequence[pa.Table],
    kinds: Mapping[str, TextKind],
    *,
    labels: bool,
) -> None:
    """Check every file; the same mistake in many files is one finding with the first file and their number."""
    first: dict[tuple[str, str], Finding] = {}
    counts: Counter[tuple[str, str]] = Counter()
    for file, sample in zip(files, samples, strict=True):
        if not sample.num_columns:
            continue
        types = _csv_types(sample) if is_csv(file) else sample.schema
        for finding in check_columns(schema, types, file.label, labels=labels):
            key = (finding.what, finding.fix)
            first.setdefault(key, finding)
            counts[key] += 1
    found = [replace(item, count=counts[key]) if counts[key] > 1 else item for key, item in first.items()]
    found = [compared(item, schema, files, samples) for item in found] + drifted(schema, files, samples, kinds)
    if found:
        raise DataError(*found)


def _csv_types(sample: pa.Table) -> pa.Schema:
    """Return the types of a CSV's columns: numbers where Arrow reads numbers, else text, which any word may be."""
    kinds = []
    for column in sample.columns:
        known = column.filter(pc.invert(pc.is_in(column, pa.array(MISSING_WORDS))))
        kinds.append(pa.null() if len(known) == 0 else pa.float64() if castable(known, pa.float64()) else pa.string())
    return pa.schema(list(zip(sample.column_names, kinds, strict=True)))


def _csv_pieces(file: RawFile, index: int, plan: CsvPlan | None) -> Iterator[Piece]:
    assert file.path is not None
    parts = [CsvRange()] if plan is None else csv_ranges(file.path, file.label, plan.delimiter, plan.skip)
    for number, part in enumerate(parts):
        yield Piece(file.label, str(file.path), file.role, number, (index, part, part.first_row))


def _pieces_of(file: RawFile, index: int) -> Iterator[Piece]:
    path = None if file.path is None else str(file.path)
    if path is None or raw_format(Path(path)) != "parquet":
        yield Piece(file.label, path, file.role, 0, (index, None, 0))
        return
    groups: list[int] = []
    start = row = piece = 0
    sizes = [group.rows for group in read_footer(Path(path), file.label)]
    for group, size in enumerate(sizes):
        if groups and row - start + size > _PIECE_ROWS:
            yield Piece(file.label, path, file.role, piece, (index, tuple(groups), start))
            groups, start, piece = [], row, piece + 1
        groups.append(group)
        row += size
    if groups or not sizes:  # a file without row groups is a piece without rows, so that it is listed
        yield Piece(file.label, path, file.role, piece, (index, tuple(groups), start))


def _columnar_batches(
    file: RawFile, groups: tuple[int, ...] | None, names: tuple[str, ...]
) -> Iterator[pa.RecordBatch]:
    assert file.path is not None
    if groups is None:
        with reading(file.label), ipc_reader(file.path) as reader:
            yield from ipc_batches(reader)
        return
    yield from parquet_batches(file.path, file.label, BATCH_ROWS, groups, names)
