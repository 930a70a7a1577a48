"""The only writer: whole or not at all, typed failures, hashes that vouch, one worker a folder."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import stat
from pathlib import Path
from typing import IO, Any

import pytest

from postclick import files
from postclick.errors import DataError, InputMissingError, LockedError, StorageError


class Failing(files.Operations):
    """Fails the n-th disk operation of one kind; counts them all."""

    def __init__(self, kind: str = "", nth: int = 0, number: int = errno.EIO) -> None:
        self.kind, self.nth, self.number = kind, nth, number
        self.seen: dict[str, int] = {}

    def _count(self, kind: str) -> None:
        self.seen[kind] = self.seen.get(kind, 0) + 1
        if kind == self.kind and self.seen[kind] == self.nth:
            raise OSError(self.number, os.strerror(self.number))

    def open(self, path: Path, mode: str, permissions: int = 0o666) -> IO[Any]:
        self._count("open")
        return super().open(path, mode, permissions)

    def sync(self, handle: IO[Any]) -> None:
        self._count("sync")
        super().sync(handle)

    def sync_folder(self, path: Path) -> None:
        self._count("sync_folder")
        super().sync_folder(path)

    def rename(self, source: Path, target: Path) -> None:
        self._count("rename")
        super().rename(source, target)


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below `folder`, hidden ones too."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def build(target: Path, text: str = "new", *, force: bool = False) -> None:
    with files.new_folder(target, "log", force=force) as folder:
        files.write_text(folder / "a.txt", text)
        (folder / "inner").mkdir()
        files.write_json(folder / "inner" / "b.json", {"text": text})


def stopped_build(target: Path, *, force: bool = False) -> None:
    with files.new_folder(target, "log", force=force) as folder:
        files.write_text(folder / "a.txt", "x")
        raise KeyError("stop")


# --- one file -------------------------------------------------------------------------------------------------------


def test_a_file_appears_whole(tmp_path: Path) -> None:
    with files.create(tmp_path / "x.bin") as handle:
        handle.write(b"abc")
        assert not (tmp_path / "x.bin").exists()
    assert tree(tmp_path) == {"x.bin": b"abc"}


def test_an_error_inside_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    files.write_text(tmp_path / "x.txt", "old")

    def stopped() -> None:
        with files.create(tmp_path / "x.txt") as handle:
            handle.write(b"half")
            raise KeyError("stop")

    with pytest.raises(KeyError):
        stopped()
    assert tree(tmp_path) == {"x.txt": b"old"}


@pytest.mark.parametrize("kind", ["open", "sync", "rename"])
@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EACCES])
def test_a_failing_operation_leaves_the_old_file(tmp_path: Path, kind: str, number: int) -> None:
    files.write_text(tmp_path / "x.txt", "old")
    with files.swap_operations(Failing(kind, 1, number)), pytest.raises(StorageError) as caught:
        files.write_text(tmp_path / "x.txt", "new")
    assert tree(tmp_path) == {"x.txt": b"old"}
    code, exit_code = {
        errno.EIO: ("io.failed", 74),
        errno.ENOSPC: ("io.no_space", 74),
        errno.EACCES: ("io.cannot_create", 73),
    }[number]
    assert caught.value.code == code
    assert caught.value.exit_code == exit_code
    assert str(tmp_path / "x.txt") in str(caught.value)


def test_when_the_folder_entry_cannot_be_flushed_the_file_is_whole(tmp_path: Path) -> None:
    files.write_text(tmp_path / "x.txt", "old")
    with files.swap_operations(Failing("sync_folder", 1)), pytest.raises(StorageError):
        files.write_text(tmp_path / "x.txt", "new")
    assert tree(tmp_path) == {"x.txt": b"new"}


def test_the_operations_come_back_after_the_block() -> None:
    before = files.operations

    def stopped() -> None:
        with files.swap_operations(Failing()):
            assert files.operations is not before
            raise KeyError("x")

    with pytest.raises(KeyError):
        stopped()
    assert files.operations is before


def test_a_missing_folder_is_a_typed_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"io\.cannot_create") as caught:
        files.write_text(tmp_path / "no" / "x.txt", "a")
    assert caught.value.exit_code == 73


def test_private_files_are_for_their_owner(tmp_path: Path) -> None:
    files.write_bytes(tmp_path / "secret", b"x", private=True)
    files.write_bytes(tmp_path / "open", b"x")
    assert stat.S_IMODE((tmp_path / "secret").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "open").stat().st_mode) & 0o400


def test_equal_values_give_equal_json_bytes(tmp_path: Path) -> None:
    files.write_json(tmp_path / "a.json", {"b": 1, "a": [1.5, "ü"]})
    files.write_json(tmp_path / "b.json", {"a": [1.5, "ü"], "b": 1})
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert files.read_json(tmp_path / "a.json") == {"a": [1.5, "ü"], "b": 1}


def test_json_holds_no_nan(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        files.write_json(tmp_path / "a.json", {"a": float("nan")})
    assert tree(tmp_path) == {}


def test_json_lines_are_appended(tmp_path: Path) -> None:
    files.append_json_line(tmp_path / "a.jsonl", {"step": 1})
    files.append_json_line(tmp_path / "a.jsonl", {"step": 2})
    assert (tmp_path / "a.jsonl").read_text() == '{"step": 1}\n{"step": 2}\n'


def test_a_failing_append_keeps_the_lines_before(tmp_path: Path) -> None:
    files.append_json_line(tmp_path / "a.jsonl", {"step": 1})
    with files.swap_operations(Failing("open", 1, errno.ENOSPC)), pytest.raises(StorageError):
        files.append_json_line(tmp_path / "a.jsonl", {"step": 2})
    assert (tmp_path / "a.jsonl").read_text() == '{"step": 1}\n'


def test_reading_json_that_is_not_there_or_broken(tmp_path: Path) -> None:
    with pytest.raises(InputMissingError, match=r"input\.missing"):
        files.read_json(tmp_path / "a.json")
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(DataError, match=r"data\.corrupt_file not valid JSON"):
        files.read_json(tmp_path / "a.json")


def test_a_line_that_fails_half_way_is_taken_back(tmp_path: Path) -> None:
    files.append_json_line(tmp_path / "a.jsonl", {"step": 1})
    with files.swap_operations(Failing("sync", 1, errno.ENOSPC)), pytest.raises(StorageError):
        files.append_json_line(tmp_path / "a.jsonl", {"step": 2})
    assert (tmp_path / "a.jsonl").read_text() == '{"step": 1}\n'


def test_sha256_is_the_standard_one(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc")
    assert files.sha256(tmp_path / "x") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


# --- folders --------------------------------------------------------------------------------------------------------


def test_a_folder_appears_whole_with_its_manifest(tmp_path: Path) -> None:
    build(tmp_path / "log")
    manifest = files.read_manifest(tmp_path / "log", "log")
    assert manifest.kind == "log"
    assert set(manifest.files) == {"a.txt", "inner/b.json"}
    files.verify(tmp_path / "log", manifest)
    assert [path.name for path in tmp_path.iterdir()] == ["log"]


def test_equal_contents_give_equal_hashes_whatever_the_place(tmp_path: Path) -> None:
    build(tmp_path / "a")
    build(tmp_path / "b")
    build(tmp_path / "c", "other")
    hashes = [files.read_manifest(tmp_path / name).hash for name in "abc"]
    assert hashes[0] == hashes[1] != hashes[2]


def test_records_and_hidden_files_are_not_hashed(tmp_path: Path) -> None:
    build(tmp_path / "a")
    with files.new_folder(tmp_path / "b", "log") as folder:
        files.write_text(folder / "a.txt", "new")
        (folder / "inner").mkdir()
        files.write_json(folder / "inner" / "b.json", {"text": "new"})
        files.append_json_line(folder / files.RECORD, {"seconds": 1.5})
        (folder / ".lock").write_text("me")
    assert files.read_manifest(tmp_path / "a").hash == files.read_manifest(tmp_path / "b").hash


def test_the_kind_is_part_of_the_identity(tmp_path: Path) -> None:
    for kind in ("log", "run"):
        with files.new_folder(tmp_path / kind, kind) as folder:
            files.write_text(folder / "a.txt", "x")
    assert files.read_manifest(tmp_path / "log").hash != files.read_manifest(tmp_path / "run").hash


def test_an_existing_output_is_refused_and_kept(tmp_path: Path) -> None:
    build(tmp_path / "log", "old")
    before = tree(tmp_path)
    with pytest.raises(StorageError, match=r"io\.exists .*--force") as caught:
        build(tmp_path / "log")
    assert caught.value.exit_code == 73
    assert tree(tmp_path) == before


def test_an_empty_folder_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    build(tmp_path / "log")
    assert files.read_manifest(tmp_path / "log").kind == "log"


def test_force_replaces_everything(tmp_path: Path) -> None:
    with files.new_folder(tmp_path / "log", "log") as folder:
        files.write_text(folder / "gone.txt", "old")
    build(tmp_path / "log", force=True)
    assert not (tmp_path / "log" / "gone.txt").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["log"]


def test_force_never_replaces_a_folder_of_somebody_else(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "photo.jpg").write_text("x")
    before = tree(tmp_path)
    with pytest.raises(StorageError, match=r"io\.exists not a postclick folder.*choose another --out$") as caught:
        build(home, force=True)
    assert caught.value.exit_code == 73
    (home / "manifest.json").write_text('{"name": "a browser extension", "manifest_version": 3}')
    with pytest.raises(StorageError, match="not a postclick folder"):
        build(home, force=True)
    assert tree(home) == {"photo.jpg": b"x", "manifest.json": (home / "manifest.json").read_bytes()}
    assert before.items() <= tree(tmp_path).items()


def test_force_does_not_put_a_folder_in_the_place_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("a,b")
    with pytest.raises(StorageError, match=r"io\.exists"):
        build(tmp_path / "rows.csv", force=True)
    assert tree(tmp_path) == {"rows.csv": b"a,b"}
    files.check_free(tmp_path / "rows.csv", force=True)  # where a file is written, --force replaces one


def test_what_killed_processes_left_is_known_by_its_name_and_removed(tmp_path: Path) -> None:
    (tmp_path / ".run.x1_y.partial" / "inner").mkdir(parents=True)
    (tmp_path / ".bundle.123.old").mkdir()
    (tmp_path / ".config.toml.123.tmp").write_text("half")
    for name in (".lock", ".gitignore", ".cache.tmp", "rows.partial", ".old"):
        (tmp_path / name).write_text("keep")
    found = [path.name for path in files.leftovers(tmp_path)]
    assert found == [".bundle.123.old", ".config.toml.123.tmp", ".run.x1_y.partial"]
    files.sweep(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        ".cache.tmp",
        ".gitignore",
        ".lock",
        ".old",
        "rows.partial",
    ]


def test_a_killed_writer_leaves_nothing_but_what_a_sweep_removes(tmp_path: Path) -> None:
    class Killed(files.Operations):
        def rename(self, source: Path, target: Path) -> None:
            os._exit(9)

    context = multiprocessing.get_context("fork")

    def write() -> None:
        with files.swap_operations(Killed()):
            build(tmp_path / "log")

    process = context.Process(target=write)
    process.start()
    process.join(20)
    assert process.exitcode == 9
    assert [path.name for path in tmp_path.iterdir()] == [path.name for path in files.leftovers(tmp_path)] != []
    files.sweep(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_is_discarded_is_out_of_sight_before_it_is_gone(tmp_path: Path) -> None:
    build(tmp_path / "log")

    class Watching(files.Operations):
        def rename(self, source: Path, target: Path) -> None:
            super().rename(source, target)
            assert files.leftovers(tmp_path) == [target]
            assert not source.exists()

    with files.swap_operations(Watching()):
        files.discard(tmp_path / "log")
    assert list(tmp_path.iterdir()) == []


def test_an_error_inside_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        stopped_build(tmp_path / "log")
    assert list(tmp_path.iterdir()) == []


def test_an_error_inside_keeps_the_old_folder(tmp_path: Path) -> None:
    build(tmp_path / "log", "old")
    before = tree(tmp_path)
    with pytest.raises(KeyError):
        stopped_build(tmp_path / "log", force=True)
    assert tree(tmp_path) == before


def _planned_failures() -> list[tuple[str, int]]:
    """Every disk operation that building a folder over an old one makes, counted on a rehearsal."""
    return [("open", nth) for nth in (1, 2, 3)] + [("sync", nth) for nth in (1, 2, 3)] + [("rename", 1), ("rename", 4)]


def test_the_rehearsal_counts_what_the_plan_covers(tmp_path: Path) -> None:
    build(tmp_path / "log", "old")
    counting = Failing()
    with files.swap_operations(counting):
        build(tmp_path / "log", force=True)
    # two files and a manifest, then the old folder aside and the new one in its place
    assert counting.seen == {"open": 3, "sync": 3, "rename": 5, "sync_folder": 4}


@pytest.mark.parametrize(("kind", "nth"), _planned_failures())
def test_every_failing_operation_keeps_the_old_folder(tmp_path: Path, kind: str, nth: int) -> None:
    build(tmp_path / "log", "old")
    before = tree(tmp_path)
    with files.swap_operations(Failing(kind, nth, errno.ENOSPC)), pytest.raises(StorageError):
        build(tmp_path / "log", force=True)
    assert tree(tmp_path) == before


def test_a_failing_last_rename_keeps_the_old_folder(tmp_path: Path) -> None:
    build(tmp_path / "log", "old")
    before = tree(tmp_path)
    with files.swap_operations(Failing("rename", 5)), pytest.raises(StorageError):
        build(tmp_path / "log", force=True)
    assert tree(tmp_path) == before


def test_a_failing_operation_leaves_no_new_folder(tmp_path: Path) -> None:
    with files.swap_operations(Failing("rename", 4)), pytest.raises(StorageError):
        build(tmp_path / "log")
    assert list(tmp_path.iterdir()) == []


# --- manifests ------------------------------------------------------------------------------------------------------


def test_a_wrong_kind_names_what_was_found(tmp_path: Path) -> None:
    build(tmp_path / "log")
    with pytest.raises(InputMissingError, match="expected a run or bundle folder, found a log folder") as caught:
        files.read_manifest(tmp_path / "log", "run", "bundle")
    assert caught.value.exit_code == 66


def test_a_missing_folder_and_one_without_manifest(tmp_path: Path) -> None:
    with pytest.raises(InputMissingError, match=r"input\.missing"):
        files.read_manifest(tmp_path / "no", "log")
    with pytest.raises(InputMissingError, match=r"input\.wrong_kind expected a log folder"):
        files.read_manifest(tmp_path, "log")


@pytest.mark.parametrize("body", ["[]", "{}", '{"kind": "log", "format": 1, "hash": "x", "files": {"a": 1}}'])
def test_a_manifest_of_another_shape_is_a_typed_error(tmp_path: Path, body: str) -> None:
    (tmp_path / files.MANIFEST).write_text(body)
    with pytest.raises(DataError, match="not a manifest"):
        files.read_manifest(tmp_path)


def test_verify_reports_all_damage_together(tmp_path: Path) -> None:
    build(tmp_path / "log")
    manifest = files.read_manifest(tmp_path / "log")
    (tmp_path / "log" / "a.txt").write_text("nEw")
    (tmp_path / "log" / "inner" / "b.json").unlink()
    with pytest.raises(DataError) as caught:
        files.verify(tmp_path / "log", manifest)
    assert [finding.what for finding in caught.value.findings] == [
        "differs from the manifest's SHA-256",
        "listed in the manifest but missing",
    ]


def test_verify_sees_a_manifest_that_was_edited(tmp_path: Path) -> None:
    build(tmp_path / "log")
    path = tmp_path / "log" / files.MANIFEST
    body = json.loads(path.read_text())
    body["kind"] = "run"
    path.write_text(json.dumps(body))
    with pytest.raises(DataError, match="own hash"):
        files.verify(tmp_path / "log", files.read_manifest(tmp_path / "log"))


def test_files_can_be_left_out_of_a_manifest(tmp_path: Path) -> None:
    files.write_text(tmp_path / "keep.txt", "a")
    files.write_text(tmp_path / "skip.txt", "b")
    manifest = files.write_manifest(tmp_path, "run", exclude=lambda name: name.startswith("skip"))
    assert set(manifest.files) == {"keep.txt"}


# --- locks ----------------------------------------------------------------------------------------------------------


def _try_lock(folder: str, queue: Any) -> None:
    try:
        with files.lock(Path(folder)):
            queue.put("held")
    except LockedError as error:
        queue.put(str(error))


def test_a_second_process_is_refused_with_the_holder(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    with files.lock(tmp_path):
        process = context.Process(target=_try_lock, args=(str(tmp_path), queue))
        process.start()
        answer = queue.get(timeout=20)
        process.join(20)
    assert answer.startswith("lock.held")
    assert f"pid {os.getpid()}" in answer


def test_a_lock_is_free_again_after_the_block(tmp_path: Path) -> None:
    with files.lock(tmp_path):
        with pytest.raises(LockedError) as caught, files.lock(tmp_path):
            pass
        assert caught.value.exit_code == 75
    with files.lock(tmp_path):
        assert (tmp_path / ".lock").read_text().startswith("pid ")
