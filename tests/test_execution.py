"""Mapping over pieces: order, results and errors do not depend on the number of processes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from postclick.errors import DataError, Finding, PostclickError
from postclick.execution import Workers, cores, ordered_map, processes

SQUARES = [value * value for value in range(7)]


def test_there_is_at_least_one_core() -> None:
    assert cores() >= 1


def test_in_process_keeps_the_order() -> None:
    assert list(ordered_map(lambda value: value * value, range(7))) == SQUARES


def test_in_process_is_lazy() -> None:
    seen: list[int] = []
    results = ordered_map(lambda value: seen.append(value) or value, [1, 2, 3])
    assert next(results) == 1
    assert seen == [1]


def test_nothing_to_do_gives_nothing() -> None:
    assert list(ordered_map(abs, [], jobs=4)) == []


def test_two_processes_give_the_same_results_in_the_same_order() -> None:
    assert list(ordered_map(abs, range(-6, 1), jobs=2)) == [6, 5, 4, 3, 2, 1, 0]


def _fail(_piece: int) -> int:
    raise DataError(Finding("data.corrupt_file", "broken", "b.parquet"))


def test_a_typed_error_is_raised_here_as_there() -> None:
    with pytest.raises(DataError, match=r"data\.corrupt_file broken \| b\.parquet"):
        list(ordered_map(_fail, [1, 2], jobs=1))


def test_a_builtin_error_crosses_processes() -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        list(ordered_map(int, ["1", "x", "3"], jobs=2))


def test_processes_are_worth_their_start_only_for_much_data() -> None:
    assert processes(0) == processes(1 << 20) == 1
    assert processes(1 << 50) == cores()


def test_workers_are_kept_over_several_maps() -> None:
    with Workers(2) as workers:
        first = list(workers.map(_process_of, range(8)))
        second = list(workers.map(_process_of, range(8)))
    assert os.getpid() not in first
    assert set(second) <= set(first)


def test_apart_even_one_job_works_in_another_process_if_there_is_work() -> None:
    with Workers(1, apart=True) as workers:
        assert list(workers.map(_process_of, [])) == []
        assert workers._pool is None
        assert os.getpid() not in set(workers.map(_process_of, [1, 2]))


def _process_of(_piece: int) -> int:
    return os.getpid()


def test_results_wait_in_bounded_number() -> None:
    taken: list[int] = []

    class Pieces(list[int]):
        def __iter__(self) -> Iterator[int]:
            for value in range(1_000):
                taken.append(value)
                yield value

    with Workers(2) as workers:
        results = workers.map(abs, Pieces(range(1_000)))
        assert next(results) == 0
        assert len(taken) <= 10
        results.close()  # type: ignore[attr-defined]


def test_a_process_that_is_gone_is_named() -> None:
    with pytest.raises(PostclickError, match=r"data\.worker_lost .*--resume") as caught, Workers(2) as workers:
        list(workers.map(os._exit, [3, 3]))
    assert caught.value.exit_code == 75


SCRIPT = """
import os, sys, time
from postclick.execution import Workers
if "spawned" in os.environ:
    raise SystemExit("the main module ran again")
os.environ["spawned"] = "1"
with Workers(2) as workers:
    for piece in workers.map({work}, {pieces}):
        print(piece, flush=True)
"""


def test_the_main_module_is_not_run_again(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(work="abs", pieces=[-1, -2]))
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, ["1", "2"], "")


def test_workers_end_with_a_parent_that_was_killed(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(work="time.sleep", pieces=[0, 600, 600]))
    parent = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    assert parent.stdout.readline() == b"None\n"
    children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()
    workers = [pid for pid in children if "spawn_main" in Path(f"/proc/{pid}/cmdline").read_text()]
    assert len(workers) == 2
    parent.kill()
    parent.wait()
    parent.stdout.close()
    until = time.monotonic() + 20
    while any(Path(f"/proc/{pid}/cmdline").is_file() and running(pid) for pid in workers):
        assert time.monotonic() < until
        time.sleep(0.05)


def running(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except OSError:
        return False
