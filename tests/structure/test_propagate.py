"""Eq. 9 against plain loops."""

from __future__ import annotations

import numpy as np
import pytest

from postclick.errors import ConfigError
from postclick.structure import neighbours, normalise, propagate


@pytest.mark.parametrize("layers", [0, 1, 3])
def test_layers_are_sparse_products(clustered, layers):
    graph = normalise(neighbours(clustered[:60], 4))
    start = np.random.default_rng(0).normal(size=(60, 7)).astype(np.float32)
    expected, table = start.astype(np.float64), graph.toarray().astype(np.float64)
    for _ in range(layers):
        expected = np.array([sum(table[row, other] * expected[other] for other in range(60)) for row in range(60)])
    result = propagate(graph, start, layers)
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-6)
    assert result.dtype == np.float32


def test_an_entity_without_neighbours_gets_zeros():
    graph = normalise(neighbours(np.array([[1, 0], [2, 0], [0, 0]], np.float32), 1))
    np.testing.assert_allclose(propagate(graph, np.array([[1], [2], [3]], np.float32)), [[2], [1], [0]])


def test_mistakes_are_reported_together(clustered):
    graph = normalise(neighbours(clustered[:60], 4))
    with pytest.raises(ConfigError, match="layers is -1") as caught:
        propagate(graph, np.zeros((59, 2), np.float32), -1)
    assert len(caught.value.findings) == 2
