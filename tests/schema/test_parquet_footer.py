"""Sizes from the footer are Arrow's own; a footer that makes no sense is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from postclick.errors import DataError
from postclick.schema.parquet_footer import read_footer

TABLE = pa.table(
    {
        "number": np.arange(1_000),
        "word": [f"w{n % 7}" for n in range(1_000)],
        "tags": [[f"t{n % 3}", "x"] for n in range(1_000)],
        "weights": [[0.5] * (n % 4) for n in range(1_000)],
        "flag": [n % 2 == 0 for n in range(1_000)],
        "nothing": pa.nulls(1_000),
    }
)


@pytest.mark.parametrize("options", [{}, {"version": "1.0"}, {"use_dictionary": False}, {"compression": "zstd"}])
def test_the_footer_is_read_as_arrow_reads_it(tmp_path: Path, options: dict) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(TABLE, path, row_group_size=300, store_schema=True, **options)
    metadata = pq.read_metadata(path)
    groups = read_footer(path, "x")
    assert [group.rows for group in groups] == [300, 300, 300, 100]
    for number, group in enumerate(groups):
        wanted = metadata.row_group(number)
        assert group.full >= wanted.total_byte_size
        for place, chunk in enumerate(group.chunks):
            column = wanted.column(place)
            assert ".".join(chunk.path) == column.path_in_schema
            assert (chunk.packed, chunk.full) == (column.total_compressed_size, column.total_uncompressed_size)
            assert chunk.coded == column.has_dictionary_page
            assert chunk.text == (column.physical_type == "BYTE_ARRAY")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "cut short"),
        (b"no parquet at all", "cut short"),
        (b"PAR1" + (10**6).to_bytes(4, "little") + b"PAR1", "length of the footer"),
        (b"PAR1" + b"\xff" * 40 + (40).to_bytes(4, "little") + b"PAR1", "damaged|longer|no type|too long|too deep"),
        (b"PAR1" + b"\x1c" * 40 + (40).to_bytes(4, "little") + b"PAR1", "nested too deep"),
    ],
)
def test_no_parquet(tmp_path: Path, data: bytes, words: str) -> None:
    (tmp_path / "x.parquet").write_bytes(data)
    with pytest.raises(DataError, match=rf"data\.corrupt_file .*({words}).*x\.parquet"):
        read_footer(tmp_path / "x.parquet", "x.parquet")
