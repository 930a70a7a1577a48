from __future__ import annotations

import gzip

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from postclick.errors import DataError, ExitCode, InputMissingError
from postclick.schema.csv_text import csv_layout
from postclick.schema.sampling import (
    head,
    memory_table,
    raw_files,
    raw_format,
    sample_table,
    text_kind,
    typed,
)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["1", "", "-7", "NA"], "integer"),
        (["9007199254740993"], "integer"),
        (["9223372036854775808"], "text"),  # does not fit int64
        (["007", "1"], "text"),  # leading zeros are part of a name
        (["123456789012345678901"], "text"),
        (["1.0", "2", "nan"], "integral"),
        (["1.5", "2"], "number"),
        (["true", "False"], "boolean"),
        (["2019-10-01 00:00:00 UTC"], "time"),
        (["2019-10-01T00:00:00Z", ""], "time"),
        (["a", "1"], "text"),
        (["", "null"], "empty"),
    ],
)
def test_text_kind(values, kind):
    assert text_kind(pa.array(values)) == kind


def test_typed_keeps_what_text_cannot_be_anything_else():
    ids, cities = ["9007199254740993", "", "1"], ["NA", "", "Oslo"]
    table = typed(pa.table({"id": ids, "x": ["1.5", "NA", ""], "city": cities, "none": ["", "", ""]}))
    assert table["id"].to_pylist() == [2**53 + 1, None, 1]
    assert table["x"].to_pylist() == [1.5, None, None]
    assert table["city"].to_pylist() == ["NA", None, "Oslo"]
    assert table["none"].type == pa.null()


@pytest.mark.parametrize("delimiter", [",", "\t", ";", "|"])
def test_delimiter(tmp_path, delimiter):
    path = tmp_path / "x.csv"
    lines = [["a", "b", "c"], ["1", "x y", "2,5" if delimiter != "," else "2.5"], ["2", "z", "3"]]
    path.write_text("\n".join(delimiter.join(line) for line in lines))
    layout = csv_layout(path)
    assert (layout.delimiter, layout.names) == (delimiter, ("a", "b", "c"))


def test_a_ragged_file_keeps_its_delimiter(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("a,b,c\n1,2\n1,2,3\n")
    assert csv_layout(path).names == ("a", "b", "c")


def test_blank_lines_mark_and_quotes_before_the_first_row(tmp_path):
    path = tmp_path / "x.csv"
    path.write_bytes('﻿\r\n"a","b\r\nc"\r\n1,2\r\n'.encode())
    layout = csv_layout(path)
    assert layout.names == ("a", "b\r\nc")
    assert layout.header_lines == 3
    assert head(path, 5).to_pylist() == [{"a": "1", "b\r\nc": "2"}]


def test_formats():
    from pathlib import Path

    names = {"a.CSV": "csv", "a.csv.gz": "csv", "a.parquet": "parquet", "a.feather": "ipc", "a.json": None}
    assert {name: raw_format(Path(name)) for name in names} == names


def test_files_of_a_folder_and_a_pattern(tmp_path):
    for name in ("b.csv", "a.csv", "sub/c.csv", "_SUCCESS", ".hidden.csv", "note.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x\n1\n")
    assert [path.name for path in raw_files(tmp_path)] == ["a.csv", "b.csv", "c.csv"]
    assert [path.name for path in raw_files(tmp_path / "*.csv")] == ["a.csv", "b.csv"]
    assert [path.name for path in raw_files(str(tmp_path / "**" / "*.csv"))] == ["a.csv", "b.csv", "c.csv"]


def test_missing_inputs_say_what_is_near(tmp_path):
    (tmp_path / "clicks.csv").write_text("x\n1\n")
    with pytest.raises(InputMissingError, match=r"input\.missing .*did you mean .*clicks\.csv") as error:
        raw_files(tmp_path / "click.csv")
    assert error.value.exit_code == ExitCode.INPUT_MISSING
    (tmp_path / "a.json").write_text("{}")
    with pytest.raises(InputMissingError, match=r"input\.wrong_kind unknown file ending"):
        raw_files(tmp_path / "a.json")
    with pytest.raises(InputMissingError, match="matches no data file"):
        raw_files(tmp_path / "*.parquet")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputMissingError, match="holds no CSV"):
        raw_files(tmp_path / "empty")


def test_every_kind_of_source_gives_the_same_sample(tmp_path):
    table = pa.table({"id": pa.array([2**53 + 1, 2**24 + 1]), "x": [0.5, 1.5], "city": ["a", "b"]})
    with (tmp_path / "t.csv").open("w") as handle:
        handle.write("id,x,city\n9007199254740993,0.5,a\n16777217,1.5,b\n")
    with gzip.open(tmp_path / "t.csv.gz", "wt") as handle:
        handle.write((tmp_path / "t.csv").read_text())
    pq.write_table(table, tmp_path / "t.parquet")
    with pa.ipc.new_file(tmp_path / "t.arrow", table.schema) as writer:
        writer.write_table(table)
    with pa.ipc.new_stream(tmp_path / "s.arrow", table.schema) as writer:
        writer.write_table(table)
    columns = {name: table[name].to_numpy(zero_copy_only=False) for name in table.column_names}
    files = [tmp_path / name for name in ("t.csv", "t.csv.gz", "t.parquet", "t.arrow", "s.arrow")]
    memory = [table, table.to_batches()[0], pl.from_arrow(table), pd.DataFrame(columns), columns, table.to_pydict()]
    for source in [*files, *memory]:
        assert sample_table(source).to_pylist() == table.to_pylist(), source
        assert len(sample_table(source, 1)) == 1


def test_a_matrix_is_a_column_of_vectors():
    table = memory_table({"v": np.arange(6.0).reshape(3, 2)})
    assert table["v"].to_pylist() == [[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]]


def test_what_is_no_data():
    with pytest.raises(InputMissingError, match=r"expected a path, a frame, .* got int"):
        sample_table(3)
    with pytest.raises(DataError, match="cannot read this dict as columns"):
        sample_table({"a": [1, 2], "b": [1]})


def test_damaged_files(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(DataError, match=r"data\.corrupt_file .*a\.parquet"):
        head(tmp_path / "a.parquet", 5)
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"a,b\n1,2\n" * 1000)[:30])
    with pytest.raises(DataError, match=r"data\.corrupt_file .*a\.csv\.gz"):
        head(tmp_path / "a.csv.gz", 5)


def test_an_empty_file_has_no_columns(tmp_path):
    (tmp_path / "a.csv").write_text("")
    assert head(tmp_path / "a.csv", 5).num_columns == 0
    (tmp_path / "b.csv").write_text("a,b\n")
    assert head(tmp_path / "b.csv", 5).column_names == ["a", "b"]
    with pytest.raises(InputMissingError, match=r"data\.empty"):
        sample_table(tmp_path / "a.csv")
