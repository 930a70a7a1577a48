"""The K nearest entities by cosine (CSTWA, eqs. 3 and 4), exactly or approximately, on the CPU.

    S_ab = <e_a, e_b> / (|e_a| |e_b|), negatives to 0;   kept: the K largest S_ab of each a, b != a

Exact search compares all pairs (`nearest`). Approximate search sorts the vectors into cells of near ones (`cells`),
measures on a sample how far one must look for the wished recall (`probing`), and then goes through the store cell by
cell: the members of a cell share their candidates, so a cell is one matrix product. Nothing is written but the results,
which fill their arrays as cells are done.

Vectors without structure need many candidates. From half of all on, all pairs are compared instead, which is cheaper:
a pair takes 1.4 to 1.8 ns there and 2.7 to 2.8 within cells (20 dimensions, processor time of a busy core). And no
search compares more than 2e12 pairs unless it is asked for ``exact``: the candidates are cut, and the recall that is
left is stated before the search goes on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from postclick import progress
from postclick.errors import ConfigError, DataError, Finding
from postclick.execution import cores
from postclick.structure.cells import Cells, make_cells, unit
from postclick.structure.estimate import Method, cell_size, estimate
from postclick.structure.nearest import Workspace, Workspaces, best
from postclick.structure.probing import Reach, candidates, measure_reach
from postclick.structure.threads import one_blas_thread, spread

__all__ = ["Neighbours", "estimate", "neighbours"]

_BLOCK = 1 << 16
_QUERIES = 128
_SHORTLISTS = 64
"""Cells whose nearest cells are looked up at once."""
_ALL_PAIRS = 0.5
"""Share of all entities as candidates from which comparing all pairs is cheaper."""
_MOST_PAIRS = 2_000_000_000_000
"""Pairs that approximate search may compare: an hour or less on two cores."""


@dataclass(frozen=True)
class Neighbours:
    """The nearest entities of each of N.

    Parameters
    ----------
    indices
        int32 [N, K]: positions, the nearest first, ties by position; -1 where there is no further neighbour.
    similarities
        float32 [N, K]: cosines in (0, 1]; 0 where there is no neighbour.
    method
        What was run: ``exact`` or ``approximate``.
    include_self
        Whether an entity is its own first neighbour.
    candidates
        Vectors each was compared with, on average.
    recall
        Recall that approximate search foresees from its sample; 1 for exact search. `recall_at` measures what came out.
    """

    indices: NDArray[np.int32]
    similarities: NDArray[np.float32]
    method: Method = "exact"
    include_self: bool = False
    candidates: float = 0.0
    recall: float = 1.0


def neighbours(
    vectors: NDArray[Any],
    k: int,
    *,
    method: Literal["auto", "exact", "approximate"] = "auto",
    include_self: bool = False,
    recall: float = 0.99,
    seed: int = 0,
    threads: int | None = None,
    note: Callable[[str], object] | None = None,
) -> Neighbours:
    """Return the k nearest others of each vector by cosine.

    Parameters
    ----------
    vectors
        float32 or float16 [N, D], memory-mapped or not. Of float16 ones the sorted copy is float16 too: half the
        memory, similarities good to 1e-3.
    k
        Neighbours each; fewer where fewer have a positive cosine. A zero vector has none.
    method
        ``exact``; ``approximate``; ``auto``: exact up to 30,000 entities, where all pairs take a second or two.
        Approximate search that would need half of all entities as candidates compares all pairs, and says so.
    include_self
        An entity with a vector is its own first neighbour, one of the k.
    recall
        Share of the k nearest that approximate search looks far enough for, as measured on 512 entities; less, and
        stated, where that would take over 2e12 pairs.
    seed
        Draws what approximate search samples. Equal seeds and vectors give equal results, whatever `threads` is.
    threads
        None takes every core this process may use.
    note
        Told in words what the search will take, before it starts, and how far it has to look.

    Raises
    ------
    ConfigError
        ``config.value`` for a `k`, `recall` or `method` out of range, or vectors that are no matrix of floats.
    DataError
        ``data.non_finite`` for vectors with NaN or infinity, counted.

    Notes
    -----
    Of entities that are equally similar (many with the same features), any may be returned: each is a true neighbour.
    Self is left out by its position, not by its rank.
    """
    _check(vectors, k, method, recall)
    threads = threads or cores()
    size = len(vectors)
    planned = estimate(size, vectors.shape[1], k, method=method, threads=threads, half=vectors.dtype == np.float16)
    if note:
        note(str(planned))
    result = Neighbours(np.full((size, k), -1, np.int32), np.zeros((size, k), np.float32), planned.method, include_self)
    chosen = _directed(vectors)
    if not len(chosen):
        return result
    with one_blas_thread():
        if planned.method == "approximate":
            found = _approximate(vectors, chosen, result, recall, seed, threads, note)
            if found is not None:
                return found
        return _exact(vectors, chosen, result, threads)


def _check(vectors: NDArray[Any], k: int, method: str, recall: float) -> None:
    if vectors.ndim != 2 or vectors.dtype not in (np.float32, np.float16) or not vectors.shape[1]:
        what = f"vectors are {vectors.dtype} of shape {vectors.shape}, wanted float32 or float16 [N, D]"
        raise ConfigError(Finding("config.value", what, "neighbours", fix="see postclick.structure.representations"))
    problems = []
    if k < 1:
        problems.append(f"k is {k}, wanted 1 or more")
    if not 0.0 < recall < 1.0:
        problems.append(f"recall is {recall}, wanted a share between 0 and 1; method exact finds all")
    if method not in ("auto", "exact", "approximate"):
        problems.append(f"method is {method!r}, wanted auto, exact or approximate")
    if problems:
        raise ConfigError(*(Finding("config.value", problem, "neighbours") for problem in problems))


def _directed(vectors: NDArray[Any]) -> NDArray[np.int32]:
    """Return the positions of the vectors that have a direction; a NaN or infinity stops."""
    directed, bad = [], 0
    first: list[str] = []
    for start in range(0, len(vectors), _BLOCK):
        part = np.asarray(vectors[start : start + _BLOCK])
        broken = ~np.isfinite(part).all(axis=1)
        bad += int(np.count_nonzero(broken))
        first += [str(start + int(row)) for row in np.flatnonzero(broken)[: 5 - len(first)]]
        directed.append(np.flatnonzero(part.any(axis=1)).astype(np.int32) + np.int32(start))
    if bad:
        what = "vectors with NaN or infinity; the network they come from did not train"
        raise DataError(Finding("data.non_finite", what, "vectors", bad, tuple(first), "train it again, slower"))
    return np.concatenate(directed) if directed else np.zeros(0, np.int32)


def _exact(vectors: NDArray[Any], chosen: NDArray[np.int32], result: Neighbours, threads: int) -> Neighbours:
    store = np.empty((len(chosen), vectors.shape[1]), np.float32)
    for start in range(0, len(chosen), _BLOCK):
        store[start : start + _BLOCK] = unit(vectors[chosen[start : start + _BLOCK]])
    spaces, asked = Workspaces(), _asked(result)

    def search(start: int) -> int:
        own = np.arange(start, min(start + _QUERIES, len(store)))
        found = best(store, store[own], asked, spaces.own) if asked else None
        _fill(result, chosen, own, found)
        return len(own)

    with progress.bar("comparing all pairs", len(store), "entities") as advance:
        for done in spread(search, range(0, len(store), _QUERIES), threads):
            advance(done)
    return replace(result, method="exact", candidates=float(len(store)))


def _approximate(
    vectors: NDArray[Any],
    chosen: NDArray[np.int32],
    result: Neighbours,
    recall: float,
    seed: int,
    threads: int,
    note: Callable[[str], object] | None,
) -> Neighbours | None:
    """Search within cells; None, and nothing done, where that would cost more than all pairs do."""
    size = len(chosen)
    most = max(1, _MOST_PAIRS // size)
    with progress.bar("sorting into cells", len(chosen), "entities") as advance:
        cells = make_cells(vectors, chosen, cell_size(len(chosen)), seed=seed, threads=threads, advance=advance)
    reach = measure_reach(cells, result.indices.shape[1], recall, seed=seed, threads=threads, most=most)
    every = reach.candidates > _ALL_PAIRS * size and size <= most
    if note:
        note(_told(cells, reach, recall, every))
    if every:
        return None
    spaces, compared = Workspaces(), 0
    blocks = range(0, len(cells.sizes), _SHORTLISTS)
    with progress.bar("searching cell by cell", len(chosen), "entities") as advance:
        for done, pairs in spread(lambda first: _block(cells, reach, first, result, spaces.own), blocks, threads):
            compared += pairs
            advance(done)
    return replace(result, candidates=compared / size, recall=reach.recall)


def _told(cells: Cells, reach: Reach, recall: float, every: bool) -> str:
    part = reach.candidates / len(cells.store)
    wanted = f"recall {recall:g} takes"
    if reach.recall < recall:
        wanted = f"recall {recall:g} would take too long; recall {reach.recall:.3f} takes"
    told = f"{len(cells.sizes):,} cells; {wanted} {reach.candidates:,} candidates each ({part:.2%})"
    return told + ("; all pairs are compared, which is cheaper" if every else "")


def _block(cells: Cells, reach: Reach, first: int, result: Neighbours, space: Workspace) -> tuple[int, int]:
    """Search for the members of some cells; returns how many, and the pairs compared."""
    wanted = np.arange(first, min(first + _SHORTLISTS, len(cells.sizes)))
    every, asked = np.arange(len(cells.sizes)), _asked(result)
    near = None
    if 2 * reach.cells < len(every):
        near = best(cells.centres, cells.centres[wanted], reach.cells, space)[0]
    members = pairs = 0
    for row, cell in enumerate(wanted):
        own = np.arange(cells.starts[cell], cells.starts[cell + 1])
        queries = np.array(cells.store[own[0] : own[-1] + 1], np.float32)
        looked = every if near is None else np.union1d(near[row], [cell])
        rows = candidates(cells, int(cell), looked, reach.candidates, queries)
        found = None
        if asked:
            where, cosines = best(space.rows("base", cells.store, rows), queries, asked, space)
            found = rows[where], cosines
        _fill(result, cells.order, own, found)
        members, pairs = members + len(own), pairs + len(own) * len(rows)
    return members, pairs


def _asked(result: Neighbours) -> int:
    """Return how many rows to ask for: the k, and self, which is left out afterwards."""
    others = result.indices.shape[1] - result.include_self
    return others + 1 if others else 0


def _fill(
    result: Neighbours,
    order: NDArray[np.int32],
    own: NDArray[np.int64],
    found: tuple[NDArray[np.int64], NDArray[np.float32]] | None,
) -> None:
    """Write the neighbours of some rows of the store: self left out, negatives cut, nearest first, ties by position."""
    who, first = order[own], 0
    if result.include_self:
        result.indices[who, 0], result.similarities[who, 0] = who, 1.0
        first = 1
    if found is None:
        return
    rows, cosines = found
    cosines = np.where((rows == own[:, None]) | (cosines <= 0.0), np.float32(0.0), np.minimum(cosines, 1.0))
    indices = np.where(cosines > 0.0, order[rows], np.int32(-1))
    ranks = np.lexsort((indices, -cosines), axis=-1)[:, : result.indices.shape[1] - first]
    last = first + ranks.shape[1]
    result.indices[who, first:last] = np.take_along_axis(indices, ranks, axis=1)
    result.similarities[who, first:last] = np.take_along_axis(cosines, ranks, axis=1)
