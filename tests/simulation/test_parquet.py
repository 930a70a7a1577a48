import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from postclick.simulation import parquet, simulate
from postclick.simulation.parquet import ParquetFile


def test_the_table_holds_what_the_schema_asks_for(selection):
    table = ds.dataset(selection.path / "exposures").to_table()
    assert set(selection.schema.raw_columns()) == set(table.column_names)
    assert table.num_rows == selection.exposures
    assert all(table.column(name).null_count == 0 for name in table.column_names)
    assert table.schema.field("exposure_id").type == pa.int64()
    assert table.schema.field("time").type == pa.int64()
    assert set(table.column("device").unique().to_pylist()) == {"app", "web"}
    assert np.all(np.diff(table.column("time").to_numpy()) >= 0)


def test_a_world_with_actions_has_their_column(acting, selection):
    for world, there in ((acting, True), (selection, False)):
        names = ds.dataset(world.path / "exposures").schema.names
        assert set(world.schema.raw_columns()) == set(names)
        assert ("action" in names) == there


def test_attributes_belong_to_their_entity(selection):
    table = ds.dataset(selection.path / "exposures").to_table()
    for entity, attributes in (
        ("user_id", ["user_segment", "user_age_band"]),
        ("item_id", ["item_category", "item_brand", "price"]),
    ):
        distinct = table.select([entity, *attributes]).group_by([entity, *attributes]).aggregate([])
        assert distinct.num_rows == len(table.column(entity).unique())


def test_position_is_fixed_when_serving(selection):
    (position,) = [feature for feature in selection.schema.features if feature.name == "position"]
    assert position.serving == 1


def test_vocabularies_have_long_tails(selection):
    items = ds.dataset(selection.path / "exposures").to_table().column("item_id").to_numpy()
    seen = np.sort(np.bincount(items))[::-1]
    seen = seen[seen > 0]
    assert seen[: len(seen) // 10].sum() > 0.35 * seen.sum()
    assert np.median(seen) < 0.7 * seen.mean()


def test_a_long_log_is_cut_into_parts(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "_PART_CHUNKS", 1)
    world = simulate(tmp_path / "w", exposures=70_000)
    parts = sorted((world.path / "exposures").iterdir())
    assert [part.name for part in parts] == ["part-00000.parquet", "part-00001.parquet"]
    assert [pq.read_metadata(part).num_rows for part in parts] == [65_536, 70_000 - 65_536]


def half_a_file(path):
    with ParquetFile(path) as target:
        target.write(pa.RecordBatch.from_pydict({"x": [1]}))
        raise RuntimeError("the next chunk failed")


def test_a_file_whose_writing_fails_does_not_appear(tmp_path):
    with pytest.raises(RuntimeError, match="the next chunk failed"):
        half_a_file(tmp_path / "half.parquet")
    assert list(tmp_path.iterdir()) == []
