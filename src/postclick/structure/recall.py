"""How many of the true nearest a search found, on a sample."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from postclick import progress
from postclick.execution import cores
from postclick.structure.cells import unit
from postclick.structure.nearest import Found, Workspaces, best, merged
from postclick.structure.search import Neighbours
from postclick.structure.threads import one_blas_thread, spread

__all__ = ["Recall", "recall_at"]

_BLOCK = 1 << 16


@dataclass(frozen=True)
class Recall:
    """Recall on a sample.

    Parameters
    ----------
    value
        Share of the true nearest, over all sampled entities.
    entities, found, wanted
        How many entities were sampled, and of their true nearest how many were found, of how many.
    """

    value: float
    entities: int
    found: int
    wanted: int


def recall_at(
    vectors: NDArray[Any],
    neighbours: Neighbours,
    *,
    sample: int = 1000,
    seed: int = 0,
    tolerance: float | None = None,
    threads: int | None = None,
) -> Recall:
    """Return recall@K by similarity: a neighbour counts when it is as similar as the K-th true one, whoever it is.

    Parameters
    ----------
    vectors
        float32 or float16 [N, D]: what was searched.
    neighbours
        What the search returned; K is its width.
    sample
        Entities whose true neighbours are found by comparing them with all.
    seed
        Draws them.
    tolerance
        Cosines that are this close are ties; None: 1e-5, or 1e-3 for float16.
    threads
        None takes every core this process may use.

    Returns
    -------
    Recall
        Only positive cosines count as true neighbours; without any, the value is 1.
    """
    if tolerance is None:
        tolerance = 1e-3 if vectors.dtype == np.float16 else 1e-5
    rng = np.random.default_rng([seed, 2])
    drawn = np.sort(rng.choice(len(vectors), min(sample, len(vectors)), replace=False))
    queries = unit(vectors[drawn])
    k = neighbours.indices.shape[1] - neighbours.include_self
    indices = neighbours.indices[drawn]
    if neighbours.include_self:
        indices = indices[:, 1:]
    if not k:
        return Recall(1.0, len(drawn), 0, 0)
    true = _true(vectors, queries, drawn, k, threads or cores())
    wanted = np.count_nonzero(true > tolerance, axis=1)
    least = np.take_along_axis(true, np.maximum(wanted - 1, 0)[:, None], axis=1)
    rows = unit(np.asarray(vectors[np.maximum(indices, 0).ravel()])).reshape(*indices.shape, vectors.shape[1])
    cosines = np.einsum("bkd,bd->bk", rows, queries)
    hits = (indices >= 0) & (indices != drawn[:, None]) & (cosines >= least - tolerance)
    found = np.minimum(np.count_nonzero(hits, axis=1), wanted)
    total = int(wanted.sum())
    return Recall(float(found.sum() / total) if total else 1.0, len(drawn), int(found.sum()), total)


def _true(
    vectors: NDArray[Any], queries: NDArray[np.float32], drawn: NDArray[np.int64], k: int, threads: int
) -> NDArray[np.float32]:
    """Return the k largest cosines of each query with all others, the largest first; -1 where there are fewer."""
    spaces = Workspaces()

    def search(start: int) -> Found:
        base = unit(np.asarray(vectors[start : start + _BLOCK]))
        parts = [best(base, queries[at : at + 128], k + 1, spaces.own) for at in range(0, len(queries), 128)]
        rows = np.concatenate([rows for rows, _ in parts]) + start
        cosines = np.concatenate([cosines for _, cosines in parts])
        cosines[rows == drawn[:, None]] = -1.0
        return rows, cosines

    starts = range(0, len(vectors), _BLOCK)
    result: Found = np.zeros((len(queries), 0), np.int64), np.zeros((len(queries), 0), np.float32)
    with one_blas_thread(), progress.bar("measuring recall", len(vectors), "entities") as advance:
        for start, found in zip(starts, spread(search, starts, threads), strict=True):
            result = merged(result, found, k + 1)
            advance(min(_BLOCK, len(vectors) - start))
    largest = -np.sort(-result[1], axis=1)[:, :k]
    return np.pad(largest, ((0, 0), (0, k - largest.shape[1])), constant_values=-1.0)
