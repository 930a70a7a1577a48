"""The k rows of a matrix with the largest inner product with each of some queries, exactly, by blocked products.

A product is computed in chunks that stay in the cache, and of each group of consecutive rows only the largest value is
kept. The k best rows lie in the k groups with the largest maxima (ties apart), so only those rows are looked at again.
That takes some 0.1 ns a pair beside the product's own 0.5 (20 dimensions) to 1.0 ns (45), a heap 1 to 3 ns.

Products differ in the last bits with the shape of their operands; the similarities returned are summed again in one
fixed order, so equal rows have equal similarities. Which rows of a tie are returned is not promised.
"""

from __future__ import annotations

from threading import local
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["Found", "Workspace", "Workspaces", "best", "merged"]

Matrix: TypeAlias = NDArray[Any]
Found: TypeAlias = tuple[NDArray[np.int64], NDArray[np.float32]]
"""Rows [B, k] and their similarities [B, k], in no order."""
_CHUNK = 1 << 18
"""Numbers of a product that are computed at once: 1 MB, what a core's cache holds."""
_ROWS = 1 << 20
"""Rows searched before results are merged; bounds the maxima that are kept, 64 MB a thread at 128 queries."""


class Workspace:
    """Arrays that one thread uses again: the system would clear each new one page by page, which triples the time."""

    def __init__(self) -> None:
        self._held: dict[tuple[str, Any], Matrix] = {}

    def array(self, name: str, shape: tuple[int, ...], dtype: Any = np.float32) -> Matrix:
        """Return an array of this shape with any content; the next call of that name takes it back."""
        size, key = int(np.prod(shape)), (name, np.dtype(dtype))
        held = self._held.get(key)
        if held is None or held.size < size:
            held = self._held[key] = np.empty(size + size // 4, dtype)
        return held[:size].reshape(shape)

    def rows(self, name: str, source: Matrix, where: NDArray[Any]) -> Matrix:
        """Return ``source[where]`` as float32."""
        shape = (*where.shape, source.shape[1])
        taken = self.array(name + " taken", shape, source.dtype)
        np.take(source, where, axis=0, out=taken, mode="clip")
        return taken if source.dtype == np.float32 else self.single(name, taken)

    def single(self, name: str, values: Matrix) -> Matrix:
        """Return `values` as float32: themselves, or converted into an array of this space."""
        if values.dtype == np.float32:
            return values
        converted = self.array(name, values.shape)
        np.copyto(converted, values, casting="same_kind")
        return converted


class Workspaces(local):
    """A workspace for each thread that asks.

    Attributes
    ----------
    own
        The asking thread's.
    """

    def __init__(self) -> None:
        self.own = Workspace()


def best(base: Matrix, queries: NDArray[np.float32], k: int, space: Workspace) -> Found:
    """Return the rows of `base` with the largest inner products, for each query.

    Parameters
    ----------
    base
        float32 or float16 [C, D], C >= 1.
    queries
        float32 [B, D].
    k
        How many rows a query; min(k, C) come back.
    space
        Arrays to work in; one a thread.
    """
    found = _best_block(base[:_ROWS], queries, k, space)
    for start in range(_ROWS, len(base), _ROWS):
        rows, values = _best_block(base[start : start + _ROWS], queries, k, space)
        found = merged(found, (rows + start, values), k)
    return found


def merged(one: Found, other: Found, k: int) -> Found:
    """Return the k best of two results for the same queries."""
    rows, values = np.concatenate([one[0], other[0]], axis=1), np.concatenate([one[1], other[1]], axis=1)
    return _largest(rows, values, k)


def _largest(rows: NDArray[np.int64], values: NDArray[np.float32], k: int) -> Found:
    width = values.shape[1]
    if width <= k:
        return rows, values
    picked = np.argpartition(values, width - k, axis=1)[:, width - k :]
    return np.take_along_axis(rows, picked, axis=1), np.take_along_axis(values, picked, axis=1)


def _group(rows: int, k: int) -> int:
    """Return how many rows share a maximum: choosing among C / g groups costs what looking at k g rows again does."""
    return int(2 ** np.clip(np.round(np.log2(max(1.0, rows / (8 * k))) / 2), 3, 7))


def _best_block(base: Matrix, queries: NDArray[np.float32], k: int, space: Workspace) -> Found:
    size, group = len(base), _group(len(base), k)
    maxima = _maxima(base, queries, group, space)
    groups = len(maxima)
    kept = min(k, groups)
    across = space.array("across", (len(queries), groups))
    np.copyto(across, maxima.T)
    top = np.argpartition(across, groups - kept, axis=1)[:, groups - kept :] if kept < groups else None
    if top is None:
        top = np.broadcast_to(np.arange(groups), (len(queries), groups))
    rows = (top[:, :, None] * group + np.arange(group)).reshape(len(queries), -1)
    values = _products(base, rows, queries, space)
    values[rows >= size] = -np.inf
    rows, _ = _largest(rows, values, min(k, size))
    again = space.rows("again", base, rows)
    return rows, np.einsum("bkd,bd->bk", again, queries)  # one order of summation whatever the shapes


def _maxima(base: Matrix, queries: NDArray[np.float32], group: int, space: Workspace) -> Matrix:
    """Return [ceil(C / group), B]: the largest product of each group of rows with each query."""
    size, count = len(base), len(queries)
    maxima = space.array("maxima", (-(-size // group), count))
    step = max(1, _CHUNK // (count * group)) * group
    for start in range(0, size, step):
        part = space.single("part", base[start : start + step])
        product = np.matmul(part, queries.T, out=space.array("product", (len(part), count)))
        full, first = len(part) // group, start // group
        np.max(product[: full * group].reshape(full, group, count), axis=1, out=maxima[first : first + full])
        if full * group < len(part):
            np.max(product[full * group :], axis=0, out=maxima[first + full])
    return maxima


def _products(
    base: Matrix, rows: NDArray[np.int64], queries: NDArray[np.float32], space: Workspace
) -> NDArray[np.float32]:
    """Return [B, m]: each query's products with its own rows, a few queries at a time."""
    count, width = rows.shape
    values = np.empty((count, width), np.float32)
    step = max(1, _CHUNK // (width * base.shape[1]))
    for start in range(0, count, step):
        part = slice(start, start + step)
        taken = space.rows("candidates", base, rows[part])
        np.matmul(taken, queries[part, :, None], out=values[part, :, None])
    return values
