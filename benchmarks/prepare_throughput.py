"""Rows a second and peak memory of `postclick prepare` on raw Ali-CCP, against a reader that goes line by line.

    python benchmarks/prepare_throughput.py --work /tmp/prepare-benchmark        2 M and 4 M exposures, both field sets
    python benchmarks/prepare_throughput.py --exposures 8000000 --fields aitm

The raw files are simulated with Ali-CCP's vocabulary sizes and kept in the work folder. `postclick prepare` runs as a
command of its own, from start to exit, vocabulary, audit, hashes and flushes to disk included. The reader by lines
(`per_line_reader.py`) reads a whole common file and then a part of the rows; its time for all rows is that of the
part scaled up, which leaves out what its growing lists would cost it. They take turns; the ratio is that of the
medians. Before, both read a small world, and every value must be equal.
Memory is the sum over all processes of a run, pages that they share counted once (PSS), every 50 ms.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from statistics import median

import numpy as np

import postclick
from per_line_reader import encode, read_common, read_exposures
from postclick.data.log import ExposureLog
from postclick.data.sources.ali_ccp import ali_ccp_schema
from postclick.data.vocabulary import Vocabulary
from postclick.execution import cores

ROLES = ("train", "test")
_WITH_JOBS = """
import sys
from postclick.data.prepare import prepare
from postclick.data.sources.opening import open_source

raw, out, fields, jobs = sys.argv[1:]
prepare(open_source(train=raw, test=raw, key="ali-ccp", fields=fields), out, jobs=int(jobs))
"""


@dataclass(frozen=True)
class Run:
    """One run of `postclick prepare`."""

    seconds: float
    peak_mb: float


def fields_of(choice: str) -> tuple[list[str], list[str]]:
    """Return the names of a field set: single-valued ones and lists."""
    schema = ali_ccp_schema(choice)
    return [item.name for item in schema.sparse], [item.name for item in schema.sequences]


def raw_files(work: Path, exposures: int) -> Path:
    """Return a folder of raw Ali-CCP files, simulated once."""
    folder = work / f"raw-{exposures}"
    if not folder.is_dir():
        print(f"simulating {exposures:,} exposures in {folder}", file=sys.stderr)
        postclick.simulate(folder, layout="ali-ccp", exposures=exposures, full_vocabulary=True)
    return folder


def lines_of(path: Path) -> int:
    """Count the lines of a file."""
    with path.open("rb") as file:
        return sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(1 << 20), b""))


# --- memory ---------------------------------------------------------------------------------------------------------


def children(pid: int) -> list[int]:
    """Return the processes that a process has started, and theirs."""
    found: list[int] = []
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += [int(child), *children(int(child))]
    return found


def memory(pid: int) -> int:
    """Return the bytes that a process and its children hold, shared pages counted once."""
    total = 0
    for each in (pid, *children(pid)):
        with suppress(OSError):
            for line in Path(f"/proc/{each}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
    return total


class Watch(threading.Thread):
    """Looks at a process every 50 ms until it ends."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.pid, self.peak, self.over = pid, 0, threading.Event()

    def run(self) -> None:
        while not self.over.wait(0.05):
            self.peak = max(self.peak, memory(self.pid))


# --- the two contestants --------------------------------------------------------------------------------------------


def run_prepare(raw: Path, fields: str, out: Path, jobs: int | None) -> Run:
    """Run `postclick prepare` on raw files; roles are named, so that no truth is looked for."""
    roles = [word for role in ROLES for word in (f"--{role}", str(raw))]
    command = ["prepare", *roles, "--source", "ali-ccp", "--fields", fields, "--out", str(out), "--quiet"]
    words = [sys.executable, "-m", "postclick", *command]
    if jobs is not None:  # not a flag of the command: the same call from Python
        words = [sys.executable, "-c", _WITH_JOBS, str(raw), str(out), fields, str(jobs)]
    start = time.perf_counter()
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL)
    watch = Watch(process.pid)
    watch.start()
    code = process.wait()
    seconds = time.perf_counter() - start
    watch.over.set()
    watch.join()
    if code:
        raise SystemExit(f"postclick prepare ended with {code}")
    shutil.rmtree(out)
    return Run(seconds, watch.peak / 1e6)


def run_by_line(raw: Path, fields: str, part: int, rows: int, work: Path) -> float:
    """Return the seconds that the reader by lines takes for all rows, from a part of the training rows."""
    single, lists = fields_of(fields)
    start = time.perf_counter()
    common = read_common(raw / "common_features_train.csv", single, lists)
    for_common = time.perf_counter() - start
    start = time.perf_counter()
    encode(read_exposures(raw / "sample_skeleton_train.csv", common, single, lists, part), single, lists, work)
    for_rows = time.perf_counter() - start
    both = sum(lines_of(raw / f"common_features_{role}.csv") for role in ROLES)
    return for_common * both / len(common) + for_rows * rows / part


def check(work: Path) -> None:
    """Refuse to compare unless both read the same values: every value of every row of a small world."""
    raw = raw_files(work, 20_000)
    out = work / "check"
    if out.exists():
        shutil.rmtree(out)
    single, lists = fields_of("full")
    log: ExposureLog = postclick.prepare(
        train=raw, test=raw, out=out, source="ali-ccp", fields="full", min_count=1, force=True
    )
    vocabulary = Vocabulary.load(out / "vocabulary")
    common = read_common(raw / "common_features_train.csv", single, lists)
    rows = {row.number: row for row in read_exposures(raw / "sample_skeleton_train.csv", common, single, lists, None)}
    train = log.split("train").read()
    assert train.labels is not None
    assert train.labels.exposure_id is not None
    wanted = [rows[int(number)] for number in train.labels.exposure_id]
    assert len(wanted) > 8_000
    for place, name in enumerate(single):
        assert vocabulary.decode(name, train.rows[:, place]).to_pylist() == [row.single.get(name) for row in wanted], (
            name
        )
    for place, name in enumerate(lists):
        ragged = train.sequences[place]
        assert vocabulary.decode(name, ragged.values).to_pylist() == [
            v for row in wanted for v, _ in row.lists[name][:50]
        ]
        weights = [weight for row in wanted for _, weight in row.lists[name][:50]]
        np.testing.assert_array_equal(ragged.weights, np.asarray(weights, np.float32))
    shutil.rmtree(out)


def compare(work: Path, fields: str, sizes: Sequence[int], part: int, rounds: int, jobs: int | None) -> list[str]:
    """Measure one field set; returns rows of the table."""
    by_line, runs = [], {size: [] for size in sizes}
    smallest = raw_files(work, sizes[0])
    for _ in range(rounds):
        with tempfile.TemporaryDirectory(dir=work) as scratch:
            by_line.append(run_by_line(smallest, fields, part, sizes[0], Path(scratch)) / sizes[0])
        for size in sizes:
            runs[size].append(run_prepare(raw_files(work, size), fields, work / "log", jobs))
    plain = 1 / median(by_line)
    lines = [f"| {fields} | by lines | {sizes[0]:,} | {plain:,.0f} | | |"]
    for size, found in runs.items():
        rate = size / median(run.seconds for run in found)
        peak = max(run.peak_mb for run in found)
        lines.append(
            f"| {fields} | postclick prepare | {size:,} | {rate:,.0f} | {rate / plain:.1f}x | {peak:,.0f} MB |"
        )
    return lines


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--exposures", type=int, default=2_000_000, help="rows; measured for as many and for twice as many"
    )
    parser.add_argument("--fields", choices=("aitm", "full", "both"), default="both")
    parser.add_argument("--part", type=int, default=200_000, help="rows that the reader by lines reads")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--jobs", type=int, help="processes of prepare; left out, it decides as the command does")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "postclick-prepare-benchmark")
    chosen = parser.parse_args(arguments)
    chosen.work.mkdir(parents=True, exist_ok=True)
    check(chosen.work)
    sizes = (chosen.exposures, 2 * chosen.exposures)
    load = os.getloadavg()[0]
    print(f"{date.today()}, {cores()} cores, Python {platform.python_version()}, load before {load:.1f}")
    print("\n| fields | | rows | rows/s | against by lines | peak memory |\n|---|---|---|---|---|---|")
    for fields in ("aitm", "full") if chosen.fields == "both" else (chosen.fields,):
        part = min(chosen.part, chosen.exposures // 2)
        print("\n".join(compare(chosen.work, fields, sizes, part, chosen.rounds, chosen.jobs)), flush=True)


if __name__ == "__main__":
    main()
