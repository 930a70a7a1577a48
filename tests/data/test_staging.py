"""First pass: what is staged, in which types."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from postclick.data.labels import NO_ID
from postclick.data.sources.base import SourceBatch
from postclick.data.staged import column_types, read_staged, staged_labels
from postclick.data.staging import StageTask, stage
from postclick.errors import DataError
from postclick.schema import Columns, DenseFeature, Schema, SequenceFeature, SparseFeature


def run(folder, source):
    (folder / "rejects").mkdir()
    return [stage(StageTask(source, piece, i, i, folder, "reject")) for i, piece in enumerate(source.pieces())]


def rows_of(pieces):
    types = column_types(pieces)
    batches = [batch for piece in pieces for file in piece.files for batch in read_staged(file, types)]
    return pa.Table.from_batches(batches)


def test_types_are_one_over_files_and_nulls_take_them(tmp_path, make_source):
    schema = Schema((SparseFeature("f"), SequenceFeature("s"), DenseFeature("x")), Columns(user_id="u", item_id="i"))
    tables = [
        pa.table({"f": pa.nulls(1), "s": pa.nulls(1), "x": pa.nulls(1), "u": pa.nulls(1), "i": pa.nulls(1)}),
        pa.table({"f": ["a"], "s": [[None]], "x": [1], "u": ["u"], "i": pa.nulls(1)}),
        pa.table({"f": pa.array(["b"]).dictionary_encode(), "s": [[2]], "x": [1.5], "u": ["v"], "i": pa.nulls(1)}),
    ]
    tables = [t.append_column("click", pa.array([1])).append_column("conversion", pa.array([0])) for t in tables]
    pieces = run(tmp_path, make_source(schema, tables))
    table = rows_of(pieces)
    assert table.column("f").to_pylist() == [None, "a", "b"]
    assert table.column("s").to_pylist() == [None, [None], [2]]
    np.testing.assert_array_equal(table.column("x").to_numpy(), [np.nan, 1.0, 1.5])
    labels = staged_labels(table)
    assert labels.user_id.tolist() == ["", "u", "v"]
    assert labels.item_id.tolist() == [NO_ID] * 3
    assert labels.exposure_id.tolist() == [0, 1 << 40, 2 << 40]


def test_a_column_that_is_null_at_first_opens_a_new_file(tmp_path, make_source):
    schema = Schema((SparseFeature("f"),), Columns())
    f = pa.chunked_array([pa.array([None, None], pa.int64()), pa.array([1, 2])])
    source = make_source(schema, [pa.table({"f": f, "click": [0] * 4, "conversion": [0] * 4})], batch_rows=2)
    assert len(run(tmp_path, source)[0].files) == 1
    mixed = [pa.table({"f": part, "click": [0, 0], "conversion": [0, 0]}) for part in (pa.nulls(2), [1, 2])]

    class Mixed(type(source)):
        def pieces(self):
            return super().pieces()[:1]

        def read(self, piece):
            for number, table in enumerate(mixed):
                for batch in super().read(piece):
                    yield type(batch)(table.to_batches()[0], batch.label, 2 * number)
                    break

    (tmp_path / "second").mkdir()
    (piece,) = run(tmp_path / "second", Mixed(schema, mixed))
    assert [file.rows for file in piece.files] == [2, 2]
    assert rows_of([piece]).column("f").to_pylist() == [None, None, 1, 2]


def test_rejected_rows_keep_their_raw_columns(tmp_path, make_source):
    schema = Schema((SparseFeature("row"), SparseFeature("f")), Columns())
    table = pa.table({"row": [7, 8, 9], "f": ["a", "b", "c"], "click": ["1", "yes", ""], "conversion": [0, 0, 0]})
    (piece,) = run(tmp_path, make_source(schema, [table]))
    (path,) = (tmp_path / "rejects").glob("*.parquet")
    assert pq.read_table(path).to_pylist() == [
        {
            "reason": "data.label_domain",
            "file": "table0",
            "row": 1,
            "raw:row": 8,
            "f": "b",
            "click": "yes",
            "conversion": 0,
        },
        {
            "reason": "data.label_missing",
            "file": "table0",
            "row": 2,
            "raw:row": 9,
            "f": "c",
            "click": "",
            "conversion": 0,
        },
    ]
    assert piece.ledger.rejected == {"data.label_domain": 1, "data.label_missing": 1}
    assert piece.examples["data.label_domain"] == (("table0:1:click", "yes"),)
    assert piece.rows == 1


def test_refusals_of_batches_are_summed(tmp_path, make_source):
    schema = Schema((SparseFeature("f"),), Columns(sample_weight="w"))
    table = pa.table({"f": [1] * 6, "w": [0.0, 1.0, -1.0] * 2, "click": [0] * 6, "conversion": [0] * 6})
    (piece,) = run(tmp_path, make_source(schema, [table], batch_rows=3))
    assert [(finding.code, finding.count) for finding in piece.refusals] == [("data.weights", 4)]


def test_lossy_ids_are_refused_while_reading(tmp_path, make_source):
    schema = Schema((SparseFeature("f"),), Columns())
    table = pa.table({"f": [1.0, 1e17], "click": [0, 0], "conversion": [0, 0]})
    with pytest.raises(DataError, match=r"data\.lossy_cast"):
        run(tmp_path, make_source(schema, [table]))
    assert not list(tmp_path.glob("*.arrow"))
    assert not list(tmp_path.glob(".*"))


def test_what_a_source_leaves_out_is_in_the_ledger(tmp_path, make_source):
    """Even beside no row at all."""

    class Choosy(make_source):
        def read(self, piece):
            for batch in super().read(piece):
                yield SourceBatch(batch.table, batch.label, batch.first_row, {}, {"a rule": 2})
                yield SourceBatch(batch.table.slice(0, 0), batch.label, batch.first_row, {}, {"a rule": 3})

    table = pa.table({"f": [1, 2], "click": [0, 2], "conversion": [0, 0]})
    (piece,) = run(tmp_path, Choosy(Schema((SparseFeature("f"),)), [table]))
    ledger = piece.ledger
    assert (ledger.read, ledger.filtered, ledger.rejected) == (7, {"a rule": 5}, {"data.label_domain": 1})
    assert piece.rows == 1
