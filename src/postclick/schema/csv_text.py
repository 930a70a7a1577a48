"""CSV as people write it: its delimiter and header, its first rows, and what is wrong with it by line."""

from __future__ import annotations

import csv
import gzip
import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as arrow_csv

from postclick.errors import DataError, Finding, PostclickError
from postclick.schema.csv_stream import CsvStream, QuoteCheck, line_of, long_line

__all__ = ["BLOCK_BYTES", "CsvLayout", "CutEnd", "csv_error", "csv_head", "csv_layout", "open_csv"]

BLOCK_BYTES = 4 << 20
"""Bytes parsed at once; a row that is longer is refused."""
_DELIMITERS = (",", "\t", ";", "|")
_OTHER_DELIMITERS = ("^", "~", ":", "\x01", "\x02", "\x03", "#", "/", " ")
_HEAD_BYTES = 1 << 20
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


@dataclass(frozen=True)
class CsvLayout:
    """How a CSV file is to be read.

    Parameters
    ----------
    delimiter
        One of ``, tab ; |``.
    names
        The cells of its first record: column names, or values where `names` turn out to be data.
    records
        The first records, the first one included.
    header_lines
        Lines up to the end of the first record (blank ones before it, line breaks inside its quotes).
    """

    delimiter: str
    names: tuple[str, ...]
    records: tuple[tuple[str, ...], ...] = ()
    header_lines: int = 1


class CutEnd:
    """Lets a file end in the middle of its last line, as the head of a log does; the parser asks it of ragged rows."""

    def __init__(self) -> None:
        self.row: Any = None
        """The first row with too few cells, as Arrow describes it; None while every row is whole."""

    def __call__(self, row: Any) -> str:
        """Pass over the first row with too few cells; whether it was the last one is for the reader to say."""
        if self.row is not None or row.actual_columns > row.expected_columns:
            return "error"
        self.row = row
        return "skip"

    def refuse_unless_last(self, records: int) -> None:
        """Raise what Arrow would have raised, where more records followed.

        Parameters
        ----------
        records
            Whole records read, those before the first one included.
        """
        row = self.row
        if row is not None and row.number != records + 1:
            what = f"Expected {row.expected_columns} columns, got {row.actual_columns}: {row.text}"
            raise pa.ArrowInvalid(f"CSV parse error: Row #{row.number}: {what}")


def csv_layout(path: Path, wanted: Iterable[str] = ()) -> CsvLayout:
    """Find a CSV's delimiter: the one under which the first records have the same number of cells, more than one.

    A header that holds `wanted` names settles it; on a tie the most cells win. An empty file has no names.

    Raises
    ------
    DataError
        ``data.csv``: a delimiter that is none of ``, tab ; |``, a quote that is not closed. ``data.text``: a header
        that is not UTF-8. ``data.corrupt_file``: damaged compression.
    """
    data = _first_bytes(path)
    records = {delimiter: _records(data, path, delimiter) for delimiter in _DELIMITERS}
    names = set(wanted)

    def rank(delimiter: str) -> tuple[int, bool, int]:
        rows = records[delimiter][0]
        even = len({len(row) for row in rows}) == 1 and len(rows[0]) > 1
        return (len(names & set(rows[0])), even, len(rows[0])) if rows else (0, False, 0)

    best = max(_DELIMITERS, key=rank)
    rows, lines = records[best]
    if rows and any("\ufffd" in cell for cell in rows[0]):
        raise DataError(Finding("data.text", "the first line is not UTF-8", f"{path.name}:1", fix=_UTF8))
    if rows and len(rows[0]) == 1:
        _refuse_other_delimiter(rows, path)
    return CsvLayout(best, rows[0] if rows else (), tuple(rows), lines)


_UTF8 = "write the file as UTF-8"


def _first_bytes(path: Path) -> bytes:
    opener: Any = gzip.open if path.name.lower().endswith(".gz") else open
    try:
        with opener(path, "rb") as handle:
            data: bytes = handle.read(_HEAD_BYTES)
    except (OSError, EOFError) as error:
        raise DataError(Finding("data.corrupt_file", str(error), path.name, fix="replace the file")) from error
    if data.startswith(_UTF16):
        raise DataError(Finding("data.text", "the file is UTF-16", f"{path.name}:1", fix=_UTF8))
    return (data[: data.rfind(b"\n") + 1] or data) if len(data) == _HEAD_BYTES else data


def _records(data: bytes, path: Path, delimiter: str, limit: int = 20) -> tuple[list[tuple[str, ...]], int]:
    text = data.decode("utf-8-sig", "replace")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    rows: list[tuple[str, ...]] = []
    lines = 1
    try:
        for row in reader:
            rows += [tuple(row)] if row else []
            lines = reader.line_num if len(rows) <= 1 else lines
            if len(rows) == limit:
                break
    except csv.Error as error:
        check = QuoteCheck(delimiter, path.name)
        check.feed(data)
        if check.opened is not None:
            what = "a quote is opened here and not closed for a long way"
            place, fix = f"{path.name}:{check.opened}", "close the quote; a quote inside a quoted cell is doubled"
            raise DataError(Finding("data.csv", what, place, fix=fix)) from error
        raise _too_long(path, csv.field_size_limit()) from error
    return rows, lines


def _too_long(path: Path, limit: int) -> DataError:
    line = long_line(path, limit)
    place = path.name if line is None else f"{path.name}:{line}"
    what = f"a cell or a line of more than {limit:,} bytes"
    return DataError(Finding("data.text", what, place, fix="shorten it, or leave the column out"))


def _refuse_other_delimiter(rows: Sequence[tuple[str, ...]], path: Path) -> None:
    """Refuse a file of one column whose every line another mark would cut into the same number of cells."""
    for mark in _OTHER_DELIMITERS:
        widths = {row[0].count(mark) + 1 for row in rows}
        if len(widths) == 1 and len(rows) > 1 and (width := widths.pop()) >= 3:
            what = f"one column, though {mark!r} would give {width}"
            fix = "write the file with a comma, a tab, a semicolon or a bar between its cells"
            raise DataError(Finding("data.csv", what, f"{path.name}:1", examples=rows[0], fix=fix))


def csv_error(
    error: Exception,
    label: str,
    path: Path | None = None,
    delimiter: str = ",",
    skip: int = 0,
    before: int | None = None,
) -> DataError:
    """Turn what Arrow says of a malformed CSV into a typed error with file and line.

    Parameters
    ----------
    error
        Arrow's.
    label
        The file's name for people.
    path, delimiter, skip
        The file, its delimiter and the lines before its first record: with them the line is named, else the record.
    before
        Records before the first one that Arrow has seen; None where it has seen the lines before the first, too.
    """
    before = -skip if before is None else before
    text = " ".join(str(error).split())
    place = label
    if row := re.search(r"Row #(\d+)", text):
        number = int(row.group(1))
        place = f"{label}:{number if path is None else line_of(path, delimiter, skip, number + before)}"
    if "UTF8" in text or "utf-8" in text.lower():
        return DataError(Finding("data.text", "text that is not UTF-8", place, fix=_UTF8))
    if "straddling" in text and path is not None:
        return _too_long(path, BLOCK_BYTES // 2)
    fix = "repair the row: every row needs as many cells as the header, text with the delimiter in quotes"
    if ragged := re.search(r"(Expected \d+ columns, got \d+)(?:: (.*))?", text):
        what, cells = ragged.groups()
        return DataError(Finding("data.csv", f"a ragged row: {what}", place, examples=(cells or "",), fix=fix))
    return DataError(Finding("data.csv", text, place, fix=fix))


def open_csv(
    path: Path,
    label: str,
    delimiter: str,
    skip: int,
    types: dict[str, pa.DataType],
    missing: Sequence[str] | None = None,
    span: tuple[int, int | None] = (0, None),
    cut_end: CutEnd | None = None,
) -> arrow_csv.CSVStreamingReader:
    """Open a CSV for streaming; its columns are called by their position, for a header may name one twice.

    Parameters
    ----------
    path, label
        The file and its name for messages.
    delimiter
        Of its cells.
    skip
        Lines before the first record.
    types
        Position -> type, of all columns in order; null leaves a column out.
    missing
        Words that stand for no value; None keeps Arrow's.
    span
        First byte and end of the whole records to read; the lines to skip are in it where it starts the file.
    cut_end
        Passes over a last line that is cut off; None refuses it as any ragged row.
    """
    skip = 0 if span[0] else skip
    read = arrow_csv.ReadOptions(use_threads=False, block_size=BLOCK_BYTES, column_names=list(types), skip_rows=skip)
    parse = arrow_csv.ParseOptions(delimiter=delimiter, newlines_in_values=True, invalid_row_handler=cut_end)
    kept = {place: kind for place, kind in types.items() if not pa.types.is_null(kind)}
    convert = arrow_csv.ConvertOptions(
        column_types=kept,
        include_columns=list(kept),
        null_values=None if missing is None else list(missing),
        strings_can_be_null=False,
    )
    stream = CsvStream(path, label, delimiter, *span)
    return arrow_csv.open_csv(stream, read_options=read, parse_options=parse, convert_options=convert)


def csv_head(path: Path, rows: int, names: Sequence[str] | None = None, cut_end: CutEnd | None = None) -> pa.Table:
    """Return the first rows of a CSV, every cell as text.

    Parameters
    ----------
    path
        The file.
    rows
        How many rows at most.
    names
        Column names where the file has no header.
    cut_end
        As for `open_csv`.
    """
    layout = csv_layout(path, names or ())
    columns = list(names or layout.names)
    if not columns:
        return pa.table({})
    if len(layout.records) == (0 if names else 1):
        return pa.table([pa.array([], pa.string()) for _ in columns], names=columns)
    skip = 0 if names else layout.header_lines
    types = {str(place): pa.string() for place in range(len(columns))}
    taken: list[pa.RecordBatch] = []
    try:
        with open_csv(path, path.name, layout.delimiter, skip, types, cut_end=cut_end) as reader:
            for batch in reader:
                taken.append(batch.slice(0, rows - sum(part.num_rows for part in taken)))
                if sum(part.num_rows for part in taken) >= rows:
                    break
            return pa.Table.from_batches(taken, reader.schema).rename_columns(columns)
    except PostclickError:
        raise
    except pa.ArrowException as error:
        raise csv_error(error, path.name, path, layout.delimiter, skip) from error
    except (OSError, EOFError) as error:
        raise DataError(Finding("data.corrupt_file", str(error), path.name, fix="replace the file")) from error
