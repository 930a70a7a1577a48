"""Arrow IPC files, written atomically and read memory-mapped."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from postclick import files
from postclick.errors import DataError, Finding

__all__ = ["BlockWriter", "read_batches", "read_table", "write_table"]


class BlockWriter:
    """Writes record batches of one schema to one file; the file appears at `close`, and only if there was a batch.

    Parameters
    ----------
    path
        The file; it is not compressed, so that it can be read without a copy.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stack = contextlib.ExitStack()
        self._writer: pa.RecordBatchFileWriter | None = None
        self.schema: pa.Schema | None = None

    def write(self, batch: pa.RecordBatch) -> None:
        """Append one batch."""
        if self._writer is None:
            handle = self._stack.enter_context(files.create(self.path))
            self.schema = batch.schema
            self._writer = self._stack.enter_context(pa.ipc.new_file(handle, batch.schema))
        self._writer.write_batch(batch)

    def close(self) -> None:
        """Finish the file."""
        self._stack.close()

    def __enter__(self) -> BlockWriter:
        return self

    def __exit__(self, *error: object) -> bool | None:
        return self._stack.__exit__(*error)  # type: ignore[arg-type]


def write_table(path: Path, table: pa.Table) -> None:
    """Write a table as one file."""
    with files.create(path) as handle, pa.ipc.new_file(handle, table.schema) as writer:
        writer.write_table(table)


def read_table(path: Path, data: bytes | None = None) -> pa.Table:
    """Read a whole file, memory-mapped, or its bytes where somebody has read (and checked) them already.

    Raises
    ------
    DataError
        ``data.corrupt_file`` where it is no Arrow file.
    """
    try:
        return pa.ipc.open_file(pa.memory_map(str(path)) if data is None else pa.BufferReader(data)).read_all()
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(Finding("data.corrupt_file", str(error), str(path))) from error


def read_batches(path: Path, names: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
    """Yield the batches of a file one by one; with `names`, only those columns are read."""
    source = pa.memory_map(str(path))
    options = None
    if names is not None:
        schema = pa.ipc.open_file(source).schema
        options = pa.ipc.IpcReadOptions(included_fields=[schema.get_field_index(name) for name in names])
    reader = pa.ipc.open_file(source, options=options)
    for index in range(reader.num_record_batches):
        yield reader.get_batch(index)
