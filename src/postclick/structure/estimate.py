"""What a search will take, told before it starts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from postclick.execution import cores

__all__ = ["EXACT_UP_TO", "Estimate", "Method", "cell_size", "estimate"]

Method = Literal["exact", "approximate"]
EXACT_UP_TO = 30_000
"""Entities searched exactly by default: 9e8 pairs, a second or two."""
_USUAL_CANDIDATES = 12_000
"""What a recall of .99 took on the vectors of click nets and on clustered ones; measured anew on each data set."""
_SPACE = 96 << 20
"""Bytes a thread works in."""
_SMALL, _LARGE, _MANY = 64, 128, 1_000_000


@dataclass(frozen=True)
class Estimate:
    """Memory and time of a search.

    Parameters
    ----------
    entities, dimensions, neighbours, threads
        What is searched, for how many, on how many threads.
    method
        ``exact`` or ``approximate``.
    pairs
        Pairs of vectors compared.
    bytes
        Peak memory beside the vectors given.
    seconds
        Wall time, to a factor of two or three: cores differ, and how many candidates a recall takes is measured later.
    """

    entities: int
    dimensions: int
    neighbours: int
    threads: int
    method: Method
    pairs: int
    bytes: int
    seconds: float

    def __str__(self) -> str:
        """Return the estimate in words."""
        kind = "every pair" if self.method == "exact" else "pairs in near cells"
        threads = f"{self.threads} thread" + ("s" if self.threads > 1 else "")
        return (
            f"{self.method} search of {self.neighbours} neighbours among {self.entities:,} vectors of "
            f"{self.dimensions}: {self.pairs:.1e} {kind}, about {_duration(self.seconds)} on {threads}, "
            f"about {self.bytes / 1e9:.1f} GB beside the vectors"
        )


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def cell_size(entities: int) -> int:
    """Return the members a cell should have: small cells need fewer candidates, many cells cost to rank."""
    return _SMALL if entities <= _MANY else _LARGE


def estimate(
    n: int,
    dims: int,
    k: int,
    *,
    method: Literal["auto", "exact", "approximate"] = "auto",
    threads: int | None = None,
    half: bool = False,
) -> Estimate:
    """Return what a search will take.

    Parameters
    ----------
    n, dims, k
        Entities N, dimensions D, neighbours K.
    method, threads
        As `postclick.structure.neighbours`.
    half
        The vectors are float16, so is the sorted copy of them.

    Notes
    -----
    A pair costs .4 + .02 D ns on one core: its product, its share in a maximum, and the choice among maxima.
    """
    threads = threads or cores()
    exact = method == "exact" or (method == "auto" and n <= EXACT_UP_TO)
    cells = max(1, n // cell_size(n))
    candidates = min(n, _USUAL_CANDIDATES)
    sorting = n * 2 * int(cells**0.5) + cells * cells
    pairs = n * n if exact else n * candidates + sorting
    store = n * dims * (2 if half else 4)
    results = n * (k + 1) * 8
    held = store + results + 4 * n if exact else store + results + 16 * n + cells * (dims * 4 + 24)
    nanoseconds = pairs * (0.4 + 0.02 * dims) + (0 if exact else n * 12_000)
    return Estimate(
        n,
        dims,
        k,
        threads,
        "exact" if exact else "approximate",
        pairs,
        held + threads * _SPACE,
        nanoseconds / threads / 1e9,
    )
