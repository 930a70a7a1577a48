"""Map a function over pieces of work: in this process or over several; the same order and the same results."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

__all__ = ["cores", "ordered_map"]

Piece = TypeVar("Piece")
Result = TypeVar("Result")


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def ordered_map(work: Callable[[Piece], Result], pieces: Sequence[Piece], *, jobs: int = 1) -> Iterator[Result]:
    """Yield ``work(piece)`` for each piece, in the order of `pieces`.

    Parameters
    ----------
    work
        A module-level function (it is sent to worker processes by name when `jobs` > 1).
    pieces
        Pieces of work; each must survive pickling when `jobs` > 1.
    jobs
        Number of processes; 1 runs here. Results do not depend on it.
    """
    if jobs <= 1 or len(pieces) <= 1:
        yield from map(work, pieces)
        return
    # spawn, not fork: Arrow, Polars and torch all hold threads, which do not survive a fork
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=min(jobs, len(pieces)), mp_context=context) as pool:
        yield from pool.map(work, pieces)
