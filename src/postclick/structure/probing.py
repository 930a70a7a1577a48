"""Which cells a cell's members look into for their neighbours, and how many, so that a wished recall is met.

All members of a cell look into the same cells, so one matrix product serves them all. Cells are ranked by

    score_j = mean over members q of exp(30 (cos(q, centre_j) - max_j' cos(q, centre_j')))

a soft count of the members to which cell j is nearly the nearest: the sum of cosines would need 1.7 times as many
candidates for a recall of .99, the largest cosine 1.4 times. How many candidates are looked at is measured, not set:
the true neighbours of some members are found exactly, and the rank of the cells they lie in says how far to go. Where
that is further than `most`, the search stops there, and the recall that the same sample foresees is stated.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from postclick.structure.cells import Cells
from postclick.structure.nearest import Workspace, best
from postclick.structure.threads import spread

__all__ = ["Reach", "candidates", "measure_reach"]

_SHARPNESS = 30.0
_SAMPLED_CELLS = 128
_SAMPLED_MEMBERS = 4
_TOGETHER = 16
"""Cells whose members are searched for in one pass: 64 queries."""
_TIE = 1e-5
_MARGIN = 0.6
"""Share of the misses allowed that the sample may have: its quantile is uncertain, the recall is a promise."""


@dataclass(frozen=True)
class Reach:
    """How far a cell looks.

    Parameters
    ----------
    candidates
        Vectors that each vector is compared with, at least.
    cells
        Cells that are ranked for a cell: its nearest by centre. All of them where that is their number.
    recall
        Share of the sample's true neighbours that lie so near. The recall wished or more, unless `most` cut it short.
    """

    candidates: int
    cells: int
    recall: float = 1.0


def candidates(
    cells: Cells, cell: int, near: NDArray[np.int64], reach: int, members: NDArray[np.float32]
) -> NDArray[np.int64]:
    """Return the rows of the store that the members of a cell are compared with, ascending.

    Parameters
    ----------
    cells
        The sorted vectors.
    cell
        Which cell.
    near
        int64: the cells that are ranked.
    reach
        Rows to return, at least.
    members
        float32 [B, D]: the cell's vectors.
    """
    ranked = near[np.argsort(-_scores(cells.centres[near], members, near == cell), kind="stable")]
    enough = int(np.searchsorted(np.cumsum(cells.sizes[ranked]), reach)) + 1
    taken = np.sort(ranked[:enough])
    firsts, sizes = cells.starts[taken], cells.sizes[taken]
    gaps = np.ones(int(sizes.sum()), np.int64)
    gaps[0] = firsts[0]
    ends = np.cumsum(sizes)[:-1]
    gaps[ends] = firsts[1:] - (firsts[:-1] + sizes[:-1] - 1)
    return np.cumsum(gaps)


def _scores(centres: NDArray[np.float32], members: NDArray[np.float32], own: NDArray[np.bool_]) -> NDArray[np.float32]:
    cosines = centres @ members.T
    cosines -= cosines.max(axis=0)
    cosines *= _SHARPNESS
    scores: NDArray[np.float32] = np.exp(cosines, out=cosines).mean(axis=1)
    scores[own] = np.inf
    return scores


def measure_reach(cells: Cells, k: int, recall: float, *, seed: int, threads: int, most: int | None = None) -> Reach:
    """Return how far to look for a share `recall` of the k nearest, from 512 members whose neighbours are known.

    A neighbour that is as similar as the k-th counts wherever it lies; neighbours of cosine 0 or less do not count.

    Parameters
    ----------
    cells
        The sorted vectors.
    k, recall
        Neighbours each, and the share of them that shall be found.
    seed, threads
        Draws the members; threads to work with.
    most
        Candidates that may be looked at, and four times the cells that may be ranked; None: no limit.
    """
    rng = np.random.default_rng([seed, 1])
    share = cells.sizes / len(cells.store)
    count = min(_SAMPLED_CELLS, len(share))
    drawn = np.sort(rng.choice(len(share), count, replace=False, p=share))
    pieces = [drawn[start : start + _TOGETHER] for start in range(0, count, _TOGETHER)]
    needed = list(spread(lambda piece: _needed(cells, piece, k, seed), pieces, threads))
    rows = np.concatenate([rows for rows, _ in needed])
    ranks = np.concatenate([ranks for _, ranks in needed])
    if not len(rows):
        return Reach(1, 1)
    allowed = (1.0 - recall) * _MARGIN
    reach = int(np.quantile(rows, 1.0 - allowed, method="higher"))
    nearest = int(np.quantile(ranks, 1.0 - allowed / 4.0, method="higher"))
    if most is not None:
        reach, nearest = min(reach, most), min(nearest, max(1, most // 4))
    mean = max(1.0, len(cells.store) / len(share))
    ranked = min(len(share), max(nearest, int(2 * reach / mean)) + 1)
    return Reach(reach, ranked, float(np.mean((rows <= reach) & (ranks < ranked))))


def _needed(cells: Cells, drawn: NDArray[Any], k: int, seed: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return, for each true neighbour of some members, the rows to look at to find it and its cell's rank by centre."""
    samples = [_sample(cells, int(cell), seed) for cell in drawn]
    own = np.concatenate(samples)
    # one pass over the store for the members of several cells: it is read from memory, or from a disk
    rows, cosines = best(cells.store, np.asarray(cells.store[own], np.float32), 4 * k + 1, Workspace())
    cosines[rows == own[:, None]] = -np.inf
    ends = np.cumsum([len(sample) for sample in samples])[:-1]
    parts = zip(drawn, samples, np.split(rows, ends), np.split(cosines, ends), strict=True)
    found = [_in_cell(cells, int(cell), sample, near, how, k) for cell, sample, near, how in parts]
    return np.concatenate([rows for rows, _ in found]), np.concatenate([ranks for _, ranks in found])


def _sample(cells: Cells, cell: int, seed: int) -> NDArray[np.int64]:
    """Return a few rows of a cell."""
    first, last = int(cells.starts[cell]), int(cells.starts[cell + 1])
    rng = np.random.default_rng([seed, 2, cell])
    drawn = rng.choice(last - first, min(_SAMPLED_MEMBERS, last - first), replace=False)
    return np.asarray(first + np.sort(drawn), np.int64)


def _in_cell(
    cells: Cells,
    cell: int,
    sample: NDArray[np.int64],
    rows: NDArray[np.int64],
    cosines: NDArray[np.float32],
    k: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return what `_needed` does for the sampled members of one cell, given the rows most similar to them."""
    first, last = int(cells.starts[cell]), int(cells.starts[cell + 1])
    members = np.asarray(cells.store[first:last], np.float32)
    everything = np.arange(len(cells.starts) - 1)
    reached = np.empty(len(everything), np.int64)
    order = np.argsort(-_scores(cells.centres, members, everything == cell), kind="stable")
    reached[order] = np.cumsum(cells.sizes[order])
    by_centre = np.empty(len(everything), np.int64)
    by_centre[np.argsort(-(cells.centres @ cells.centres[cell]), kind="stable")] = everything
    by_centre[cell] = 0
    homes: list[NDArray[np.int64]] = []
    for query, row in enumerate(sample):
        least = max(float(np.sort(cosines[query])[::-1][:k][-1]) - _TIE, _TIE)
        inside = members @ members[row - first] >= least
        inside[row - first] = False
        home = np.searchsorted(cells.starts, rows[query][cosines[query] >= least], side="right") - 1
        outside = home[home != cell]
        outside = outside[np.argsort(reached[outside], kind="stable")]
        here = min(k, int(np.count_nonzero(inside)))
        homes.append(np.concatenate([np.full(here, cell), outside[: k - here]]))
    looked = np.concatenate(homes)
    return reached[looked], by_centre[looked]
