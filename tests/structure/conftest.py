"""Vectors with a known answer, and the answer by a full table of cosines."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray


@pytest.fixture(scope="session")
def clustered() -> NDArray[np.float32]:
    """4,000 vectors of 20 dimensions: four features of 5, as a click net would embed them; the first is the id."""
    rng = np.random.default_rng(7)
    parts = [rng.normal(size=(4000, 5))]
    parts += [rng.normal(size=(values, 5))[rng.integers(0, values, 4000)] for values in (60, 12, 5)]
    return np.concatenate(parts, axis=1).astype(np.float32)


def cosines(vectors: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return [N, N] cosines in float64, self and zero vectors at -inf."""
    wide = vectors.astype(np.float64)
    length = np.linalg.norm(wide, axis=1)
    with np.errstate(invalid="ignore"):
        table = wide @ wide.T / np.outer(length, length)
    table[np.isnan(table)] = -np.inf
    np.fill_diagonal(table, -np.inf)
    return table


def check_exact(vectors: NDArray[np.floating], indices: NDArray[np.int32], values: NDArray[np.float32], k: int) -> None:
    """Compare a result with the full table: the k largest positive cosines each, whichever of a tie."""
    table = cosines(vectors)
    best = -np.sort(-table, axis=1)[:, :k]
    np.testing.assert_allclose(values, np.where(best > 0, best, 0.0), atol=2e-6)
    assert ((indices >= 0) == (values > 0)).all()
    for row, (found, value) in enumerate(zip(indices, values, strict=True)):
        held = found[found >= 0]
        assert len(set(held.tolist())) == len(held)
        assert row not in held
        np.testing.assert_allclose(table[row, held], value[found >= 0], atol=2e-6)


@pytest.fixture(scope="session")
def checked():
    return check_exact
