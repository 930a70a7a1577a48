"""Parquet from anywhere: opened with its checksums on, and measured before it is unpacked (D07, D24)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from postclick.errors import DataError, Finding
from postclick.schema.parquet_footer import GroupSizes, read_footer

__all__ = ["check_dictionaries", "measure", "open_parquet", "parquet_batches", "reading"]

_MOST_COLUMNS = 10_000
_LARGEST_GROUP = 16 << 30
_LARGEST_RATIO, _FREE_BYTES = 200, 256 << 20
_LONGEST_VALUE = 16 << 10
"""Bytes of one value of a dictionary: 65,536 rows of it are a gigabyte."""


@contextlib.contextmanager
def reading(where: str) -> Iterator[None]:
    """Turn what Arrow raises over a damaged file into ``data.corrupt_file`` that names it."""
    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        text = " ".join(str(error).split())
        raise DataError(Finding("data.corrupt_file", text, where, fix="replace the file")) from error


@contextlib.contextmanager
def open_parquet(path: Path, label: str) -> Iterator[pq.ParquetFile]:
    """Open a Parquet file, page checksums verified where the file has them.

    Raises
    ------
    DataError
        ``data.corrupt_file``: no Parquet, or a damaged footer. ``data.bomb``: more columns, larger row groups or
        columns that swell more than any honest file's.
    """
    measure(read_footer(path, label), label)
    with reading(label), pq.ParquetFile(path, page_checksum_verification=True) as file:
        yield file


def measure(groups: Sequence[GroupSizes], label: str) -> None:
    """Refuse what would fill the memory when unpacked (D24).

    Raises
    ------
    DataError
        ``data.bomb``.
    """
    fix = "if the file is what it should be, write it again with smaller row groups and less compression"
    for number, group in enumerate(groups):
        where = f"{label}:row group {number}"
        if len(group.chunks) > _MOST_COLUMNS:
            what = f"{len(group.chunks):,} columns, at most {_MOST_COLUMNS:,} are read"
            raise DataError(Finding("data.bomb", what, label, fix="keep the columns that are needed"))
        if group.full > _LARGEST_GROUP:
            what = f"a row group of {group.full:,} bytes, at most {_LARGEST_GROUP:,} are unpacked"
            raise DataError(Finding("data.bomb", what, where, fix=fix))
        for chunk in group.chunks:
            if chunk.full > _FREE_BYTES and chunk.full > _LARGEST_RATIO * max(chunk.packed, 1):
                what = f"{chunk.packed:,} compressed bytes would give {chunk.full:,}, "
                what += f"more than {_LARGEST_RATIO} times as many"
                raise DataError(Finding("data.bomb", what, f"{where}:{'.'.join(chunk.path)}", fix=fix))


def parquet_batches(
    path: Path, label: str, rows: int, groups: Sequence[int] | None = None, columns: Sequence[str] | None = None
) -> Iterator[pa.RecordBatch]:
    """Yield a Parquet file's rows.

    Parameters
    ----------
    path, label
        The file and its name for messages.
    rows
        Of a batch, at most.
    groups
        Numbers of the row groups; None is all.
    columns
        The columns wanted, those that are not there left out; None is all.

    Raises
    ------
    DataError
        ``data.corrupt_file`` with the row group, ``data.bomb``.
    """
    sizes = read_footer(path, label)
    with open_parquet(path, label) as file:
        have = file.schema_arrow.names
        names = [name for name in have if columns is None or name in columns]
        for group in range(len(sizes)) if groups is None else groups:
            where = f"{label}:row group {group}"
            check_dictionaries(path, sizes[group], group, names, where)
            given = 0
            with reading(where):
                for batch in file.iter_batches(batch_size=rows, row_groups=[group], columns=names):
                    given += batch.num_rows
                    yield batch
            if given != sizes[group].rows and names:
                what = f"the footer says {sizes[group].rows:,} rows, there are {given:,}"
                raise DataError(Finding("data.corrupt_file", what, where, fix="replace the file"))


def check_dictionaries(path: Path, sizes: GroupSizes, group: int, columns: Sequence[str], where: str) -> None:
    """Refuse a row group in which a dictionary holds a value so long that its rows would fill the memory.

    A megabyte of text that a million rows refer to takes a megabyte on disk and a terabyte unpacked. The dictionaries
    alone are read here.

    Parameters
    ----------
    path, sizes, group
        The file, and the row group with its number.
    columns
        Columns that will be read.
    where
        File and row group.

    Raises
    ------
    DataError
        ``data.bomb``.
    """
    # encoded bytes bound the longest value
    found = [chunk for chunk in sizes.chunks if chunk.text and chunk.coded and chunk.full > _LONGEST_VALUE]
    suspects = [chunk.path for chunk in found if chunk.path[0] in columns]
    if not suspects:
        return
    coded = [".".join(item) for item in suspects]
    with reading(where), pq.ParquetFile(path, read_dictionary=coded, page_checksum_verification=True) as file:
        names = list(dict.fromkeys(item[0] for item in suspects))
        batch = next(file.iter_batches(batch_size=1, row_groups=[group], columns=names), None)
    for name, array in [] if batch is None else zip(batch.schema.names, batch.columns, strict=True):
        longest = max((pc.max(pc.binary_length(part)).as_py() or 0 for part in _dictionaries(array)), default=0)
        if longest > _LONGEST_VALUE:
            what = f"a dictionary with a value of {longest:,} bytes, which every row may repeat"
            fix = "shorten the values, or write the column without dictionary encoding"
            raise DataError(Finding("data.bomb", what, f"{where}:{name}", fix=fix))


def _dictionaries(array: pa.Array) -> list[Any]:
    if pa.types.is_dictionary(array.type):
        return [array.dictionary]
    if pa.types.is_list(array.type) or pa.types.is_large_list(array.type):
        return _dictionaries(array.values)
    return []
