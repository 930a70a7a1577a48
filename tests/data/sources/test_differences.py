"""What is said of files that differ."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as arrow_csv
import pyarrow.parquet as pq
import pytest

from postclick.data.sources.inputs import Inputs
from postclick.data.sources.tabular import TabularSource
from postclick.errors import DataError
from postclick.schema import Columns, DenseFeature, Schema, SequenceFeature, SparseFeature

SCHEMA = Schema(
    (SparseFeature("user"), SequenceFeature("tags"), DenseFeature("price")), Columns(user_id="user", time="ts")
)
BASE = {
    "click": [0, 1],
    "conversion": [0, 1],
    "user": [1, 2],
    "tags": [[1], [2, 3]],
    "price": [0.5, 1.5],
    "ts": [1_700_000_000, 1_700_000_001],
}


def opened(folder: Path, *tables: dict, schema: Schema = SCHEMA) -> TabularSource:
    for number, columns in enumerate(tables):
        pq.write_table(pa.table(columns), folder / f"{'abcd'[number]}.parquet")
    return TabularSource.open(Inputs((folder,)), schema=schema)


@pytest.mark.parametrize(
    ("name", "values", "words"),
    [
        ("user", ["x", "y"], "whole numbers in a.parquet, text in b.parquet and 1 more"),
        ("tags", [["x"], ["y"]], "lists of whole numbers in a.parquet, lists of text in b.parquet and 1 more"),
        ("ts", np.array([0, 1], "datetime64[s]"), "numbers in a.parquet, timestamps in b.parquet and 1 more"),
    ],
)
def test_a_column_of_two_types_is_named_with_the_first_file_of_each(tmp_path: Path, name, values, words) -> None:
    other = {**BASE, name: values}
    with pytest.raises(DataError) as caught:
        opened(tmp_path, BASE, other, other)
    (finding,) = caught.value.findings
    assert finding.code == "data.schema_mismatch"
    assert finding.what == f"column {name!r} changes its type between files: {words}"
    assert finding.where == f"b.parquet:{name}"


@pytest.mark.parametrize(
    "values", [[1.0, 2.0], pa.array([1, 2], pa.int8()), pa.array([1, 2]).dictionary_encode(), [None, None]]
)
def test_the_same_ids_in_another_type_are_the_same(tmp_path: Path, values) -> None:
    source = opened(tmp_path, BASE, {**BASE, "user": values})
    assert sum(batch.table.num_rows for piece in source.pieces() for batch in source.read(piece)) == 4


def test_csv_beside_parquet(tmp_path: Path) -> None:
    schema = Schema((SparseFeature("user"), DenseFeature("price")), Columns(user_id="user"))
    plain = {name: values for name, values in BASE.items() if name != "tags"}
    arrow_csv.write_csv(pa.table({**plain, "user": ["x", "y"]}), tmp_path / "z.csv")
    with pytest.raises(DataError, match=r"whole numbers in a\.parquet, text in z\.csv"):
        opened(tmp_path, plain, schema=schema)
    arrow_csv.write_csv(pa.table(plain), tmp_path / "z.csv")
    assert len(opened(tmp_path, plain, schema=schema).files) == 2


def test_a_missing_column_says_who_has_it(tmp_path: Path) -> None:
    lacking = {("price_eur" if name == "price" else name): values for name, values in BASE.items()}
    with pytest.raises(
        DataError, match=r"'price' .* is missing \| a\.parquet \| did you mean 'price_eur'\?; b\.parquet has it"
    ):
        opened(tmp_path, lacking, BASE)


def notes(folder: Path, schema: Schema, ts) -> tuple[str, ...]:
    return opened(folder, {**BASE, "ts": ts}, schema=schema).protocol.notes


@pytest.mark.parametrize(
    ("ts", "words"),
    [
        ([1, 2], "are numbers and read as milliseconds since 1970"),
        (np.array([0, 1], "datetime64[s]"), "name no time zone and are read as UTC"),
        (["2024-01-01 00:00:00", "2024-01-01 00:00:01"], "name no time zone"),
        (pa.array([0, 1], pa.timestamp("s", "UTC")), None),
    ],
)
def test_how_times_are_read_is_said(tmp_path: Path, ts, words) -> None:
    schema = Schema(SCHEMA.features, Columns(user_id="user", time="ts", time_unit="ms"))
    found = notes(tmp_path, schema, ts)
    assert found == () if words is None else words in found[0]
