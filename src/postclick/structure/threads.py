"""Work spread over threads, with one BLAS thread each: NumPy's own would fight over the same cores."""

from __future__ import annotations

import contextlib
import ctypes
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np

__all__ = ["one_blas_thread", "spread"]

Piece = TypeVar("Piece")
Result = TypeVar("Result")
_NAMES = ("scipy_openblas_{}_num_threads64_", "scipy_openblas_{}_num_threads", "openblas_{}_num_threads64_")
_AHEAD = 4
"""Pieces a thread may be ahead of the one whose result is waited for."""


def _library() -> tuple[Callable[[], int], Callable[[int], None]] | None:
    """Return how the OpenBLAS inside NumPy's wheel tells and takes its number of threads; None for any other BLAS."""
    root = Path(np.__file__).parents[1]
    for path in sorted([*root.glob("numpy.libs/*openblas*"), *root.glob("numpy/.dylibs/*openblas*")]):
        with contextlib.suppress(OSError):
            library = ctypes.CDLL(str(path))  # loaded already: this is a handle on the same one
            for name in _NAMES:
                if hasattr(library, name.format("set")):
                    return getattr(library, name.format("get")), getattr(library, name.format("set"))
    return None


@contextlib.contextmanager
def one_blas_thread() -> Iterator[bool]:
    """Let NumPy's matrix products use one thread inside the block; yields whether that could be arranged.

    Products of some thousand rows gain nothing from a second BLAS thread while several of ours run, and lose a factor
    of 3.5 where cores are busy (they wait in a spin). Another BLAS than that of NumPy's wheel keeps its own setting:
    slower, not wrong.
    """
    library = _library()
    if library is None:
        yield False
        return
    get, put = library
    before = int(get())
    put(1)
    try:
        yield True
    finally:
        put(before)


def spread(work: Callable[[Piece], Result], pieces: Sequence[Piece], threads: int) -> Iterator[Result]:
    """Yield ``work(piece)`` for each piece, in order; results do not depend on the number of threads."""
    if threads <= 1 or len(pieces) <= 1:
        yield from map(work, pieces)
        return
    with ThreadPoolExecutor(threads) as pool:
        rest = iter(pieces)
        waiting: deque[Future[Result]] = deque(pool.submit(work, piece) for piece in islice(rest, _AHEAD * threads))
        try:
            while waiting:
                result = waiting.popleft().result()
                waiting.extend(pool.submit(work, piece) for piece in islice(rest, 1))
                yield result
        finally:
            for future in waiting:
                future.cancel()
