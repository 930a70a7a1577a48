from __future__ import annotations

import errno
from pathlib import Path
from typing import IO, Any

import pytest
import torch
from safetensors.torch import load_file

from postclick import files
from postclick.errors import ConfigError, DataError, StorageError
from postclick.training.checkpoint import CheckpointFolder, write_tensors

TENSORS = {
    "model.w": torch.arange(6, dtype=torch.float32).reshape(2, 3),
    "strided": torch.arange(6, dtype=torch.float64).reshape(2, 3).T,
    "scalar": torch.tensor(3.5),
    "flag": torch.tensor([True, False, True]),
    "bytes": torch.tensor([1, 2, 255], dtype=torch.uint8),
    "half": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
    "empty": torch.zeros(0, 3),
    "big": torch.tensor([2**53 + 1]),
}


def write(path: Path) -> bytes:
    with files.create(path) as handle:
        write_tensors(handle, TENSORS)
    return path.read_bytes()


def test_tensors_read_back_with_the_library(tmp_path: Path) -> None:
    first, second = write(tmp_path / "a.safetensors"), write(tmp_path / "b.safetensors")
    assert first == second
    found = load_file(tmp_path / "a.safetensors")
    assert set(found) == set(TENSORS)
    for name, tensor in TENSORS.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)


def saved(run: Path, *steps: int) -> CheckpointFolder:
    folder = CheckpointFolder(run)
    for step in steps:
        folder.save(step, {"w": torch.full((3,), float(step))}, {"counters": {"step": step}})
    return folder


def test_the_last_two_are_kept_and_the_newest_read(tmp_path: Path) -> None:
    folder = saved(tmp_path, 5, 10, 15)
    assert sorted(place.name for place in folder.path.iterdir()) == ["step-00000010", "step-00000015"]
    found = folder.load()
    assert found is not None
    assert (found.step, found.state["counters"], found.notes) == (15, {"step": 15}, ())
    assert found.tensors["w"].tolist() == [15.0] * 3


def test_no_checkpoint_is_none(tmp_path: Path) -> None:
    assert CheckpointFolder(tmp_path).load() is None
    saved(tmp_path, 1).clear()
    assert CheckpointFolder(tmp_path).load() is None


def test_files_are_private(tmp_path: Path) -> None:
    folder = saved(tmp_path, 5)
    for name in ("tensors.safetensors", "state.json"):
        assert (folder.path / "step-00000005" / name).stat().st_mode & 0o077 == 0


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("damage", [flip, truncate, Path.unlink])
@pytest.mark.parametrize("name", ["tensors.safetensors", "state.json", "manifest.json"])
def test_a_damaged_newest_one_falls_back(tmp_path: Path, name: str, damage: Any) -> None:
    folder = saved(tmp_path, 5, 10)
    damage(folder.path / "step-00000010" / name)
    (folder.path / ".step-00000015.x.partial").mkdir()
    if name == "manifest.json" and damage is truncate:
        return  # the last byte is a newline: still the same JSON
    found = folder.load()
    assert found is not None
    assert found.step == 5
    (note,) = found.notes
    assert note.code == "ckpt.fell_back"
    assert "step-00000010" in str(note)
    assert [place.name for place in folder.path.iterdir()] == ["step-00000005"]


def test_all_damaged_says_which_files(tmp_path: Path) -> None:
    folder = saved(tmp_path, 5, 10)
    flip(folder.path / "step-00000005" / "tensors.safetensors")
    flip(folder.path / "step-00000010" / "state.json")
    with pytest.raises(DataError) as caught:
        folder.load()
    assert caught.value.code == "ckpt.corrupt"
    text = str(caught.value)
    assert "step-00000005/tensors.safetensors" in text
    assert "step-00000010/state.json" in text
    assert len(list(folder.path.iterdir())) == 2


class _FailingDisk(files.Operations):
    """Fails at the n-th call that changes the disk."""

    def __init__(self, fail_at: int) -> None:
        self.left = fail_at

    def _count(self) -> None:
        self.left -= 1
        if self.left == 0:
            raise OSError(errno.ENOSPC, "no space left on device")

    def open(self, path: Path, mode: str, permissions: int = 0o666) -> IO[Any]:
        self._count()
        return super().open(path, mode, permissions)

    def sync(self, handle: IO[Any]) -> None:
        self._count()
        super().sync(handle)

    def rename(self, source: Path, target: Path) -> None:
        self._count()
        super().rename(source, target)


# three files, each opened, synced and renamed, and the folder renamed
@pytest.mark.parametrize("fail_at", range(1, 11))
def test_a_failing_disk_leaves_the_last_good_one(tmp_path: Path, fail_at: int) -> None:
    folder = saved(tmp_path, 5, 10)
    with files.swap_operations(_FailingDisk(fail_at)), pytest.raises(StorageError) as caught:
        folder.save(15, {"w": torch.ones(3)}, {})
    assert caught.value.code == "io.no_space"
    found = folder.load()
    assert found is not None
    assert (found.step, found.notes) == (10, ())


def test_a_failing_removal_of_the_oldest_leaves_the_new_one(tmp_path: Path) -> None:
    folder = saved(tmp_path, 5, 10)
    with files.swap_operations(_FailingDisk(11)), pytest.raises(StorageError):
        folder.save(15, {"w": torch.ones(3)}, {})
    found = folder.load()
    assert found is not None
    assert (found.step, found.notes) == (15, ())
    assert [place.name for place in folder._places()] == ["step-00000005", "step-00000010", "step-00000015"]


def test_a_disk_that_fails_later_does_not_matter(tmp_path: Path) -> None:
    folder = saved(tmp_path, 5, 10)
    with files.swap_operations(_FailingDisk(12)):
        folder.save(15, {"w": torch.ones(3)}, {})
    found = folder.load()
    assert found is not None
    assert found.step == 15


def test_a_step_that_is_saved_is_not_taken_away_to_save_it_again(tmp_path: Path) -> None:
    folder = saved(tmp_path, 5)
    with files.swap_operations(_FailingDisk(1)):
        assert folder.save(5, {"w": torch.full((3,), 5.0)}, {}) == folder.path / "step-00000005"


def test_what_a_kill_left_is_removed_and_what_is_not_ours_stays(tmp_path: Path) -> None:
    folder = saved(tmp_path, 5)
    for name in (".step-00000010.a1b2.partial", ".step-00000001.77.old"):
        (folder.path / name).mkdir()
        (folder.path / name / "tensors.safetensors").write_bytes(b"half")
    (folder.path / ".notes").write_text("mine")
    assert folder.load() is not None
    assert sorted(place.name for place in folder.path.iterdir()) == [".notes", "step-00000005"]


def test_a_checkpoint_of_another_format_is_refused_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = saved(tmp_path, 5)
    monkeypatch.setattr("postclick.training.checkpoint.FORMAT", 2)
    folder.save(10, {"w": torch.ones(3)}, {})
    monkeypatch.undo()
    with pytest.raises(ConfigError, match=r"ckpt\.incompatible .*format 2, this postclick reads 1") as caught:
        folder.load()
    assert caught.value.exit_code == 78
    assert (folder.path / "step-00000010").is_dir()
