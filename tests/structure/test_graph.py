"""Eq. 5 against a dense computation, rows without neighbours, symmetrising."""

from __future__ import annotations

import numpy as np
import pytest

from postclick.structure import Neighbours, has_neighbours, neighbours, normalise, similarities


def dense(found: Neighbours, symmetrise: bool) -> np.ndarray:
    size = len(found.indices)
    table = np.zeros((size, size))
    for row in range(size):
        for column, value in zip(found.indices[row], found.similarities[row], strict=True):
            if column >= 0:
                table[row, column] = value
    if symmetrise:
        table = np.maximum(table, table.T)
    degrees = table.sum(axis=1)
    scale = np.array([0.0 if degree == 0 else degree**-0.5 for degree in degrees])
    return scale[:, None] * table * scale[None, :]


@pytest.mark.parametrize("symmetrise", [False, True])
@pytest.mark.parametrize("include_self", [False, True])
def test_rows_equal_the_dense_computation(clustered, symmetrise, include_self):
    vectors = clustered[:150].copy()
    vectors[::10] = 0
    found = neighbours(vectors, 5, include_self=include_self)
    graph = normalise(found, symmetrise)
    np.testing.assert_allclose(graph.toarray(), dense(found, symmetrise), rtol=1e-5, atol=1e-7)
    assert graph.dtype == np.float32
    assert graph.has_sorted_indices
    assert (graph.data > 0).all()
    assert (abs(graph - graph.T).max() < 1e-7) == symmetrise


def test_an_entity_without_neighbours_has_an_empty_row():
    vectors = np.array([[1, 0], [1, 0.1], [0, 0], [-1, -1]], np.float32)
    graph = normalise(neighbours(vectors, 2))
    np.testing.assert_array_equal(has_neighbours(graph), [True, True, False, False])
    np.testing.assert_allclose(graph.toarray()[:2, :2], [[0, 1], [1, 0]], rtol=1e-6)


def test_similarities_are_the_cosines_in_order_of_columns():
    found = Neighbours(np.array([[2, 1], [0, -1], [-1, -1]], np.int32), np.array([[0.9, 0.3], [0.3, 0], [0, 0]], "f4"))
    kept = similarities(found)
    np.testing.assert_array_equal(kept.indices, [1, 2, 0])
    np.testing.assert_array_equal(kept.indptr, [0, 2, 3, 3])
    np.testing.assert_allclose(kept.data, [0.3, 0.9, 0.3])
