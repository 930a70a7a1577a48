"""What an entity is to the search: its features' embeddings side by side (CSTWA, eq. 2)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from postclick.errors import ConfigError, Finding

__all__ = ["representations"]

_BLOCK = 1 << 18


def representations(
    table: NDArray[np.float32], features: NDArray[np.integer[Any]], *, dtype: DTypeLike = np.float32
) -> NDArray[Any]:
    """Return e_u = concat_j E(f_uj) for each entity (Ouyang et al. 2023, eq. 2).

    Parameters
    ----------
    table
        float32 [R, E]: the embedding table of the pre-trained CTR network, one row a value of a feature.
    features
        Integers [N, m]: rows of the table, one column a single-valued sparse feature of the side.
    dtype
        float32, or float16 for half the memory: 30 million entities of 45 dimensions take 2.7 GB.

    Returns
    -------
    NDArray
        [N, m E].

    Raises
    ------
    ConfigError
        ``config.value`` where a feature points outside the table.
    """
    if features.size and (features.min() < 0 or features.max() >= len(table)):
        what = f"features point to rows {features.min()} to {features.max()}, the table has {len(table):,}"
        fix = "pass the table and the entities of one log"
        raise ConfigError(Finding("config.value", what, "representations", fix=fix))
    size, m = features.shape
    vectors = np.empty((size, m * table.shape[1]), dtype)
    for start in range(0, size, _BLOCK):
        part = np.asarray(features[start : start + _BLOCK])
        vectors[start : start + _BLOCK] = table[part].reshape(len(part), -1)
    return vectors
