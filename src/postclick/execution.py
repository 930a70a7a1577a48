"""Map a function over pieces of work: in this process or over several; the same order and the same results."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing.context import SpawnContext, SpawnProcess
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from postclick.errors import ExitCode, Finding, PostclickError

if TYPE_CHECKING:
    from multiprocessing.popen_spawn_posix import Popen

__all__ = ["Workers", "cores", "ordered_map", "processes"]

Piece = TypeVar("Piece")
Result = TypeVar("Result")
_WORTH_A_PROCESS = 64 << 20
"""Bytes of raw data that take about 2 s to encode, some times what starting a process and its imports takes."""
_AHEAD = 4
"""Pieces a process may be ahead of the one whose result is waited for; bounds the results that wait in memory."""


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processes(size: int) -> int:
    """Return how many processes are worth starting to encode `size` bytes of raw data: one core each at most."""
    return max(1, min(cores(), size // _WORTH_A_PROCESS))


_ENVIRONMENT = {
    # a worker is one thread; and glibc would give every array of some MB back to the system and fetch it again, page
    # by page, which took a seventh of the time on long rows
    **dict.fromkeys(("OMP_NUM_THREADS", "POLARS_MAX_THREADS", "OPENBLAS_NUM_THREADS"), "1"),
    **dict.fromkeys(("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"), str(256 << 20)),
}


class _Process(SpawnProcess):
    """A process that does not run the caller's main module again: a script needs no ``if __name__ == "__main__"``."""

    @staticmethod
    def _Popen(process_obj: Any) -> Popen:  # noqa: N802 - the name that multiprocessing calls
        main, before = sys.modules["__main__"], dict(os.environ)
        sys.modules["__main__"] = ModuleType("__main__")
        os.environ.update(_ENVIRONMENT)
        try:
            return SpawnProcess._Popen(process_obj)
        finally:
            sys.modules["__main__"] = main
            for name in _ENVIRONMENT.keys() - before.keys():
                del os.environ[name]
            os.environ.update(before)


class _Context(SpawnContext):
    # spawn, not fork: Arrow, Polars and torch all hold threads, which do not survive a fork
    Process = _Process


def _start_worker() -> None:
    """Set a worker up: no part in Ctrl-C, and never alive without its parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End at once when the parent is gone: after kill -9 nobody may write where the next run already writes."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(ExitCode.TEMPORARY)


class Workers:
    """Processes that are started at the first `map` that needs them and kept over the following ones.

    Parameters
    ----------
    jobs
        Number of processes; 1 works in this one. Results do not depend on it.
    apart
        Work in another process even where `jobs` is 1: floating-point sums that depend on the number of threads are
        then the same at any number of processes.
    """

    def __init__(self, jobs: int = 1, *, apart: bool = False) -> None:
        self.jobs, self.apart = max(1, jobs), apart
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Workers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is None:
            return
        running = list((self._pool._processes or {}).values()) if kind else []
        self._pool.shutdown(wait=not kind, cancel_futures=True)
        for process in running:  # what was begun is of no use any more
            process.terminate()
            process.join()
        self._pool = None

    def map(self, work: Callable[[Piece], Result], pieces: Sequence[Piece]) -> Iterator[Result]:
        """Yield ``work(piece)`` for each piece, in the order of `pieces`.

        Parameters
        ----------
        work
            A function of an importable module (it is sent to the processes by name when there are several).
        pieces
            Pieces of work; each must survive pickling when there are several processes.

        Raises
        ------
        PostclickError
            ``data.worker_lost`` (exit 75) where a process ended in the middle of its work.
        """
        if not pieces:
            return
        if not self.apart and (self.jobs <= 1 or (len(pieces) <= 1 and self._pool is None)):
            yield from map(work, pieces)
            return
        if self._pool is None:
            self._pool = ProcessPoolExecutor(self.jobs, mp_context=_Context(), initializer=_start_worker)
        pool, rest = self._pool, iter(pieces)
        waiting: deque[Future[Result]] = deque()
        try:
            waiting.extend(pool.submit(work, piece) for piece in islice(rest, _AHEAD * self.jobs))
            while waiting:
                result = waiting.popleft().result()
                waiting.extend(pool.submit(work, piece) for piece in islice(rest, 1))
                yield result
        except BrokenProcessPool as error:
            what = "a worker process ended in the middle of its work; the system may have stopped it for its memory"
            fix = "free memory, then run again with --resume"
            raise PostclickError(Finding("data.worker_lost", what, fix=fix), exit_code=ExitCode.TEMPORARY) from error
        finally:
            for future in waiting:
                future.cancel()


def ordered_map(work: Callable[[Piece], Result], pieces: Sequence[Piece], *, jobs: int = 1) -> Iterator[Result]:
    """Yield ``work(piece)`` for each piece, in order, as `Workers.map` over as many processes as there are pieces.

    Parameters
    ----------
    work
        A function of an importable module.
    pieces
        Pieces of work; each must survive pickling when `jobs` > 1.
    jobs
        Number of processes; 1 runs here. Results do not depend on it.
    """
    with Workers(min(jobs, len(pieces))) as workers:
        yield from workers.map(work, pieces)
