from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from postclick.data.sources import SOURCES
from postclick.data.sources.ali_ccp import ali_ccp_schema
from postclick.data.sources.opening import open_source
from postclick.errors import ConfigError, DataError, ExitCode, InputMissingError
from postclick.files import new_folder
from postclick.schema import Columns, DenseFeature, Schema, SparseFeature

ROOT = os.environ.get("POSTCLICK_DATA")
real = pytest.mark.skipif(ROOT is None, reason="POSTCLICK_DATA is not set: the real data is not here")
DATA = Path(ROOT or "")


def read(source, role=None) -> pa.Table:
    batches = [batch.table for piece in source.pieces() if piece.role == role for batch in source.read(piece)]
    return pa.Table.from_batches(batches)


def frame(rows: int = 6) -> dict:
    return {"click": np.arange(rows) % 2, "conversion": np.zeros(rows, int), "user_id": np.arange(rows)}


def world(path: Path, schema: Schema) -> Path:
    with new_folder(path, "world") as scratch:
        (scratch / "exposures").mkdir()
        pq.write_table(pa.table(frame() | {"extra": np.ones(6)}), scratch / "exposures" / "part-0.parquet")
        pq.write_table(pa.table({"p": [0.5]}), scratch / "truth.parquet")
        (scratch / "schema.toml").write_text(schema.to_toml())
    return path


def test_the_table_of_sources():
    assert list(SOURCES) == ["tabular", "ali-ccp", "aliexpress", "coat", "kuairec", "yahoo-r3", "rees46"]


def test_frames_are_tabular_and_inferred():
    source = open_source(frame())
    assert source.protocol.source == "tabular"
    assert source.schema.columns.user_id == "user_id"
    assert len(read(source)) == 6
    with_roles = open_source(train=frame(), test=[frame(2), frame(3)])
    assert [len(read(with_roles, role)) for role in ("train", "test")] == [6, 5]


def test_a_world_brings_its_schema(tmp_path):
    schema = Schema((SparseFeature("user_id", "user", min_count=3),))
    path = world(tmp_path / "w", schema)
    assert open_source(path).schema == schema
    assert [piece.label for piece in open_source(str(path)).pieces()] == ["part-0.parquet"]
    mine = Schema((DenseFeature("extra"),))
    assert open_source(path, schema=mine).schema == mine
    other = world(tmp_path / "v", Schema((DenseFeature("extra"),)))
    with pytest.raises(DataError, match="the worlds have different schemas"):
        open_source([path, other])


def test_sources_are_found_by_their_files(tmp_path):
    ali = tmp_path / "ali"
    ali.mkdir()
    (ali / "sample_skeleton_train.csv").write_text("1,0,0,k,1,205\x027\x031.0\n")
    (ali / "common_features_train.csv").write_text("k,1,101\x025\x031.0\n")
    source = open_source(ali)
    assert source.protocol.source == "ali-ccp"
    assert source.schema == ali_ccp_schema("aitm")
    assert open_source(ali / "sample_skeleton_train.csv", fields="full").schema == ali_ccp_schema("full")
    assert read(source, "train")["101"].to_pylist() == [5]
    (tmp_path / "random.txt").write_text("1,2,0.5\n")
    assert open_source(tmp_path / "random.txt").protocol.source == "kuairec"
    with pytest.raises(ConfigError, match=r"different sources: ali-ccp, tabular"):
        open_source([ali, frame()])
    (tmp_path / "user.txt").write_text("1,2,0.5\n")
    with pytest.raises(ConfigError, match=r"name --source kuairec or --source yahoo-r3"):
        open_source(tmp_path / "user.txt")


def test_what_does_not_fit_together():
    with pytest.raises(ConfigError, match=r"there is no source 'ali_ccp' .*did you mean 'ali-ccp'") as error:
        open_source("x", key="ali_ccp")
    assert error.value.exit_code == ExitCode.CONFIG
    with pytest.raises(ConfigError, match="has no ratings, so no threshold"):
        open_source(frame(), threshold=3)
    with pytest.raises(ConfigError, match="both without a role and as train"):
        open_source(frame(), test=frame())
    with pytest.raises(InputMissingError, match=r"input\.missing") as missing:
        open_source("nowhere.csv")
    assert missing.value.exit_code == ExitCode.INPUT_MISSING
    with pytest.raises(InputMissingError, match="no input given"):
        open_source()


def test_scoring_a_frame_without_labels():
    schema = Schema((SparseFeature("user_id"),), Columns(user_id="user_id"))
    source = open_source({"user_id": [1, 2]}, schema=schema, labels=False)
    assert read(source).column_names == ["user_id"]


@pytest.mark.data
@real
def test_real_kuairec():
    rows = read(open_source(DATA / "kuairec"), "test")
    assert len(rows) == 117_113
    assert len(rows["user_id"].unique()) == 1_411
    assert set(rows["user_id"].value_counts().field("counts").to_pylist()) == {83}


@pytest.mark.data
@real
@pytest.mark.parametrize(
    ("stem", "rows"), [("rechub_aliexpress_{}_sample", (100, 20)), ("fuxi_tiny_mtl_{}", (100, 100))]
)
def test_real_aliexpress(stem, rows):
    paths = {role: DATA / "aliexpress_samples" / f"{stem.format(role)}.csv" for role in ("train", "test")}
    source = open_source(key="aliexpress", **paths)
    for role, count in zip(("train", "test"), rows, strict=True):
        table = read(source, role)
        assert table.num_columns == 2 + 16 + 63
        assert len(table) == count
        assert all(pa.types.is_int64(table[f"categorical_{number}"].type) for number in range(1, 17))


@pytest.mark.data
@real
def test_real_aitm_pair_with_a_headerless_test_file():
    folder = DATA / "ali_ccp_samples"
    schema = Schema(ali_ccp_schema("aitm").features, Columns(conversion="purchase", user_id="101", item_id="205"))
    paths = {"train": folder / "paddle_aitm_train.csv", "test": folder / "paddle_aitm_test.csv"}
    source = open_source(schema=schema, **paths)
    assert any("paddle_aitm_test.csv has no header" in note for note in source.protocol.notes)
    train, test = read(source, "train"), read(source, "test")
    assert (len(train), len(test)) == (48, 50)
    assert [_orphans(table) for table in (train, test)] == [2, 3]
    assert read(open_source(test=paths["test"], schema=schema), "test").equals(test)  # named by the schema alone


def _orphans(table: pa.Table) -> int:
    return int(((table["purchase"].to_numpy() == 1) & (table["click"].to_numpy() == 0)).sum())


@pytest.mark.data
@real
def test_real_rechub_is_inferred():
    source = open_source(DATA / "ali_ccp_samples" / "rechub_ali_ccp_train_sample.csv")
    columns = source.schema.columns
    assert (columns.click, columns.conversion, columns.user_id, columns.item_id) == ("click", "purchase", "101", "205")
    assert (len(source.schema.sparse), len(source.schema.dense)) == (23, 8)
    assert len(read(source)) == 100
