"""Rows that go to quarantine, collected while a piece is read and written as Parquet."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from postclick import files
from postclick.data.log import BLOCK_ROWS

__all__ = ["RejectWriter"]


class RejectWriter:
    """Collects rejected rows and writes them as Parquet, at most a block of them in memory.

    Parameters
    ----------
    folder
        Scratch folder; files go to its ``rejects``.
    name
        Start of the file names.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self._folder, self._name = folder / "rejects", name
        self._tables: list[pa.Table] = []
        self._count = 0

    def write(self, rows: pa.RecordBatch, reasons: list[str], label: str, numbers_of_rows: NDArray[np.int64]) -> None:
        """Take rejected rows in, each with its reason, file and row number."""
        taken = {"reason", "file", "row"}
        names = [f"raw:{name}" if name in taken else name for name in rows.schema.names]
        raw = pa.Table.from_batches([rows]).rename_columns(names)
        raw = raw.add_column(0, "row", pa.array(numbers_of_rows))
        raw = raw.add_column(0, "file", pa.array([label] * raw.num_rows, pa.large_string()))
        table = raw.add_column(0, "reason", pa.array(reasons, pa.large_string()))
        if self._tables and self._tables[0].schema != table.schema:
            self.flush()
        self._tables.append(table)
        if sum(item.num_rows for item in self._tables) >= BLOCK_ROWS:
            self.flush()

    def flush(self) -> None:
        """Write what was collected."""
        if self._tables:
            with files.create(self._folder / f"{self._name}-{self._count:03d}.parquet") as handle:
                pq.write_table(pa.concat_tables(self._tables), handle)
            self._tables, self._count = [], self._count + 1
