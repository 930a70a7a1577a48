"""The K nearest by cosine on a GPU: blocked matrix products with a running best list (CSTWA, eqs. 3 and 4, at scale).

N vectors against N vectors is N^2 D products, which a GPU does in half precision faster than any index is built:

    for each block of queries: for each block of vectors: scores = queries @ vectors^T; keep the running 32 best
    the 32 are compared again in float32, self is left out by its position, the K best are kept

Half precision rounds a cosine by some 1e-3: the true K are among the running 32 unless more than 32 vectors lie that
near to the K-th. On a CPU everything is float32; `postclick.structure` is faster there.
"""

from __future__ import annotations

import torch
from torch import Tensor

from postclick.errors import ConfigError, Finding

__all__ = ["blocked_neighbours"]

_RUNNING = 32


def blocked_neighbours(
    vectors: Tensor,
    k: int,
    *,
    queries: Tensor | None = None,
    running: int = _RUNNING,
    rows: int = 8192,
    columns: int = 65536,
    half: bool | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the k nearest others of each vector, or of some.

    Parameters
    ----------
    vectors
        Floats [N, D] on the device that shall search.
    k
        Neighbours each.
    queries
        int64 [B]: positions of those to search for; None: all N. A sample's time tells the whole's.
    running
        Candidates kept in the first pass; at least k + 1 are.
    rows, columns
        Queries and vectors of one product: rows x columns numbers are held, 1 GB in half precision by default.
    half
        Products in float16; None: on a GPU.

    Returns
    -------
    tuple of Tensor
        int64 [B, k]: positions, the nearest first, -1 where there is no further neighbour of positive cosine; float32
        [B, k]: cosines in (0, 1], 0 where there is no neighbour. Of equally similar vectors any may be returned. A zero
        vector has no neighbours.

    Raises
    ------
    ConfigError
        ``config.value`` for a `k` below 1 or vectors that are no matrix.
    """
    if k < 1 or vectors.ndim != 2:
        what = f"k is {k} and vectors are {tuple(vectors.shape)}, wanted k >= 1 and [N, D]"
        raise ConfigError(Finding("config.value", what, "blocked_neighbours"))
    device = vectors.device
    asked = torch.arange(len(vectors), device=device) if queries is None else queries.to(device)
    indices = torch.full((len(asked), k), -1, dtype=torch.int64, device=device)
    cosines = torch.zeros((len(asked), k), dtype=torch.float32, device=device)
    if len(vectors) < 2:
        return indices, cosines
    half = device.type == "cuda" if half is None else half
    with torch.no_grad():
        single = _unit(vectors)
        compared = single.half() if half else single
        for start in range(0, len(asked), rows):
            own = asked[start : start + rows]
            kept = _running_best(compared, own, max(running, k + 1), columns)
            found, values = _ranked(single, own, kept, k)
            indices[start : start + rows, : found.shape[1]] = found
            cosines[start : start + rows, : found.shape[1]] = values
    return indices, cosines


def _unit(vectors: Tensor) -> Tensor:
    """Return the rows at length 1 in float32, zero rows as they are."""
    single = vectors.float()
    largest = single.abs().amax(dim=1, keepdim=True)
    single = torch.where(largest > 0, single / largest, 0.0)
    return torch.nn.functional.normalize(single, dim=1)


def _running_best(compared: Tensor, own: Tensor, running: int, columns: int) -> Tensor:
    """Return int64 [B, running]: the rows with the largest products with each query, block by block."""
    asked = compared[own]
    values = asked.new_empty((len(own), 0))
    places = own.new_empty((len(own), 0))
    for first in range(0, len(compared), columns):
        scores = asked @ compared[first : first + columns].T
        top, where = scores.topk(min(running, scores.shape[1]), dim=1)
        values, places = torch.cat([values, top], dim=1), torch.cat([places, where + first], dim=1)
        values, chosen = values.topk(min(running, values.shape[1]), dim=1)
        places = places.gather(1, chosen)
    return places


def _ranked(single: Tensor, own: Tensor, kept: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the k best of the kept rows by cosines in float32, without self and without negatives."""
    values = torch.einsum("bcd,bd->bc", single[kept], single[own]).clamp(max=1.0)
    values = torch.where((kept == own[:, None]) | (values <= 0), 0.0, values)
    top, chosen = values.topk(min(k, kept.shape[1]), dim=1)
    return torch.where(top > 0, kept.gather(1, chosen), -1), top
