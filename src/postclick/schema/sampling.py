"""Raw files and frames as people have them: which files, which format, where a CSV's names are, the first rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from postclick.errors import DataError, Finding, InputMissingError, PostclickError, nearest
from postclick.schema.csv_text import CutEnd, csv_head
from postclick.schema.parquet_files import open_parquet, parquet_batches

__all__ = [
    "MISSING_WORDS",
    "TextKind",
    "absent",
    "castable",
    "glob_base",
    "head",
    "ipc_batches",
    "ipc_reader",
    "is_memory",
    "memory_table",
    "raw_files",
    "raw_format",
    "sample_table",
    "text_kind",
    "typed",
    "without_zone",
]

RawFormat: TypeAlias = Literal["csv", "parquet", "ipc"]
TextKind: TypeAlias = Literal["empty", "integer", "integral", "number", "boolean", "time", "text"]

_FORMATS: dict[str, RawFormat] = {
    ".csv": "csv",
    ".csv.gz": "csv",
    ".tsv": "csv",
    ".tsv.gz": "csv",
    ".txt": "csv",
    ".txt.gz": "csv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".arrow": "ipc",
    ".arrows": "ipc",
    ".feather": "ipc",
    ".ipc": "ipc",
}
MISSING_WORDS = ("", "NA", "N/A", "n/a", "#N/A", "nan", "NaN", "null", "NULL", "None", "\\N")
"""What stands for "no value" in a numeric CSV column; in a text column only the empty cell does ("NA" is Namibia)."""
_INTEGER = r"^(0|-?[1-9][0-9]{0,18})$"
_INTEGRAL = r"^(0|-?[1-9][0-9]{0,18})(\.0*)?$"
_NAME_OF_DIGITS = r"^-?(0[0-9]|[0-9]{17})"  # a float would lose the zeros or the last digits


def raw_format(path: Path) -> RawFormat | None:
    """Return the format that a file's name says, or None."""
    name = path.name.lower()
    return next((kind for suffix, kind in _FORMATS.items() if name.endswith(suffix)), None)


def raw_files(path: str | Path) -> list[Path]:
    """Return the files that a path, a glob or a folder stands for, sorted; an input that is not there exits 66.

    Raises
    ------
    InputMissingError
        ``input.missing`` with the nearest name in the folder, or ``input.wrong_kind`` for a file of no known format.
    """
    given = Path(path)
    if given.is_dir():
        inner = given / "exposures" if (given / "exposures").is_dir() else given
        found = [item for item in sorted(inner.rglob("*")) if item.is_file() and _visible(item.relative_to(inner))]
        files = [item for item in found if raw_format(item)]
        what = "the folder holds no CSV, Parquet or Arrow file"
        return files or _missing(Finding("input.missing", what, str(path), fix=f"known endings: {', '.join(_FORMATS)}"))
    if given.is_file():
        if raw_format(given) is None:
            what = f"unknown file ending {''.join(given.suffixes) or '(none)'!r}"
            _missing(Finding("input.wrong_kind", what, str(path), fix=f"known endings: {', '.join(_FORMATS)}"))
        return [given]
    if any(mark in str(path) for mark in "*?["):
        base = glob_base(given)
        found = [item for item in sorted(base.glob(str(given.relative_to(base)))) if item.is_file()]
        files = [item for item in found if _visible(item.relative_to(base)) and raw_format(item)]
        return files or _missing(Finding("input.missing", "the pattern matches no data file", str(path)))
    return _missing(absent(given))


def glob_base(path: Path) -> Path:
    """Return the part of a pattern before its first ``*``, ``?`` or ``[``."""
    plain = next(index for index, part in enumerate(path.parts) if any(mark in part for mark in "*?["))
    return Path(*path.parts[:plain])


def absent(path: Path) -> Finding:
    """Say that `path` is not there, with the nearest name beside it."""
    beside = [item.name for item in path.parent.iterdir()] if path.parent.is_dir() else []
    near = nearest(path.name, beside)
    fix = f"did you mean {str(path.parent / near)!r}?" if near else "check the path"
    return Finding("input.missing", "no such file or folder", str(path), fix=fix)


def _visible(path: Path) -> bool:
    return not any(part.startswith((".", "_")) for part in path.parts)


def _missing(finding: Finding) -> list[Path]:
    raise InputMissingError(finding)


def text_kind(values: pa.ChunkedArray | pa.Array) -> TextKind:
    """Say what the text of a CSV column is: the narrowest kind that every value (missing words aside) fits.

    ``integer``: fits int64 and is written as an integer without leading zeros, so that "007" stays text and 2^53 + 1
    stays exact; ``integral``: integers of which some are written ``12.0``, as frames with gaps write them.
    """
    values = values.filter(pc.invert(pc.is_in(values, pa.array(MISSING_WORDS)))).drop_null()
    if len(values) == 0:
        return "empty"
    for kind, pattern in (("integer", _INTEGER), ("integral", _INTEGRAL)):
        if pc.all(pc.match_substring_regex(values, pattern)).as_py():
            whole = pc.replace_substring_regex(values, r"\.0*$", "")
            return kind if castable(whole, pa.int64()) else "text"  # type: ignore[return-value]
    if pc.any(pc.match_substring_regex(values, _NAME_OF_DIGITS)).as_py():
        return "text"
    if castable(values, pa.float64()):
        return "number"
    if castable(values, pa.bool_()):
        return "boolean"
    return "time" if castable(without_zone(values), pa.timestamp("us")) else "text"


def without_zone(values: pa.ChunkedArray | pa.Array) -> pa.ChunkedArray | pa.Array:
    """Take the written time zone UTC off the end of timestamps."""
    return pc.replace_substring_regex(values, r"( ?UTC|Z|\+00:00)$", "")


def castable(values: Any, kind: pa.DataType) -> bool:
    """Whether Arrow reads every text as this type."""
    try:
        pc.cast(values, kind)
    except pa.ArrowInvalid:
        return False
    return True


def typed(table: pa.Table) -> pa.Table:
    """Give the text columns of a CSV sample the types that their values show."""
    columns = []
    for column in table.columns:
        kind = text_kind(column)
        missing = pa.array([""] if kind == "text" else MISSING_WORDS)
        values = pc.if_else(pc.is_in(column, missing), pa.scalar(None, pa.string()), column)
        if kind in ("integer", "integral"):
            values = pc.cast(pc.replace_substring_regex(values, r"\.0*$", ""), pa.int64())
        elif kind in ("number", "boolean"):
            values = pc.cast(values, pa.float64() if kind == "number" else pa.bool_())
        elif kind == "time":
            values = pc.cast(without_zone(values), pa.timestamp("us"))
        columns.append(pa.nulls(len(values)) if kind == "empty" else values)
    return pa.table(columns, names=table.column_names)


def head(path: Path, rows: int, names: Sequence[str] | None = None, *, cut_end: bool = False) -> pa.Table:
    """Return the first rows of a file: CSV cells as text, other formats as they are.

    Parameters
    ----------
    path
        A file of a known format.
    rows
        How many rows at most.
    names
        Column names of a CSV without a header.
    cut_end
        Pass over a CSV line with too few cells: it may be the last one, cut off.
    """
    kind = raw_format(path)
    try:
        if kind == "csv":
            return csv_head(path, rows, names, CutEnd() if cut_end else None)
        if kind == "parquet":
            with open_parquet(path, path.name) as file:
                schema = file.schema_arrow
            return _first(parquet_batches(path, path.name, min(rows, 65_536)), rows, schema)
        with ipc_reader(path) as reader:
            return _first(ipc_batches(reader), rows, reader.schema)
    except PostclickError:
        raise
    except (pa.ArrowException, OSError, EOFError) as error:
        raise DataError(Finding("data.corrupt_file", " ".join(str(error).split()), path.name)) from error


def _first(batches: Iterable[pa.RecordBatch], rows: int, schema: pa.Schema) -> pa.Table:
    taken, count = [], 0
    for batch in batches:
        taken.append(batch.slice(0, rows - count))
        count += taken[-1].num_rows
        if count >= rows:
            break
    return pa.Table.from_batches(taken, schema)


def ipc_reader(path: Path) -> Any:
    """Open an Arrow IPC file, or a stream where it is one, memory-mapped."""
    source = pa.memory_map(str(path))
    try:
        return pa.ipc.open_file(source)
    except pa.ArrowInvalid:
        source.seek(0)
        return pa.ipc.open_stream(source)


def ipc_batches(reader: Any) -> Iterable[pa.RecordBatch]:
    """Return the record batches of either kind of Arrow IPC reader."""
    if hasattr(reader, "num_record_batches"):
        return (reader.get_batch(index) for index in range(reader.num_record_batches))
    return (batch for batch in reader)


def is_memory(source: object) -> bool:
    """Return whether `source` is data in memory rather than a path."""
    if isinstance(source, pa.Table | pa.RecordBatch | Mapping):
        return True
    return hasattr(source, "__dataframe__") or hasattr(source, "__arrow_c_stream__")


def memory_table(source: Any) -> pa.Table:
    """Return a frame (Polars, pandas), an Arrow table or batch, or a dict of arrays as an Arrow table.

    Raises
    ------
    InputMissingError
        ``input.wrong_kind`` where it is none of these.
    """
    try:
        if isinstance(source, pa.Table):
            return source
        if isinstance(source, pa.RecordBatch):
            return pa.Table.from_batches([source])
        if isinstance(source, Mapping):
            return pa.table({str(name): _column(values) for name, values in source.items()})
        if type(source).__module__.startswith("pandas"):
            return pa.Table.from_pandas(source, preserve_index=False).replace_schema_metadata(None)
        if hasattr(source, "__arrow_c_stream__"):
            return pa.table(source)
    except (pa.ArrowException, TypeError, ValueError) as error:
        what = f"cannot read this {type(source).__name__} as columns: {' '.join(str(error).split())}"
        fix = "give each column one type and all columns the same length"
        raise DataError(Finding("data.schema_mismatch", what, "in memory", fix=fix)) from error
    what = f"expected a path, a frame, a table or a dict of arrays, got {type(source).__name__}"
    raise InputMissingError(Finding("input.wrong_kind", what, fix="pass a path or a frame"))


def _column(values: Any) -> pa.Array:
    if getattr(values, "ndim", 1) == 2:
        return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])
    return pa.array(values)


def sample_table(source: Any, rows: int = 20_000) -> pa.Table:
    """Return the first `rows` rows of a path, folder, glob, frame, table or dict, with the types that the values show.

    Files beyond the first are opened only while rows are missing; a file with other columns than the first is left
    to the check of the source.
    """
    if is_memory(source):
        return memory_table(source).slice(0, rows)
    if not isinstance(source, str | Path):
        return memory_table(source)
    parts: list[pa.Table] = []
    for path in raw_files(source):
        part = head(path, rows - sum(len(item) for item in parts))
        if part.num_columns and (not parts or part.schema.equals(parts[0].schema)):
            parts.append(part)
        if sum(len(item) for item in parts) >= rows:
            break
    if not parts:
        raise InputMissingError(Finding("data.empty", "no row at all", str(source), fix="pass files with rows"))
    table = pa.concat_tables(parts)
    return typed(table) if raw_format(raw_files(source)[0]) == "csv" else table
