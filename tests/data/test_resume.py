"""A preparation that is interrupted anywhere and goes on gives the log of one that is not; nothing is mixed in."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pyarrow.parquet as pq
import pytest

from postclick import files
from postclick.data.fingerprint import marks_of
from postclick.data.options import PrepareOptions
from postclick.data.partial import open_partial, partial_folder
from postclick.data.prepare import prepare
from postclick.data.sources.opening import open_source
from postclick.errors import DataError, InputMissingError, LockedError, StorageError
from postclick.simulation import simulate

OPTIONS = PrepareOptions(split="random", min_count=1, max_reject_ratio=1.0)


@pytest.fixture
def open_parts(tmp_path, raw_rows, mixed_schema):
    """Write three Parquet files, one with copies of the rows of another, and open them."""

    def build(parts=3):
        for number in range(parts):
            rows = raw_rows(300, number, 300 * number if number < 2 else 550)
            pq.write_table(rows, tmp_path / f"part{number}.parquet")
        return lambda: open_source(str(tmp_path / "part*.parquet"), schema=mixed_schema)

    return build


class FailingDisk(files.Operations):
    """The n-th file cannot be opened: the disk is full."""

    def __init__(self, number):
        self.left = number

    def open(self, path, mode, permissions=0o666):
        self.left -= 1
        if self.left == 0:
            raise OSError(errno.ENOSPC, "no space left on device")
        return super().open(path, mode, permissions)


def test_the_nth_file_that_cannot_be_written(tmp_path, open_parts):
    source = open_parts()
    whole = prepare(source(), tmp_path / "whole", OPTIONS)
    failed = 0
    for number in range(1, 200, 7):
        out = tmp_path / f"log{number}"
        error = None
        try:
            with files.swap_operations(FailingDisk(number)):
                prepare(source(), out, OPTIONS)
        except StorageError as caught:
            error = caught
        if error is None:
            break
        assert error.code == "io.no_space"
        assert not out.exists()
        failed += 1
        assert prepare(source(), out, OPTIONS, resume=True).hash == whole.hash, number
        assert not partial_folder(out).exists()
    assert failed > 4


def test_finished_pieces_are_not_read_again(tmp_path, open_parts, monkeypatch):
    source = open_parts()
    whole = prepare(source(), tmp_path / "whole", OPTIONS)
    reads, out = [], tmp_path / "log"

    def counting(opened):
        kind = type(opened)
        monkeypatch.setattr(
            kind, "read", lambda self, piece, read=kind.read: reads.append(piece.label) or read(self, piece)
        )
        return opened

    opened = counting(source())
    with monkeypatch.context() as patch:
        patch.setattr("postclick.data.prepare.find_duplicates", interrupted)
        with pytest.raises(KeyboardInterrupt):
            prepare(opened, out, OPTIONS)
    assert reads == ["part0.parquet", "part1.parquet", "part2.parquet"]
    monkeypatch.setattr("postclick.data.passes.encode_piece", interrupted)
    assert prepare(source(), out, OPTIONS, resume=True).hash == whole.hash
    assert len(reads) == 3
    assert files.read_json(out / "ledger.json")["rows"]["rejected"] == {"data.duplicate_key": 50}


def interrupted(*_args, **_kwargs):
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("change", "again"),
    [
        ({"min_count": 3}, 0),
        ({"split": "user"}, 0),
        ({"orphan_conversions": "set_click"}, 3),
    ],
)
def test_another_option_uses_only_what_does_not_depend_on_it(tmp_path, open_parts, monkeypatch, change, again):
    source, out = open_parts(), tmp_path / "log"
    with monkeypatch.context() as patch:
        patch.setattr("postclick.data.prepare._write_papers", interrupted)
        with pytest.raises(KeyboardInterrupt):
            prepare(source(), out, OPTIONS)
    options = replace(OPTIONS, **change)
    staged = stamps(partial_folder(out))
    with monkeypatch.context() as patch:
        patch.setattr("postclick.data.prepare._write_papers", interrupted)
        with pytest.raises(KeyboardInterrupt):
            prepare(source(), out, options, resume=True)
    after = stamps(partial_folder(out))
    assert sum(after[name] != staged[name] for name in staged) == again
    assert prepare(source(), out, options, resume=True).hash == prepare(source(), tmp_path / "whole", options).hash


def stamps(folder):
    return {path.name: path.stat().st_mtime_ns for path in (folder / "staged").glob("piece-*.json")}


def test_a_file_that_changed_in_between_is_read_again(tmp_path, open_parts, raw_rows, monkeypatch):
    source, out = open_parts(), tmp_path / "log"
    with monkeypatch.context() as patch:
        patch.setattr("postclick.data.prepare._write_papers", interrupted)
        with pytest.raises(KeyboardInterrupt):
            prepare(source(), out, OPTIONS)
    staged = stamps(partial_folder(out))
    pq.write_table(raw_rows(200, 9, 5_000), tmp_path / "part1.parquet")
    with monkeypatch.context() as patch:
        patch.setattr("postclick.data.prepare._write_papers", interrupted)
        with pytest.raises(KeyboardInterrupt):
            prepare(source(), out, OPTIONS, resume=True)
    after = stamps(partial_folder(out))
    assert [name for name in sorted(staged) if after[name] != staged[name]] == ["piece-00001.json"]
    assert prepare(source(), out, OPTIONS, resume=True).hash == prepare(source(), tmp_path / "whole", OPTIONS).hash


def test_fewer_files_leave_nothing_of_the_others(tmp_path, open_parts, monkeypatch):
    source, out = open_parts(), tmp_path / "log"
    with monkeypatch.context() as patch:
        patch.setattr("postclick.data.prepare._write_papers", interrupted)
        with pytest.raises(KeyboardInterrupt):
            prepare(source(), out, OPTIONS)
    (tmp_path / "part2.parquet").unlink()
    log = prepare(source(), out, OPTIONS, resume=True)
    assert log.hash == prepare(source(), tmp_path / "whole", OPTIONS).hash
    assert not (tmp_path / "log.rejects").exists()


def test_without_resume_everything_is_done_again(tmp_path, open_parts, monkeypatch):
    source, out = open_parts(), tmp_path / "log"
    with monkeypatch.context() as patch:
        patch.setattr("postclick.data.prepare._write_papers", interrupted)
        with pytest.raises(KeyboardInterrupt):
            prepare(source(), out, OPTIONS)
    (partial_folder(out) / "log" / "train" / "part-00009.arrow").write_text("of another time")
    log = prepare(source(), out, OPTIONS)
    assert log.hash == prepare(source(), tmp_path / "whole", OPTIONS).hash


def test_resuming_what_is_done_is_done(tmp_path, open_parts, raw_rows):
    source, out = open_parts(), tmp_path / "log"
    log = prepare(source(), out, OPTIONS)
    assert prepare(source(), out, OPTIONS, resume=True).hash == log.hash
    with pytest.raises(StorageError, match=r"io\.exists"):
        prepare(source(), out, replace(OPTIONS, min_count=2), resume=True)
    pq.write_table(raw_rows(10, 9, 5_000), tmp_path / "part1.parquet")
    with pytest.raises(StorageError, match=r"io\.exists"):
        prepare(source(), out, OPTIONS, resume=True)


def test_two_preparations_of_one_log_do_not_mix(tmp_path, open_parts):
    source, out = open_parts(), tmp_path / "log"
    with open_partial(out, resume=False), pytest.raises(LockedError) as caught:
        prepare(source(), out, OPTIONS)
    assert f"pid {os.getpid()} on" in str(caught.value)
    assert prepare(source(), out, OPTIONS).hash


def test_a_damaged_file_can_be_replaced(tmp_path, open_parts):
    source, out = open_parts(), tmp_path / "log"
    whole = prepare(source(), tmp_path / "whole", OPTIONS)
    path = tmp_path / "part2.parquet"
    good = path.read_bytes()
    bad = bytearray(good)
    bad[4:400] = bytes(396)
    path.write_bytes(bad)
    with pytest.raises(DataError, match="part2"):
        prepare(source(), out, OPTIONS)
    path.write_bytes(good)
    assert prepare(source(), out, OPTIONS, resume=True).hash == whole.hash


def test_a_file_that_changes_while_it_is_read_stops_it(tmp_path, open_parts, monkeypatch):
    source, out = open_parts()(), tmp_path / "log"
    read = type(source).read

    def growing(self, piece):
        yield from read(self, piece)
        if piece.label == "part1.parquet":
            with (tmp_path / "part1.parquet").open("ab") as file:
                file.write(b"more")

    monkeypatch.setattr(type(source), "read", growing)
    with pytest.raises(DataError, match=r"data\.changed_underfoot .*part1\.parquet.*--resume"):
        prepare(source, out, OPTIONS)
    assert not out.exists()
    assert (partial_folder(out) / "staged" / "piece-00000.json").exists()


def test_rows_in_memory_are_never_taken_for_others(tmp_path, make_source, raw_rows, mixed_schema, monkeypatch):
    first, second = (make_source(mixed_schema, [raw_rows(300, seed)]) for seed in (0, 1))
    with monkeypatch.context() as patch:
        patch.setattr("postclick.data.prepare._write_papers", interrupted)
        with pytest.raises(KeyboardInterrupt):
            prepare(first, tmp_path / "log", OPTIONS)
    log = prepare(second, tmp_path / "log", OPTIONS, resume=True)
    assert log.hash == prepare(second, tmp_path / "whole", OPTIONS).hash


KILLED = """
import sys
from postclick.data.prepare import prepare
from postclick.data.sources.opening import open_source
prepare(open_source(sys.argv[1], key="ali-ccp", fields="full"), sys.argv[2], jobs=int(sys.argv[3]))
"""


@pytest.mark.parametrize("jobs", [1, 2])
def test_kill_9_and_resume(tmp_path, jobs):
    """Kill it as soon as a piece is staged, a piece is encoded, and go on to the end."""
    world = tmp_path / "world"
    simulate(world, exposures=8_000, layout="ali-ccp")
    source = open_source(world, key="ali-ccp", fields="full")
    whole, out = prepare(source, tmp_path / "whole"), tmp_path / "log"
    for sign in ("staged/piece-00001.json", "encoded/part-00000.arrow.json"):
        words = [sys.executable, "-c", KILLED, str(world), str(out), str(jobs)]
        with subprocess.Popen(words, stderr=subprocess.PIPE) as process:
            until = time.monotonic() + 60
            while not (partial_folder(out) / sign).exists():
                assert process.poll() is None, process.stderr.read()
                assert time.monotonic() < until
                time.sleep(0.001)
            process.send_signal(signal.SIGKILL)
        assert not out.exists()
    log = prepare(source, out, resume=True)
    assert log.hash == whole.hash
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log", "whole", "world"]


def test_the_truth_goes_along(tmp_path, monkeypatch):
    world = tmp_path / "world"
    simulate(world, exposures=2_000)
    source, truth, out = open_source(world), world / "truth.parquet", tmp_path / "log"
    with monkeypatch.context() as patch:
        patch.setattr("postclick.data.partial.PartialLog.publish", interrupted)
        with pytest.raises(KeyboardInterrupt):
            prepare(source, out, truth=truth)
    log = prepare(source, out, resume=True)
    assert log.truth("train") is None
    assert log.hash == prepare(source, tmp_path / "plain").hash


def test_an_input_that_is_gone_is_missing(tmp_path, open_parts):
    source = open_parts()()
    (tmp_path / "part1.parquet").unlink()
    with pytest.raises((InputMissingError, DataError), match=r"part1\.parquet"):
        prepare(source, tmp_path / "log", OPTIONS)
    assert not (tmp_path / "log").exists()


def test_all_damaged_files_are_named_and_the_others_are_staged(tmp_path, open_parts):
    source, out = open_parts(), tmp_path / "log"
    whole = prepare(source(), tmp_path / "whole", OPTIONS)
    good = {}
    opened = source()
    for number in (0, 2):
        path = tmp_path / f"part{number}.parquet"
        good[path] = path.read_bytes(), path.stat().st_mtime_ns
        path.write_bytes(path.read_bytes()[:4] + bytes(400) + path.read_bytes()[404:])
    opened = replace(opened, marks=source_marks(opened))
    with pytest.raises(DataError) as caught:
        prepare(opened, out, OPTIONS)
    assert {finding.where.split(":")[0] for finding in caught.value.findings} == {"part0.parquet", "part2.parquet"}
    assert [path.name for path in (partial_folder(out) / "staged").glob("*.json")] == ["piece-00001.json"]
    for path, (data, changed) in good.items():
        path.write_bytes(data)
        os.utime(path, ns=(changed, changed))
    assert prepare(source(), out, OPTIONS, resume=True).hash == whole.hash


def source_marks(source):
    return marks_of(str(file.path) for file in source.files)
