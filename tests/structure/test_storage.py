"""Arrays on disk: whole or absent, equal bytes for equal arrays, nothing unpickled."""

from __future__ import annotations

import numpy as np
import pytest

from postclick import files
from postclick.errors import DataError, InputMissingError, StorageError
from postclick.structure.storage import read_arrays, write_arrays

ARRAYS = {
    "indptr": np.array([0, 2, 3], np.int64),
    "values": np.array([0.5, 0.25, 1.0], np.float32),
    "features": np.arange(6, dtype=np.int32).reshape(2, 3),
    "none": np.zeros((0, 4), np.float32),
}


def test_what_was_written_is_read_back_as_it_was(tmp_path):
    written = write_arrays(tmp_path / "graph", ARRAYS, {"neighbours": 2})
    found = read_arrays(tmp_path / "graph")
    assert found.hash == written.hash
    assert found.about == {"neighbours": 2}
    assert found.arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert found.arrays[name].dtype == array.dtype
        assert np.array_equal(found.arrays[name], array)
        assert not found.arrays[name].flags.writeable


def test_equal_arrays_give_equal_hashes_whatever_their_strides(tmp_path):
    turned = ARRAYS | {"features": np.asfortranarray(ARRAYS["features"])}
    first, second = write_arrays(tmp_path / "a", ARRAYS, {}), write_arrays(tmp_path / "b", turned, {})
    assert first.hash == second.hash
    assert write_arrays(tmp_path / "c", ARRAYS, {"seed": 1}).hash != first.hash


def test_a_folder_that_is_there_is_not_replaced(tmp_path):
    write_arrays(tmp_path / "graph", ARRAYS, {})
    with pytest.raises(StorageError, match=r"io\.exists"):
        write_arrays(tmp_path / "graph", ARRAYS, {})


def test_damage_is_found_before_anything_is_read(tmp_path):
    write_arrays(tmp_path / "graph", ARRAYS, {})
    path = tmp_path / "graph" / "values.npy"
    path.write_bytes(path.read_bytes()[:-1] + b"\x00")
    with pytest.raises(DataError, match=r"data\.corrupt_file.*values\.npy"):
        read_arrays(tmp_path / "graph")


def test_objects_are_neither_written_nor_read(tmp_path):
    with pytest.raises(ValueError, match="Object arrays cannot be saved"):
        write_arrays(tmp_path / "one", {"x": np.array([{}], object)}, {})
    assert not (tmp_path / "one").exists()
    with files.new_folder(tmp_path / "two", "stage") as scratch:
        np.save(scratch / "x.npy", np.array([{}], object), allow_pickle=True)
        files.write_json(scratch / "about.json", {})
    with pytest.raises(DataError, match="not an array of numbers"):
        read_arrays(tmp_path / "two")


def test_a_folder_of_another_kind_is_refused(tmp_path):
    with files.new_folder(tmp_path / "log", "log"):
        pass
    with pytest.raises(InputMissingError, match="expected a stage folder, found a log folder"):
        read_arrays(tmp_path / "log")
