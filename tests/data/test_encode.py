"""The one encoder."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from postclick.data.counts import VocabularyCounts
from postclick.data.encode import EncodeCounts, Encoder, FieldCounts, feature_columns
from postclick.data.transforms import DenseStatistics, Transforms
from postclick.data.vocabulary import Vocabulary
from postclick.errors import DataError
from postclick.schema import DenseFeature, EmbeddingFeature, Schema, SequenceFeature, SparseFeature


def encoder(schema, table):
    vocabulary = Vocabulary.build(schema, VocabularyCounts.of(table, schema), min_count=1)
    dense = (
        np.stack([table.column(f.name).to_numpy() for f in schema.dense], axis=1) if schema.dense else np.zeros((3, 0))
    )
    statistics = DenseStatistics.of(dense.astype(float), np.arange(len(dense), dtype=np.uint64), schema)
    return Encoder(schema, vocabulary, Transforms.fit(schema, statistics))


SCHEMA = Schema(
    (
        SparseFeature("u"),
        DenseFeature("x"),
        SequenceFeature("s", max_length=2, weights="w"),
        EmbeddingFeature("v", 2),
        SparseFeature("t"),
    )
)
TABLE = pa.table(
    {
        "u": [1, 2, 2],
        "x": [1.0, 2.0, 3.0],
        "s": [["a"], ["b", "a"], None],
        "w": [[1.0], [1.0, 0.5], None],
        "v": [[1.0, 2.0]] * 3,
        "t": ["p", "q", "q"],
    }
)


def test_every_kind_is_encoded_and_counted():
    ours = encoder(SCHEMA, TABLE)
    batch = pa.RecordBatch.from_pydict(
        {
            "u": [2, 9, None, 1],
            "x": [3.0, None, 2.0, 1.0],
            "s": [["b", "zz", "a"], [], None, ["a", None]],
            "w": [[1.0, 2.0, 3.0], [], None, [4.0, 5.0]],
            "v": pa.array([[0.5, 1.5], None, [1.0, 1.0], [1.0, 1.0]], pa.list_(pa.float32(), 2)),
            "t": ["q", "p", "r", "q"],
        }
    )
    exposures, counts = ours.encode(batch)
    vocabulary = ours.vocabulary
    assert vocabulary.decode("u", exposures.rows[:, 0]).to_pylist() == [2, None, None, 1]
    assert vocabulary.decode("t", exposures.rows[:, 1]).to_pylist() == ["q", "p", None, "q"]
    assert exposures.rows[1, 0] == 0
    assert exposures.rows[2, 1] == 1
    np.testing.assert_allclose(exposures.dense[:, 0], [1.2247449, 0.0, 0.0, -1.2247449], rtol=1e-6)
    assert exposures.embeddings.tolist() == [[0.5, 1.5], [0.0, 0.0], [1.0, 1.0], [1.0, 1.0]]
    (ragged,) = exposures.sequences
    assert vocabulary.decode("s", ragged.values).to_pylist() == ["b", None, "a"]
    assert ragged.values[1] == 2
    assert ragged.offsets.tolist() == [0, 2, 2, 2, 3]
    assert ragged.weights.tolist() == [1.0, 2.0, 4.0]
    assert exposures.labels is None
    assert counts.rows == 4
    assert counts.fields == {
        "u": FieldCounts(3, 1, 1),
        "t": FieldCounts(4, 1, 0),
        "s": FieldCounts(5, 1, 2, 1, 1),
        "x": FieldCounts(3, 0, 1),
        "v": FieldCounts(3, 0, 1),
    }
    assert counts.fields["s"].kept == 3
    assert counts.fields["s"].unseen_rate == pytest.approx(1 / 3)
    assert (counts + EncodeCounts()).fields == counts.fields


def test_one_row_is_encoded_as_in_a_batch():
    ours = encoder(SCHEMA, TABLE)
    whole, _ = ours.encode(TABLE)
    for row in range(3):
        alone, _ = ours.encode(TABLE.slice(row, 1))
        taken = whole.take(np.array([row]))
        np.testing.assert_array_equal(alone.rows, taken.rows)
        np.testing.assert_array_equal(alone.dense, taken.dense)
        np.testing.assert_array_equal(alone.sequences[0].values, taken.sequences[0].values)


def test_no_row_gives_no_row():
    exposures, counts = encoder(SCHEMA, TABLE).encode(TABLE.slice(0, 0))
    assert (len(exposures), exposures.rows.shape, counts.rows) == (0, (0, 2), 0)


def test_numbers_that_are_no_ids_are_rejected_values():
    schema = Schema((SparseFeature("u"),))
    ours = encoder(schema, pa.table({"u": [1, 2]}))
    exposures, counts = ours.encode(pa.table({"u": [1.0, 1.5, None]}))
    assert exposures.rows[:, 0].tolist() == [1, 0, 0]
    assert counts.fields["u"] == FieldCounts(2, 0, 1, 0, 1)


SERVING = Schema(
    (
        SparseFeature("u"),
        SparseFeature("position", serving=1),
        SparseFeature("gone", serving="absent"),
        DenseFeature("x", serving=2.0),
        DenseFeature("y", serving="absent", missing="reject"),
        SequenceFeature("s", serving="absent", weights="w"),
        EmbeddingFeature("v", 2, serving="absent"),
    )
)


def test_serving_fixes_what_does_not_come_with_a_request():
    table = pa.table(
        {
            "u": [1, 2],
            "position": [1, 2],
            "gone": ["a", "b"],
            "x": [1.0, 2.0],
            "y": [1.0, 3.0],
            "s": [[1], [2]],
            "w": [[1.0], [1.0]],
            "v": [[1.0, 1.0]] * 2,
        }
    )
    ours = encoder(SERVING, table)
    assert feature_columns(SERVING, serving=True) == ("u",)
    exposures, counts = ours.encode(pa.table({"u": [2, 1, 3]}), serving=True)
    assert ours.vocabulary.decode("position", exposures.rows[:, 1]).to_pylist() == [1, 1, 1]
    assert exposures.rows[:, 2].tolist() == [2, 2, 2]
    assert exposures.dense.tolist() == [[1.0, 0.0]] * 3
    assert len(exposures.sequences[0].values) == 0
    assert not exposures.embeddings.any()
    assert counts.fields["u"].unseen == 1
    with_all, _ = ours.encode(table, serving=True)
    np.testing.assert_array_equal(with_all.rows[0, 1:], exposures.rows[0, 1:])
    given, _ = ours.encode(table)
    assert ours.vocabulary.decode("position", given.rows[:, 1]).to_pylist() == [1, 2]
    with pytest.raises(DataError, match="there is no column 'position'"):
        ours.encode(pa.table({"u": [1]}))


@pytest.mark.parametrize(
    ("column", "values", "text"),
    [
        ("x", [1.0, np.inf, 2.0], r"data\.non_finite.*row 1:x.*inf"),
        ("x", ["a", "b", "c"], r"data\.schema_mismatch expected numbers"),
        ("v", [[1.0]] * 3, r"data\.schema_mismatch expected vectors of 2"),
        ("v", [[1.0, np.nan]] * 3, r"data\.non_finite"),
        ("u", [1e17] * 3, r"data\.lossy_cast"),
    ],
)
def test_what_cannot_be_encoded_is_refused(column, values, text):
    ours = encoder(SCHEMA, TABLE)
    place = TABLE.schema.get_field_index(column)
    with pytest.raises(DataError, match=text):
        ours.encode(TABLE.set_column(place, column, pa.array(values)))


def test_load_needs_the_same_features(tmp_path):
    ours = encoder(SCHEMA, TABLE)
    ours.vocabulary.save(tmp_path)
    ours.transforms.save(tmp_path)
    exposures, _ = Encoder.load(tmp_path, SCHEMA).encode(TABLE)
    np.testing.assert_array_equal(exposures.rows, ours.encode(TABLE)[0].rows)
    with pytest.raises(DataError) as caught:
        Encoder.load(tmp_path, Schema((SparseFeature("u"), DenseFeature("z"))))
    assert len(caught.value.findings) == 2
