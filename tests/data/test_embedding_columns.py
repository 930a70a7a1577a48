"""Vectors from raw files to the batch that a model reads."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from postclick.data import staging
from postclick.data.options import PrepareOptions
from postclick.data.prepare import prepare
from postclick.data.sources.opening import open_source
from postclick.errors import DataError
from postclick.models.batching import to_batch
from postclick.schema import Columns, EmbeddingFeature, Schema, SparseFeature

SCHEMA = Schema((SparseFeature("f"), EmbeddingFeature("image", 3, "item"), EmbeddingFeature("text", 2)), Columns())
OPTIONS = PrepareOptions(split="random", min_count=1)
ROWS = 400


def table(image, text=None):
    rng = np.random.default_rng(1)
    text = text or pa.array(rng.normal(size=(ROWS, 2)).tolist())
    clicks = (rng.random(ROWS) < 0.4).astype(int)
    return pa.table({"f": np.arange(ROWS) % 5, "image": image, "text": text, "click": clicks, "conversion": [0] * ROWS})


@pytest.fixture
def vectors():
    return np.random.default_rng(0).normal(size=(ROWS, 3))


@pytest.mark.parametrize(
    "kind",
    [
        pa.list_(pa.float32(), 3),
        pa.list_(pa.float64(), 3),
        pa.list_(pa.float32()),
        pa.list_(pa.float16()),
        pa.large_list(pa.float64()),
    ],
    ids=str,
)
@pytest.mark.parametrize("ending", ["parquet", "arrow"])
def test_vectors_reach_the_batch(tmp_path, vectors, kind, ending):
    values = vectors.astype(np.float16).tolist()
    values[7] = None
    rows = table(pa.array([None if row is None else [np.float16(x) for x in row] for row in values], kind))
    path = tmp_path / f"rows.{ending}"
    if ending == "parquet":
        pq.write_table(rows, path, row_group_size=150)
    else:
        with pa.ipc.new_file(path, rows.schema) as writer:
            writer.write_table(rows, max_chunksize=150)
    log = prepare(open_source(path, schema=SCHEMA), tmp_path / "log", OPTIONS)
    wanted = np.hstack([vectors.astype(np.float16), np.asarray(rows.column("text").to_pylist())]).astype(np.float32)
    wanted[7, :3] = 0
    seen = 0
    for name in log.splits:
        exposures = log.split(name).read()
        batch = to_batch(exposures)
        np.testing.assert_array_equal(batch.features.embeddings.numpy(), wanted[exposures.labels.exposure_id])
        seen += len(exposures)
    assert seen == ROWS
    assert log.spec.embedding_width == 5


@pytest.mark.parametrize("size", [2, 4])
def test_vectors_of_another_size_are_refused_with_their_place(tmp_path, vectors, size):
    lists = vectors.tolist()
    lists[250] = lists[251] = [0.5] * size
    pq.write_table(table(pa.array(lists)), tmp_path / "rows.parquet")
    with pytest.raises(DataError) as caught:
        prepare(open_source(tmp_path / "rows.parquet", schema=SCHEMA), tmp_path / "log", OPTIONS)
    (finding,) = caught.value.findings
    assert (finding.code, finding.count, finding.where) == ("data.schema_mismatch", 2, "rows.parquet:250:image")
    assert finding.examples == (str(size), str(size))
    assert not (tmp_path / "log").exists()


def test_a_vector_that_is_not_finite_rejects_its_row(tmp_path, vectors):
    vectors[3, 1], vectors[9, 0] = np.nan, np.inf
    pq.write_table(table(pa.array(vectors.tolist())), tmp_path / "rows.parquet")
    options = PrepareOptions(split="random", min_count=1, max_reject_ratio=0.01)
    log = prepare(open_source(tmp_path / "rows.parquet", schema=SCHEMA), tmp_path / "log", options)
    assert log.ledger["rows"]["rejected"] == {"data.non_finite": 2}
    assert np.isfinite(np.vstack([log.split(name).read().embeddings for name in log.splits])).all()


def test_long_vectors_are_staged_a_few_rows_at_a_time(tmp_path, vectors, monkeypatch):
    pq.write_table(table(pa.array(vectors.tolist())), tmp_path / "rows.parquet")
    source = open_source(tmp_path / "rows.parquet", schema=SCHEMA)
    whole = prepare(source, tmp_path / "whole", OPTIONS)
    staged = []
    monkeypatch.setattr(staging, "_WIDE_VALUES", 50)
    original = staging.feature_faults
    monkeypatch.setattr(staging, "feature_faults", lambda b, s, f: staged.append(b.num_rows) or original(b, s, f))
    assert prepare(source, tmp_path / "log", OPTIONS).hash == whole.hash
    assert max(staged) == 10
    assert sum(staged) == ROWS
