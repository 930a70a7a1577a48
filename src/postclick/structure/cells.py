"""Unit vectors sorted into cells of near ones: two levels of k-means on the sphere.

The first level makes about sqrt(L) coarse cells from a sample, the second divides each of them; so N vectors cost
2 N sqrt(L) products instead of N L. A cell over twice the wished size is cut into even parts: its members are then
alike (many entities with the same features), and any part will do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from postclick.structure.threads import spread

__all__ = ["Cells", "make_cells", "unit"]

_SAMPLE = 64
"""Vectors a centre that k-means sees."""
_ROUNDS = 6
_BLOCK = 1 << 14


@dataclass(frozen=True)
class Cells:
    """Sorted unit vectors.

    Parameters
    ----------
    store
        float32 or float16 [M, D]: unit vectors, cell by cell.
    order
        int32 [M]: the position each had before.
    starts
        int64 [L + 1]: cell j is ``store[starts[j] : starts[j + 1]]``.
    centres
        float32 [L, D]: each cell's mean, of length 1.
    """

    store: NDArray[Any]
    order: NDArray[np.int32]
    starts: NDArray[np.int64]
    centres: NDArray[np.float32]

    @property
    def sizes(self) -> NDArray[np.int64]:
        """Members of each cell."""
        return np.diff(self.starts)


def unit(vectors: NDArray[Any]) -> NDArray[np.float32]:
    """Return the rows divided by their lengths, as float32; a zero row stays zero."""
    single = np.asarray(vectors, np.float32)
    # a row is scaled by its largest component first: squares of tiny or huge ones leave float32
    largest = np.abs(single).max(axis=1, keepdims=True, initial=0.0)
    single = np.divide(single, largest, out=np.zeros_like(single), where=largest > 0)
    length = np.linalg.norm(single, axis=1, keepdims=True)
    directed: NDArray[np.float32] = np.divide(single, length, out=np.zeros_like(single), where=length > 0)
    return directed


def make_cells(
    vectors: NDArray[Any],
    chosen: NDArray[np.int32],
    wished: int,
    *,
    seed: int,
    threads: int,
    advance: Callable[[int], object] = lambda _: None,
) -> Cells:
    """Sort the chosen vectors into cells of about `wished` members.

    Parameters
    ----------
    vectors
        float32 or float16 [N, D], memory-mapped or not; rows of any length but zero.
    chosen
        int32 [M]: which of them, ascending.
    wished
        Members a cell.
    seed
        Draws the samples and first centres.
    threads
        Threads to work with; the result does not depend on it.
    advance
        Told how many vectors are sorted.
    """
    size = len(chosen)
    coarse = max(1, round((size / wished) ** 0.5))
    rng = np.random.default_rng(seed)
    sample = np.sort(rng.choice(size, min(size, _SAMPLE * 4 * coarse), replace=False))
    centres = k_means(unit(vectors[chosen[sample]]), coarse, rng)
    pieces = [slice(start, start + _BLOCK) for start in range(0, size, _BLOCK)]
    homes = spread(lambda piece: nearest_centre(unit(vectors[chosen[piece]]), centres), pieces, threads)
    home = np.concatenate(list(homes))
    order = chosen[np.argsort(home, kind="stable")]
    starts = np.concatenate([[0], np.cumsum(np.bincount(home, minlength=coarse))])
    del home
    store = np.empty((size, vectors.shape[1]), np.float16 if vectors.dtype == np.float16 else np.float32)

    def divide(cell: int) -> list[int]:
        part = slice(int(starts[cell]), int(starts[cell + 1]))
        return _divide(vectors, order[part], store[part], wished, np.random.default_rng([seed, cell]))

    sizes: list[int] = []
    for made in spread(divide, range(coarse), threads):
        sizes += made
        advance(sum(made))
    bounds = np.concatenate([[0], np.cumsum(np.asarray(sizes, np.int64))])
    return Cells(store, order, bounds, _means(store, bounds))


def _divide(
    vectors: NDArray[Any], order: NDArray[np.int32], store: NDArray[Any], wished: int, rng: np.random.Generator
) -> list[int]:
    """Divide one coarse cell: `order` is sorted and `store` filled in place; returns the sizes of its cells."""
    if not len(order):
        return []
    own = unit(vectors[order])
    parts = max(1, round(len(own) / wished))
    sample = own
    if len(own) > _SAMPLE * parts:
        sample = own[np.sort(rng.choice(len(own), _SAMPLE * parts, replace=False))]
    home = nearest_centre(own, k_means(sample, parts, rng))
    inner = np.argsort(home, kind="stable")
    order[:] = order[inner]
    store[:] = own[inner]
    sizes: list[int] = []
    for count in np.bincount(home):
        pieces = -(-int(count) // (2 * wished))
        sizes += [(int(count) + piece) // pieces for piece in range(pieces)]
    return [size for size in sizes if size]


def k_means(sample: NDArray[np.float32], count: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return `count` centres of length 1; each round moves a centre to the mean of the vectors nearest to it.

    A centre that nothing is near to stays where it is: duplicates may leave fewer distinct vectors than centres.
    """
    centres = sample[np.sort(rng.choice(len(sample), count, replace=len(sample) < count))].copy()
    for _ in range(_ROUNDS if count > 1 else 1):
        home = nearest_centre(sample, centres)
        inner = np.argsort(home, kind="stable")
        held, first = np.unique(home[inner], return_index=True)
        moved = unit(np.add.reduceat(sample[inner], first, axis=0))
        stays = ~moved.any(axis=1)
        centres[held[~stays]] = moved[~stays]
    return centres


def nearest_centre(vectors: NDArray[np.float32], centres: NDArray[np.float32]) -> NDArray[np.int32]:
    """Return the position of each vector's nearest centre, the first of equal ones."""
    home = np.empty(len(vectors), np.int32)
    step = max(64, (1 << 18) // len(centres))
    for start in range(0, len(vectors), step):
        home[start : start + step] = np.argmax(vectors[start : start + step] @ centres.T, axis=1)
    return home


def _means(store: NDArray[Any], starts: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the mean of each cell, of length 1; some cells at a time."""
    centres = np.empty((len(starts) - 1, store.shape[1]), np.float32)
    step = 512
    for first in range(0, len(centres), step):
        bounds = starts[first : first + step + 1]
        rows = np.asarray(store[bounds[0] : bounds[-1]], np.float32)
        centres[first : first + step] = unit(np.add.reduceat(rows, bounds[:-1] - bounds[0], axis=0))
    return centres
