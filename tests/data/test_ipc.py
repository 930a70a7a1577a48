"""Arrow files."""

from __future__ import annotations

import pyarrow as pa
import pytest

from postclick.data.ipc import BlockWriter, read_batches, read_table, write_table
from postclick.errors import DataError


def test_batches_come_back_with_the_columns_asked_for(tmp_path):
    batches = [pa.RecordBatch.from_pydict({"a": [i], "b": [str(i)]}) for i in range(3)]
    with BlockWriter(tmp_path / "x.arrow") as writer:
        for batch in batches:
            writer.write(batch)
    assert list(read_batches(tmp_path / "x.arrow")) == batches
    assert [batch.to_pydict() for batch in read_batches(tmp_path / "x.arrow", ["b"])] == [
        {"b": [str(i)]} for i in range(3)
    ]


def test_nothing_written_or_an_error_leaves_no_file(tmp_path):
    with BlockWriter(tmp_path / "none.arrow"):
        pass

    def fail():
        with BlockWriter(tmp_path / "half.arrow") as writer:
            writer.write(pa.RecordBatch.from_pydict({"a": [1]}))
            raise KeyError("stop")

    with pytest.raises(KeyError):
        fail()
    assert not list(tmp_path.iterdir())


def test_a_damaged_file_is_named(tmp_path):
    write_table(tmp_path / "x.arrow", pa.table({"a": [1]}))
    assert read_table(tmp_path / "x.arrow").to_pydict() == {"a": [1]}
    (tmp_path / "x.arrow").write_bytes(b"no arrow")
    with pytest.raises(DataError, match=r"data\.corrupt_file.*x\.arrow"):
        read_table(tmp_path / "x.arrow")
