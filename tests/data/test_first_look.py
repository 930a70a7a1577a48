"""A first look counts rows, labels and faults as `prepare` would, and writes nothing."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from postclick.data.first_look import NOT_SPLIT, first_look
from postclick.data.ledger import Funnel
from postclick.data.sources.inputs import Inputs
from postclick.data.sources.tabular import TabularSource
from postclick.errors import DataError
from postclick.schema import Columns, DenseFeature, Schema, SparseFeature

SCHEMA = Schema((SparseFeature("item"), DenseFeature("price")), Columns(action="cart"))
ROWS = {
    "click": [1, 0, 1, 0, 1, 2, None, 1],
    "conversion": [1, 0, 0, 1, 0, 0, 0, 0],
    "cart": [1, 0, 1, 0, 0, 0, 0, 0],
    "item": ["a", "b", "c", "a", "b", "c", "a", "b"],
    "price": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, float("inf")],
}


def test_rows_labels_and_faults_are_counted() -> None:
    ledger = first_look(TabularSource.open(Inputs(src=(pa.table(ROWS),)), schema=SCHEMA)).ledger
    ledger.check()
    assert ledger.read == 8
    assert ledger.kept == {NOT_SPLIT: Funnel(rows=4, clicks=3, actions=2, conversions=1)}
    assert ledger.rejected == {
        "data.label_domain": 1,
        "data.label_missing": 1,
        "data.conversion_without_click": 1,
        "data.non_finite": 1,
    }


def test_roles_are_kept_apart(tmp_path: Path) -> None:
    pq.write_table(pa.table(ROWS).slice(0, 3), tmp_path / "a.parquet")
    pq.write_table(pa.table(ROWS).slice(0, 1), tmp_path / "b.parquet")
    inputs = Inputs(train=(tmp_path / "a.parquet",), test=(tmp_path / "b.parquet",))
    ledger = first_look(TabularSource.open(inputs, schema=SCHEMA)).ledger
    assert {name: funnel.rows for name, funnel in ledger.kept.items()} == {"train": 3, "test": 1}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.parquet", "b.parquet"]


def test_a_column_that_is_missing_is_named() -> None:
    table = pa.table(ROWS).drop_columns(["price"])
    with pytest.raises(DataError, match="price"):
        first_look(TabularSource.open(Inputs(src=(table,)), schema=SCHEMA))
