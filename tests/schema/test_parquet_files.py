"""What would fill the memory is refused; damage is named with its row group."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from postclick.errors import DataError
from postclick.schema import parquet_files
from postclick.schema.parquet_files import measure, open_parquet, parquet_batches
from postclick.schema.parquet_footer import ChunkSizes, GroupSizes, read_footer

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


def chunk(packed: int, full: int, name: str = "c") -> ChunkSizes:
    return ChunkSizes((name,), False, packed, full, False)


@pytest.mark.parametrize(
    ("group", "where"),
    [
        (GroupSizes(10, 300 << 20, (chunk(1_000, 300 << 20),)), r"x:row group 1:c"),
        (GroupSizes(10, 17 << 30, (chunk(16 << 30, 17 << 30),)), r"x:row group 1 "),
        (GroupSizes(10, 10, tuple(chunk(1, 1) for _ in range(10_001))), r"\| x \|"),
    ],
)
def test_bombs_are_refused_by_their_sizes(group: GroupSizes, where: str) -> None:
    honest = GroupSizes(10, 300 << 20, (chunk(20 << 20, 300 << 20), chunk(1, 1_000_000)))
    measure([honest], "x")
    with pytest.raises(DataError, match=rf"data\.bomb .*{where}"):
        measure([honest, group], "x")


@pytest.mark.parametrize("nested", [False, True])
def test_a_dictionary_with_a_long_value_is_refused_and_one_with_many_is_not(tmp_path: Path, nested: bool) -> None:
    path = tmp_path / "x.parquet"
    for value, refused in (("long" * 5_000, True), ("short", False)):
        words = [[value, "a"] if nested else value] * 500 + [["b"] if nested else f"w{n}" for n in range(5_000)]
        pq.write_table(pa.table({"word": words, "n": range(5_500)}), path)
        assert sum(batch.num_rows for batch in parquet_batches(path, "x", 100, columns=["n"])) == 5_500
        if refused:
            with pytest.raises(
                DataError, match=r"data\.bomb a dictionary with a value of 20,000 bytes.*x:row group 0:word"
            ):
                next(parquet_batches(path, "x", 100))
        else:
            assert sum(batch.num_rows for batch in parquet_batches(path, "x", 100)) == 5_500


def test_groups_and_columns_that_are_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(TABLE, path, row_group_size=300)
    batches = list(parquet_batches(path, "x", 64, groups=[3, 1], columns=["word", "absent"]))
    assert {batch.schema.names[0] for batch in batches} == {"word"}
    assert sum(batch.num_rows for batch in batches) == 400
    assert max(batch.num_rows for batch in batches) == 64


def test_a_page_that_differs_from_its_checksum_names_its_group(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(TABLE, path, row_group_size=300, write_page_checksum=True, compression="none")
    place = pq.read_metadata(path).row_group(2).column(0).data_page_offset + 300
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"data\.corrupt_file .*x:row group 2"):
        list(parquet_batches(path, "x", 1_000))
    assert sum(batch.num_rows for batch in parquet_batches(path, "x", 1_000, groups=[0, 1, 3])) == 700


def test_a_footer_that_counts_other_rows_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(TABLE, path)
    (group,) = read_footer(path, "x")
    wrong = (GroupSizes(group.rows + 1, group.full, group.chunks),)
    monkeypatch.setattr(parquet_files, "read_footer", lambda *_: wrong)
    with pytest.raises(DataError, match=r"the footer says 1,001 rows, there are 1,000 \| x:row group 0"):
        list(parquet_batches(path, "x", 1_000))


def test_opening(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(TABLE, path)
    with open_parquet(path, "x") as file:
        assert file.metadata.num_rows == 1_000
    (tmp_path / "y.parquet").write_bytes(b"short")
    with pytest.raises(DataError, match=r"data\.corrupt_file"), open_parquet(tmp_path / "y.parquet", "y"):
        pass
