"""The graph that neighbours make: a sparse matrix, normalised on both sides (CSTWA, eq. 5)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from postclick.structure.search import Neighbours

if TYPE_CHECKING:
    from scipy.sparse import csr_array

__all__ = ["has_neighbours", "normalise", "similarities"]


def similarities(neighbours: Neighbours, symmetrise: bool = False) -> csr_array:
    r"""Return \bar S of eq. 4, sparse: the cosines of each entity's neighbours in its row.

    Parameters
    ----------
    neighbours
        As `neighbours` found them.
    symmetrise
        max(\bar S, \bar S^T): an edge wherever either has the other among its K; the paper does not say, default off.

    Returns
    -------
    csr_array
        float32 [N, N], columns ascending within a row, no stored zeros.
    """
    from scipy.sparse import csr_array

    size = len(neighbours.indices)
    order = np.argsort(neighbours.indices, axis=1)
    columns = np.take_along_axis(neighbours.indices, order, axis=1)
    values = np.take_along_axis(neighbours.similarities, order, axis=1)
    held = columns >= 0
    offsets = np.concatenate([[0], np.cumsum(held.sum(axis=1, dtype=np.int64))])
    matrix = csr_array((values[held], columns[held], offsets), shape=(size, size))
    return matrix.maximum(matrix.T.tocsr()).tocsr() if symmetrise else matrix


def normalise(neighbours: Neighbours, symmetrise: bool = False) -> csr_array:
    r"""Return G = D^{-1/2} \bar S D^{-1/2} with D the row sums of \bar S (Ouyang et al. 2023, eq. 5).

    Parameters
    ----------
    neighbours
        As `neighbours` found them.
    symmetrise
        As `similarities`. Without it \bar S is not symmetric, and both sides use the row sums, as the paper writes.

    Returns
    -------
    csr_array
        float32 [N, N]. An entity without neighbours has D = 0; its D^{-1/2} is 0, and so is its row.
    """
    matrix = similarities(neighbours, symmetrise)
    degrees = np.asarray(matrix.sum(axis=1, dtype=np.float64)).ravel()
    inverse = np.zeros_like(degrees)
    np.divide(1.0, np.sqrt(degrees), out=inverse, where=degrees > 0.0)
    rows = np.repeat(inverse, np.diff(matrix.indptr))
    matrix.data = (rows * matrix.data * inverse[matrix.indices]).astype(np.float32)
    return matrix


def has_neighbours(graph: csr_array) -> NDArray[np.bool_]:
    """Return which entities have a neighbour; the others are left as they are (SYSTEMS: a row of G that is zero)."""
    return np.diff(graph.indptr) > 0
