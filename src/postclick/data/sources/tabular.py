"""CSV, Parquet and Arrow IPC files, and frames and tables in memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from postclick.data.sources.base import Piece, SourceBatch, SourceProtocol
from postclick.data.sources.csv_files import CsvPlan, csv_batches, csv_plans
from postclick.data.sources.inputs import Inputs, RawFile, is_csv, raw_inputs
from postclick.errors import DataError, Finding, InputMissingError
from postclick.schema import Schema
from postclick.schema.check import check_columns
from postclick.schema.inference import propose
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

__all__ = ["BATCH_ROWS", "TabularSource"]

BATCH_ROWS = 65_536
_PIECE_ROWS = 1_000_000
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
    """

    protocol: SourceProtocol
    schema: Schema
    files: tuple[RawFile, ...]
    csv: Mapping[str, CsvPlan] = field(default_factory=dict)
    kinds: Mapping[str, TextKind] = field(default_factory=dict)

    @classmethod
    def open(
        cls,
        inputs: Inputs,
        *,
        schema: Schema | None = None,
        labels: bool = True,
        protocol: SourceProtocol | None = None,
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

        Raises
        ------
        InputMissingError
            ``input.missing``, ``input.wrong_kind``, ``data.empty`` (not one row).
        DataError
            ``data.schema_mismatch`` (all files' findings together), ``data.csv``, ``data.corrupt_file``.
        """
        files = raw_inputs(inputs)
        csv, notes = csv_plans(files, schema)
        samples = _samples(files, csv)
        if not any(len(sample) for sample in samples):
            where = ", ".join(file.label for file in files[:3])
            raise InputMissingError(Finding("data.empty", "no row at all", where, fix="pass files with rows"))
        kinds = _kinds(files, samples)
        schema = schema or _inferred(files, samples, kinds)
        _check(schema, files, samples, labels=labels)
        declared = protocol or SourceProtocol("tabular")
        notes += _ignored(schema, samples)
        declared = replace(declared, provider_split=inputs.has_roles, notes=(*declared.notes, *notes))
        return cls(declared, schema, tuple(files), csv, kinds)

    def pieces(self) -> list[Piece]:
        """One piece a CSV or IPC file or table; row groups of about a million rows together for Parquet."""
        return [piece for index, file in enumerate(self.files) for piece in _pieces_of(file, index)]

    def read(self, piece: Piece) -> Iterator[SourceBatch]:
        """Yield the piece's rows in batches of at most 65,536, the columns that the schema names in their raw types."""
        index, groups, row = piece.payload
        file = self.files[index]
        wanted = self.schema.raw_columns()
        for batch in self._batches(file, groups, wanted):
            present = [name for name in wanted if name in batch.schema.names]
            chosen = batch.select(present)
            for start in range(0, batch.num_rows, BATCH_ROWS):
                part = chosen.slice(start, BATCH_ROWS)
                yield SourceBatch(part, file.label, row)
                row += part.num_rows

    def _batches(
        self, file: RawFile, groups: tuple[int, ...] | None, names: tuple[str, ...]
    ) -> Iterator[pa.RecordBatch]:
        if file.path is None:
            return iter(file.table.to_batches(max_chunksize=BATCH_ROWS))
        if is_csv(file):
            return csv_batches(file, self.csv[file.label], self.schema, self.kinds)
        return _columnar_batches(file, groups, names)


def _samples(files: Sequence[RawFile], csv: Mapping[str, CsvPlan]) -> list[pa.Table]:
    """Return the first rows of every file; many of the first file of each role, fewer of the others."""
    seen: set[str | None] = set()
    samples = []
    for file in files:
        rows = _LATER_SAMPLE_ROWS if file.role in seen else _SAMPLE_ROWS
        if file.path is None:
            sample = file.table.slice(0, rows)
        else:
            plan = csv.get(file.label)
            sample = head(file.path, rows, plan.names if plan is not None and plan.skip == 0 and plan.names else None)
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


def _check(schema: Schema, files: Sequence[RawFile], samples: Sequence[pa.Table], *, labels: bool) -> None:
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
    if first:
        raise DataError(*(replace(item, count=counts[key]) if counts[key] > 1 else item for key, item in first.items()))


def _csv_types(sample: pa.Table) -> pa.Schema:
    """Return the types of a CSV's columns: numbers where Arrow reads numbers, else text, which any word may be."""
    kinds = []
    for column in sample.columns:
        known = column.filter(pc.invert(pc.is_in(column, pa.array(MISSING_WORDS))))
        kinds.append(pa.null() if len(known) == 0 else pa.float64() if castable(known, pa.float64()) else pa.string())
    return pa.schema(list(zip(sample.column_names, kinds, strict=True)))


def _ignored(schema: Schema, samples: Sequence[pa.Table]) -> list[str]:
    known = set(schema.raw_columns())
    extra = list(dict.fromkeys(name for sample in samples for name in sample.column_names if name not in known))
    if not extra:
        return []
    shown = ", ".join(extra[:8]) + (", ..." if len(extra) > 8 else "")
    return [f"{len(extra)} column{'s' * (len(extra) > 1)} not in the schema and ignored: {shown}"]


def _pieces_of(file: RawFile, index: int) -> Iterator[Piece]:
    path = None if file.path is None else str(file.path)
    if path is None or raw_format(Path(path)) != "parquet":
        yield Piece(file.label, path, file.role, 0, (index, None, 0))
        return
    groups: list[int] = []
    start = row = piece = 0
    with _Reading(file.label), pq.ParquetFile(path) as opened:
        sizes = [opened.metadata.row_group(group).num_rows for group in range(opened.num_row_groups)]
    for group, size in enumerate(sizes):
        if groups and row - start + size > _PIECE_ROWS:
            yield Piece(file.label, path, file.role, piece, (index, tuple(groups), start))
            groups, start, piece = [], row, piece + 1
        groups.append(group)
        row += size
    if groups:
        yield Piece(file.label, path, file.role, piece, (index, tuple(groups), start))


class _Reading:
    """Turn what Arrow raises over a damaged file into a typed error that names it."""

    def __init__(self, where: str) -> None:
        self.where = where

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, pa.ArrowException | OSError):
            text = " ".join(str(error).split())
            raise DataError(Finding("data.corrupt_file", text, self.where, fix="replace the file")) from error


def _columnar_batches(
    file: RawFile, groups: tuple[int, ...] | None, names: tuple[str, ...]
) -> Iterator[pa.RecordBatch]:
    assert file.path is not None
    if groups is None:
        with _Reading(file.label), ipc_reader(file.path) as reader:
            yield from ipc_batches(reader)
        return
    with _Reading(file.label), pq.ParquetFile(file.path) as opened:
        columns = [name for name in names if name in opened.schema_arrow.names]
        for group in groups:
            with _Reading(f"{file.label}:row group {group}"):
                yield from opened.iter_batches(batch_size=BATCH_ROWS, row_groups=[group], columns=columns)
