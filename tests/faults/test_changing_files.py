"""Files that change while they are read (D08), that are damaged (D07), and that are replaced."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from planted import flipped, prepare, rows, write
from postclick.data.sources.tabular import TabularSource


@pytest.mark.parametrize("form", ["csv", "parquet"])
@pytest.mark.parametrize("change", ["appended", "touched", "same size and time", "gone"])
def test_d08_a_file_that_changes_after_planning_stops_it(
    form: str, change: str, tmp_path: Path, say: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path, "rows", rows(), form)
    argv = prepare(tmp_path, path)
    original = TabularSource.pieces

    def pieces(source: TabularSource):
        planned = original(source)
        before = path.stat()
        if change == "appended":
            write(tmp_path, "rows", rows(2_100), form)
        elif change == "touched":
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
        elif change == "gone":
            path.unlink()
        else:
            data = path.read_bytes()
            path.write_bytes(data[:20] + bytes([data[20] ^ 1]) + data[21:])
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        return planned

    monkeypatch.setattr(TabularSource, "pieces", pieces)
    said = say(*argv, "--json")
    # a file that is gone before its first mark is an input that is missing
    code, exit_code = ("input.missing", 66) if change == "gone" else ("data.changed_underfoot", 65)
    assert (said.code, said.findings[0]["code"]) == (exit_code, code), said.err
    assert path.name in said.findings[0]["where"]
    assert said.findings[0]["fix"]
    assert not (tmp_path / "log").exists()


def test_d07_other_files_are_kept_and_the_work_goes_on_after_the_file_is_replaced(
    tmp_path: Path, say: Callable
) -> None:
    argv = flipped(tmp_path, "parquet")
    (tmp_path / "rows.parquet").rename(tmp_path / "b.parquet")
    good = write(tmp_path, "a", rows(800, start=5_000), "parquet")
    argv[1] = str(tmp_path / "*.parquet")
    damaged = say(*argv, "--json")
    assert damaged.code == 65
    assert damaged.findings[0]["where"] == "b.parquet:row group 1"
    before = good.read_bytes()
    write(tmp_path, "b", rows(), "parquet")
    resumed = say(*argv, "--resume", "--json")
    assert resumed.code == 0, resumed.err
    assert resumed.json["ledger"]["rows"]["kept"] == 2_800
    assert good.read_bytes() == before


FUZZ = """
import random, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import planted
from postclick.data.sources.opening import open_source
from postclick.errors import DataError
from postclick.schema import Schema

folder = Path(sys.argv[1])
path = planted.write(folder, "rows", planted.rows(), "parquet")
schema = Schema(planted.FEATURES, planted.Columns(**planted.COLUMNS))
sound, random = path.read_bytes(), random.Random(7)

def read():
    source = open_source(str(path), schema=schema)
    return [batch.table for piece in source.pieces() for batch in source.read(piece)]

wanted, refused = read(), 0
for turn in range(120):
    place = random.randrange(4, len(sound) - 4_000) if turn % 2 else len(sound) - 1 - random.randrange(1_500)
    data = bytearray(sound)
    data[place] ^= 1 << random.randrange(8)
    path.write_bytes(data)
    try:
        found = read()
        # a page has a checksum; the footer has none, and what it says of statistics may be wrong unnoticed
        assert turn % 2 == 0 or found == wanted, place
    except DataError as error:
        refused += 1
print("refused", refused)
"""


def test_d07_no_flipped_bit_ends_the_process_or_changes_a_page_unnoticed(tmp_path: Path) -> None:
    """In a process of its own: a damaged footer can make Arrow abort, which no test would survive."""
    folder = Path(__file__).resolve().parents[2] / "benchmarks"
    argv = [sys.executable, "-c", FUZZ, str(tmp_path), str(folder)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr[-2_000:]
    assert int(done.stdout.split()[-1]) > 60
