from __future__ import annotations

import gzip
import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.csv as arrow_csv
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from postclick.data.sources import tabular
from postclick.data.sources.inputs import Inputs
from postclick.data.sources.tabular import BATCH_ROWS, TabularSource
from postclick.errors import DataError, ExitCode, InputMissingError
from postclick.schema import Columns, DenseFeature, Schema, SequenceFeature, SparseFeature

SCHEMA = Schema(
    (SparseFeature("user", "user"), SparseFeature("city"), DenseFeature("price")), Columns(exposure_id="id", time="ts")
)


def table(rows: int = 4, start: int = 0) -> pa.Table:
    index = np.arange(start, start + rows)
    return pa.table(
        {
            "click": index % 2,
            "conversion": np.zeros(rows, int),
            "id": index + 2**53,
            "ts": index + 1_700_000_000,
            "user": index + 2**24,
            "city": [f"c{number % 3}" for number in index],
            "price": index / 4,
        }
    )


def read(source: TabularSource, role: str | None = None) -> pa.Table:
    batches = [batch for piece in source.pieces() for batch in source.read(piece) if role in (None, piece.role)]
    assert max(batch.table.num_rows for batch in batches) <= BATCH_ROWS
    return pa.Table.from_batches([batch.table for batch in batches])


def open_one(*items, schema=SCHEMA, **roles) -> TabularSource:
    return TabularSource.open(Inputs(items, **{role: tuple(value) for role, value in roles.items()}), schema=schema)


def write(path: Path, text: str) -> Path:
    path.write_bytes(text.encode())
    return path


def test_every_format_gives_the_same_rows(tmp_path):
    data = table()
    arrow_csv.write_csv(data, tmp_path / "a.csv")
    (tmp_path / "b.csv.gz").write_bytes(gzip.compress((tmp_path / "a.csv").read_bytes()))
    pl.from_arrow(data).write_csv(tmp_path / "c.csv", separator="\t")
    pq.write_table(data, tmp_path / "d.parquet")
    with pa.ipc.new_file(tmp_path / "e.arrow", data.schema) as writer:
        writer.write_table(data)
    frames = [data, pl.from_arrow(data), pd.DataFrame(data.to_pydict()), data.to_pydict()]
    wanted = data.select(SCHEMA.raw_columns()).to_pylist()
    for item in [*sorted(tmp_path.iterdir()), *frames]:
        assert read(open_one(item)).to_pylist() == wanted, item


def test_ids_beyond_floating_point_stay_apart(tmp_path):
    ids = [2**24, 2**24 + 1, 2**53, 2**53 + 1, 2**63 - 1, -(2**63)]
    data = pa.table({"click": [0] * 6, "conversion": [0] * 6, "user": ids, "price": [0.5] * 6})
    schema = Schema((SparseFeature("user"), DenseFeature("price")), Columns(user_id="user"))
    arrow_csv.write_csv(data, tmp_path / "a.csv")
    pq.write_table(data, tmp_path / "a.parquet")
    # a gap turns whole numbers into 12.0 when pandas writes them; the digits are still read as digits
    write(tmp_path / "b.csv", "click,conversion,user,price\n" + "".join(f"0,0,{value}.0,0.5\n" for value in ids))
    for name in ("a.csv", "a.parquet", "b.csv"):
        assert read(open_one(tmp_path / name, schema=schema))["user"].to_pylist() == ids, name


texts = st.text(st.characters(codec="utf-8", exclude_characters="\x00\r"), min_size=1, max_size=5).map(
    lambda text: f"w{text}"
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(
        st.tuples(
            st.none() | st.integers(-(2**63), 2**63 - 1),
            st.none() | texts,
            st.none() | st.floats(allow_nan=False, allow_infinity=False),
            st.booleans(),
        ),
        min_size=1,
        max_size=20,
    )
)
def test_csv_is_parquet_is_table(tmp_path, rows):
    user, city, price, click = zip(*rows, strict=True)
    data = pa.table(
        {
            "click": pa.array(click).cast(pa.int8()),
            "conversion": pa.array([0] * len(rows)),
            "user": pa.array(user, pa.int64()),
            "city": pa.array(city, pa.string()),
            "price": pa.array(price, pa.float64()),
        }
    )
    schema = Schema((SparseFeature("user"), SparseFeature("city"), DenseFeature("price")))
    arrow_csv.write_csv(data, tmp_path / "x.csv")
    pq.write_table(data, tmp_path / "x.parquet")
    from_csv, from_parquet, from_memory = (
        read(open_one(item, schema=schema)).to_pylist() for item in (tmp_path / "x.csv", tmp_path / "x.parquet", data)
    )
    assert from_csv == from_parquet == from_memory == data.to_pylist()


def test_pieces_roles_and_first_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(tabular, "_PIECE_ROWS", 25)
    pq.write_table(table(60), tmp_path / "a.parquet", row_group_size=10)
    pq.write_table(table(5), tmp_path / "b.parquet")
    source = open_one(train=[tmp_path / "a.parquet"], test=[tmp_path / "b.parquet"])
    pieces = pickle.loads(pickle.dumps(source.pieces()))
    assert [(piece.label, piece.role, piece.index) for piece in pieces] == [
        ("a.parquet", "train", 0),
        ("a.parquet", "train", 1),
        ("a.parquet", "train", 2),
        ("b.parquet", "test", 0),
    ]
    assert source.protocol.provider_split
    again = pickle.loads(pickle.dumps(source))
    starts = [(batch.label, batch.first_row) for piece in pieces for batch in again.read(piece)]
    assert starts == [("a.parquet", row) for row in range(0, 60, 10)] + [("b.parquet", 0)]
    assert read(source, "train")["id"].to_pylist() == table(60)["id"].to_pylist()


def test_batches_are_at_most_65536_rows(tmp_path):
    data = table(70_000)
    arrow_csv.write_csv(data, tmp_path / "a.csv")
    for item in (tmp_path / "a.csv", data):
        source = open_one(item)
        batches = [batch for piece in source.pieces() for batch in source.read(piece)]
        assert len(batches) > 1
        rows = [batch.table.num_rows for batch in batches]
        assert [batch.first_row for batch in batches] == [sum(rows[:index]) for index in range(len(rows))]
        assert sum(rows) == 70_000


def test_a_file_without_header_takes_names_from_its_neighbour_or_the_schema(tmp_path):
    schema = Schema((SparseFeature("101"), DenseFeature("price")), Columns(conversion="buy", user_id="101"))
    body = "1,0,7,0.5\n0,0,8,1.5\n"
    train = write(tmp_path / "train.csv", "price,101,buy,click\n0.5,7,0,1\n")
    test = write(tmp_path / "test.csv", body)
    alone = open_one(test, schema=schema)
    assert read(alone)["101"].to_pylist() == [7, 8]  # click, buy, then the features
    assert "test.csv has no header: its 4 columns are named in the order of the schema" in alone.protocol.notes
    both = open_one(train=[train], test=[test], schema=schema)
    assert read(both, "test")["price"].to_pylist() == [1.0, 0.0]  # the order of train.csv
    assert "test.csv has no header: its 4 columns are named in the order of train.csv" in both.protocol.notes
    wide = write(tmp_path / "wide.csv", "1,0,7,0.5,9\n")
    with pytest.raises(DataError, match=r"no header with a known name, and 5 columns, the schema has 4") as error:
        open_one(wide, schema=schema)
    assert error.value.code == "data.csv"


def test_a_header_of_wrong_words_is_a_header(tmp_path):
    path = write(tmp_path / "a.csv", "Click,Conversion,User,City\n1,0,7,x\n")
    schema = Schema((SparseFeature("user"), SparseFeature("city")))
    with pytest.raises(DataError, match="did you mean 'Click'"):
        open_one(path, schema=schema)


def test_all_findings_of_all_files_in_one_message(tmp_path):
    bad = table().drop_columns(["city"]).rename_columns({"user": "usr"})
    pq.write_table(bad.set_column(5, "price", pa.array(["x"] * 4)), tmp_path / "a.parquet")
    pq.write_table(bad.drop_columns(["price"]), tmp_path / "b.parquet")
    pq.write_table(bad.drop_columns(["price"]), tmp_path / "c.parquet")
    with pytest.raises(DataError) as error:
        open_one(tmp_path)
    text = str(error.value)
    assert error.value.exit_code == ExitCode.DATA
    assert "column 'user' (a sparse feature) is missing | a.parquet | 3 times | did you mean 'usr'?" in text
    assert "column 'price' is text, declared as a dense feature | a.parquet:price" in text
    assert "column 'price' (a dense feature) is missing | b.parquet | 2 times" in text
    assert "column 'city' (a sparse feature) is missing" in text


def test_extra_columns_are_noted(tmp_path):
    data = table().append_column("session", pa.array([1, 2, 3, 4]))
    source = open_one(data)
    assert source.protocol.notes[0] == "1 column not in the schema and ignored: session"
    later = open_one(table(), data)
    assert later.protocol.notes[0] == "1 column not in the schema and ignored: session (first in in memory #2)"
    assert "session" not in read(source).column_names


def test_a_word_among_whole_numbers_is_named_with_its_line(tmp_path, monkeypatch):
    monkeypatch.setattr(tabular, "_SAMPLE_ROWS", 3)
    rows = "".join(f"0,0,{number},x,1.0,1,1\n" for number in range(5))
    header = "click,conversion,user,city,price,id,ts\n"
    path = write(tmp_path / "a.csv", header + rows + "0,0,abc,x,1.0,1,1\n")
    with pytest.raises(
        DataError, match=r"column 'user' is whole numbers .* here a word \| a\.csv:7:user .*abc"
    ) as error:
        read(open_one(path))
    assert error.value.code == "data.schema_mismatch"
    path = write(tmp_path / "b.csv", header + rows + "0,0,7,x,dear,1,1\n")
    with pytest.raises(DataError, match=r"column 'price' is declared as numbers, here a word \| b\.csv:7:price"):
        read(open_one(path))
    path = write(
        tmp_path / "c.csv", header + rows.replace(",x,", ".0,x,").replace("0,0,", "0,0,1") + "0,0,abc,x,1.0,1,1\n"
    )
    with pytest.raises(DataError, match=r"data\.schema_mismatch"):
        read(open_one(path))


def test_a_word_in_any_sampled_file_makes_the_ids_text(tmp_path):
    header = "click,conversion,user,city,price,id,ts\n"
    write(tmp_path / "a.csv", header + "0,0,7,x,1.0,1,1\n")
    write(tmp_path / "b.csv", header + "0,0,abc,x,1.0,1,1\n")
    assert read(open_one(tmp_path))["user"].to_pylist() == ["7", "abc"]


def test_malformed_csv(tmp_path):
    header = "click,conversion,user,city,price,id,ts\n"
    path = write(tmp_path / "a.csv", header + "0,0,7,x,1.0,1,1\n" * 25_000 + "0,0,7\n")
    with pytest.raises(DataError, match=r"data\.csv .*Expected 7 columns, got 3.*a\.csv:25002"):
        read(open_one(path))
    (tmp_path / "b.csv").write_bytes(header.encode() + b"0,0,7,\xff\xfe,1.0,1,1\n")
    with pytest.raises(DataError, match=r"data\.text .*write the file as UTF-8"):
        open_one(tmp_path / "b.csv")


def test_quotes_line_breaks_marks_and_missing_words(tmp_path):
    path = write(
        tmp_path / "a.csv",
        "\ufeffclick,conversion,user,city,price,id,ts\r\n"
        '1,0,7,"a,\r\nb",NA,1,2019-10-01 00:00:00 UTC\r\n'
        "0,0,,NA,2.5,2,\r\n",
    )
    rows = read(open_one(path)).to_pylist()
    assert [row["city"] for row in rows] == ["a,\r\nb", "NA"]
    assert [row["price"] for row in rows] == [None, 2.5]
    assert [row["user"] for row in rows] == [7, None]
    assert [row["ts"] for row in rows] == ["2019-10-01 00:00:00", None]


def test_labels_keep_their_faults(tmp_path):
    header = "click,conversion,user,city,price,id,ts\n"
    lines = ["true,0", "false,1"]
    path = write(tmp_path / "a.csv", header + "".join(f"{line},7,x,1.0,1,1\n" for line in lines))
    assert read(open_one(path))["click"].to_pylist() == [True, False]
    path = write(tmp_path / "b.csv", header + "yes,0,7,x,1.0,1,1\n,2,7,x,1.0,1,1\n")
    rows = read(open_one(path)).to_pylist()
    assert [(row["click"], row["conversion"]) for row in rows] == [("yes", 0.0), (None, 2.0)]


def test_text_that_a_separator_splits_comes_as_text(tmp_path):
    schema = Schema((SequenceFeature("words", weights="w", separator="|"),))
    path = write(tmp_path / "a.csv", "click,conversion,words,w\n1,0,a|b,1|2\n0,0,,\n")
    assert read(open_one(path, schema=schema))["words"].to_pylist() == ["a|b", None]


def test_nothing_to_read(tmp_path):
    write(tmp_path / "a.csv", "")
    write(tmp_path / "b.csv", "click,conversion,user,city,price,id,ts\n")
    with pytest.raises(InputMissingError, match=r"data\.empty .*a\.csv, b\.csv") as error:
        open_one(tmp_path)
    assert error.value.exit_code == ExitCode.INPUT_MISSING
    arrow_csv.write_csv(table(), tmp_path / "c.csv")
    assert len(read(open_one(tmp_path))) == 4  # empty files among others are fine


def test_a_damaged_row_group_is_named(tmp_path):
    pq.write_table(table(50_000), tmp_path / "a.parquet", row_group_size=25_000, compression="zstd")
    column = pq.ParquetFile(tmp_path / "a.parquet").metadata.row_group(1).column(2)
    with (tmp_path / "a.parquet").open("r+b") as handle:
        handle.seek(column.dictionary_page_offset or column.data_page_offset)
        handle.write(b"\xff" * column.total_compressed_size)
    source = open_one(tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"data\.corrupt_file .*a\.parquet:row group 1"):
        read(source)


def test_the_schema_is_inferred_from_the_training_rows():
    click = np.tile([0, 1], 4)
    train = {"click": click, "conversion": click, "user_id": np.arange(8), "price": np.linspace(0, 1, 8)}
    test = train | {"extra": np.arange(8)}
    source = open_one(test=[test], train=[train], schema=None)
    assert [feature.name for feature in source.schema.features] == ["user_id", "price"]
    with pytest.raises(DataError, match="columns occur more than once: 'click'"):
        open_one(pa.table([[1], [1], [0]], names=["click", "click", "conversion"]), schema=None)


def test_scoring_needs_no_labels():
    data = table().drop_columns(["click", "conversion", "ts"])
    source = TabularSource.open(Inputs((data,)), schema=SCHEMA, labels=False)
    assert read(source).column_names == ["id", "user", "city", "price"]
    with pytest.raises(DataError, match="column 'click'"):
        open_one(data)
