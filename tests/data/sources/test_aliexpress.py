from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.csv as arrow_csv
import pytest

from postclick.data.sources.aliexpress import aliexpress_schema, open_aliexpress
from postclick.data.sources.inputs import Inputs
from postclick.errors import DataError

FEATURES = [f"categorical_{number}" for number in range(1, 17)] + [f"numerical_{number}" for number in range(1, 64)]


def table(labels: tuple[str, str], rows: int = 5) -> pa.Table:
    columns = {"search_id": np.arange(rows)}
    columns |= {name: np.arange(rows) + place for place, name in enumerate(FEATURES[:16])}
    columns |= {name: np.arange(rows) / (place + 1) for place, name in enumerate(FEATURES[16:])}
    values = {"click": np.ones(rows, int), "conversion": np.zeros(rows, int)}
    return pa.table(columns | {name: values[name] for name in labels})


def read(source, role):
    batches = [batch.table for piece in source.pieces() if piece.role == role for batch in source.read(piece)]
    return pa.Table.from_batches(batches)


def test_schema():
    schema = aliexpress_schema()
    assert [feature.name for feature in schema.sparse] == FEATURES[:16]
    assert [feature.name for feature in schema.dense] == FEATURES[16:]
    assert "search_id" not in schema.raw_columns()


def test_both_orders_of_the_labels_and_a_folder_split_by_its_names(tmp_path):
    arrow_csv.write_csv(table(("conversion", "click")), tmp_path / "train.csv")
    arrow_csv.write_csv(table(("click", "conversion"), 3), tmp_path / "test.csv")
    source = open_aliexpress(Inputs((str(tmp_path),)))
    for role, rows in (("train", 5), ("test", 3)):
        assert read(source, role)["click"].to_pylist() == [1.0] * rows
        assert read(source, role)["conversion"].to_pylist() == [0.0] * rows
    assert source.protocol.source == "aliexpress"
    assert source.protocol.provider_split
    assert "1 column not in the schema and ignored: search_id" in source.protocol.notes


def test_a_folder_with_other_files_is_one_body(tmp_path):
    for name in ("train.csv", "test.csv", "more.csv"):
        arrow_csv.write_csv(table(("click", "conversion")), tmp_path / name)
    assert {piece.role for piece in open_aliexpress(Inputs((tmp_path,))).pieces()} == {None}


def test_missing_columns(tmp_path):
    arrow_csv.write_csv(table(("click", "conversion")).drop_columns(["numerical_7"]), tmp_path / "a.csv")
    with pytest.raises(DataError, match=r"column 'numerical_7' \(a dense feature\) is missing"):
        open_aliexpress(Inputs((tmp_path / "a.csv",)))
