"""The folder that long work fills: whose it is, what goes first and last, and what is never touched."""

from __future__ import annotations

import pytest

from postclick import files
from postclick.errors import StorageError
from postclick.run.folder import claim, make_room


def fill(folder, *names):
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).write_text("x", "utf-8")
    return folder


def test_a_new_or_empty_folder_or_one_with_the_marker_is_ours(tmp_path):
    claim(tmp_path / "a" / "new", "config.toml", "a RUN folder")
    assert (tmp_path / "a" / "new").is_dir()
    claim(fill(tmp_path / "empty", ".lock", ".config.toml.12.tmp"), "config.toml", "a RUN folder")
    claim(fill(tmp_path / "ours", "config.toml", "more"), "config.toml", "a RUN folder")
    claim(fill(tmp_path / "before", "tuning.json"), "config.toml", "a RUN folder", apart=("tuning.json",))


def test_another_ones_folder_or_file_is_refused_with_nothing_written(tmp_path):
    for place in (fill(tmp_path / "photos", "one.jpg"), fill(tmp_path, "file") / "file"):
        with pytest.raises(StorageError, match="not a RUN folder, so it is not touched") as caught:
            claim(place, "config.toml", "a RUN folder")
        assert (caught.value.code, caught.value.exit_code) == ("io.exists", 73)
    assert [path.name for path in (tmp_path / "photos").iterdir()] == ["one.jpg"]


def test_one_of_ours_is_refused_where_it_has_to_be_vacant(tmp_path):
    place = fill(tmp_path / "ours", "config.toml")
    with pytest.raises(StorageError, match="--resume") as caught:
        claim(place, "config.toml", "a RUN folder", vacant=True)
    assert (caught.value.code, caught.value.exit_code) == ("io.exists", 73)
    assert [path.name for path in place.iterdir()] == ["config.toml"]
    claim(fill(tmp_path / "empty", ".lock"), "config.toml", "a RUN folder", vacant=True)


def test_a_folder_that_cannot_be_made_is_said(tmp_path):
    with pytest.raises(StorageError) as caught:
        claim(fill(tmp_path, "file") / "file" / "run", "config.toml", "a RUN folder")
    assert (caught.value.code, caught.value.exit_code) == ("io.cannot_create", 73)


def test_room_is_made_with_force_alone_and_not_of_what_stays(tmp_path):
    place = fill(tmp_path / "run", "config.toml", "metrics.jsonl", ".lock", "tuning.json")
    with pytest.raises(StorageError, match="--resume"):
        make_room(place, force=False, marker="config.toml", apart=("tuning.json",))
    assert len(list(place.iterdir())) == 4
    make_room(place, force=True, marker="config.toml", apart=("tuning.json",))
    assert {path.name for path in place.iterdir()} == {".lock", "tuning.json"}
    make_room(place, force=False, apart=("tuning.json",))


def test_cut_off_in_between_it_is_not_whole_and_still_ours(tmp_path, monkeypatch):
    gone = []
    monkeypatch.setattr(files, "discard", lambda path: gone.append(path.name))
    make_room(fill(tmp_path / "run", "config.toml", "z", "a", files.MANIFEST), force=True, marker="config.toml")
    assert gone == [files.MANIFEST, "a", "z", "config.toml"]
