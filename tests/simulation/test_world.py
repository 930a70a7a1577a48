import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from postclick import files
from postclick.errors import DataError, InputMissingError
from postclick.simulation import PRESETS, World
from postclick.simulation.behaviour import BEHAVIOUR_COLUMNS


def test_opening_gives_back_what_was_simulated(selection, raw):
    assert World.open(selection.path) == selection
    assert (selection.preset, selection.knobs, selection.layout) == ("selection", PRESETS["selection"], "parquet")
    assert (raw.layout, raw.knobs.orphan_conversions, raw.seed) == ("ali-ccp", 0.01, 4)
    assert files.read_manifest(selection.path, "world").hash == selection.hash


@pytest.mark.parametrize("which", ["selection", "raw"])
def test_truth_is_keyed_by_exposure_id_and_consistent(which, request):
    world = request.getfixturevalue(which)
    table = pq.read_table(world.path / "truth.parquet")
    assert table.column_names == ["exposure_id", "ctr", "cvr_do", "cvr_click", "ctcvr"]
    assert table.schema.types == [pa.int64(), *[pa.float64()] * 4]
    np.testing.assert_array_equal(table.column("exposure_id").to_numpy(), np.arange(1, world.exposures + 1))
    truth = world.truth()
    np.testing.assert_array_equal(truth.cvr_do, truth.cvr_click)
    np.testing.assert_allclose(truth.ctcvr, truth.ctr * truth.cvr_click, rtol=1e-15)
    assert truth.ctr.min() > 0
    assert truth.ctr.max() < 1


def test_the_truth_of_the_paths_adds_up_exactly(acting):
    assert World.open(acting.path) == acting
    truth, true = acting.truth(), acting.behaviour()
    np.testing.assert_array_equal(truth.action, true.action)
    np.testing.assert_array_equal(truth.ctar, true.ctar)
    mixture = true.action * true.cvr_given_action + (1 - true.action) * true.cvr_given_other
    np.testing.assert_allclose(truth.cvr_do, mixture, rtol=1e-12, atol=0)
    np.testing.assert_array_equal(truth.cvr_do, truth.cvr_click)
    np.testing.assert_allclose(truth.ctcvr, truth.ctr * mixture, rtol=1e-12, atol=0)
    np.testing.assert_allclose(true.ctar, truth.ctr * true.action, rtol=1e-12, atol=0)
    np.testing.assert_allclose(true.purchase_given_action * 0.8, true.cvr_given_action, rtol=1e-12, atol=0)
    for name in BEHAVIOUR_COLUMNS:
        column = getattr(true, name)
        assert 0 < column.min() <= column.max() < 1


def test_a_world_without_actions_has_no_truth_of_paths(selection):
    with pytest.raises(InputMissingError, match="has no in-shop actions"):
        selection.behaviour()


def test_another_kind_of_folder_is_named(tmp_path):
    with files.new_folder(tmp_path / "log", "log"):
        pass
    with pytest.raises(InputMissingError, match="expected a world folder, found a log folder"):
        World.open(tmp_path / "log")


def test_a_newer_format_is_refused(tmp_path):
    with files.new_folder(tmp_path / "w", "world") as folder:
        files.write_json(folder / "world.json", {"format": 99})
    with pytest.raises(DataError, match="format 99 is not 1"):
        World.open(tmp_path / "w")
