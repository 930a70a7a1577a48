"""Propagation over the graph: sparse products, no transform, no activation (CSTWA, eq. 9)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from postclick.errors import ConfigError, Finding

if TYPE_CHECKING:
    from scipy.sparse import csr_array

__all__ = ["propagate"]


def propagate(graph: csr_array, vectors: NDArray[np.float32], layers: int = 1) -> NDArray[np.float32]:
    """Return E^(L), where E^(l+1) = G E^(l) and E^(0) is `vectors` (Ouyang et al. 2023, eq. 9).

    Parameters
    ----------
    graph
        G [N, N], as `normalise` gives it.
    vectors
        float32 [N, D].
    layers
        L >= 0; the paper's 1.

    Returns
    -------
    NDArray
        float32 [N, D]. An entity without neighbours gets zeros: eq. 10 leaves it as it was (`has_neighbours`).

    Raises
    ------
    ConfigError
        ``config.value`` for a negative `layers`, or vectors of another number of entities.
    """
    problems = []
    if layers < 0:
        problems.append(f"layers is {layers}, wanted 0 or more")
    if len(vectors) != graph.shape[0]:
        problems.append(f"{len(vectors):,} vectors for a graph of {graph.shape[0]:,} entities")
    if problems:
        raise ConfigError(*(Finding("config.value", problem, "propagate") for problem in problems))
    for _ in range(layers):
        vectors = np.asarray(graph @ vectors, np.float32)
    return vectors
