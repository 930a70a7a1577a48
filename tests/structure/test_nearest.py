"""The blocked kernel against a full product, over several shapes of chunk and group."""

from __future__ import annotations

import numpy as np
import pytest

from postclick.structure import nearest
from postclick.structure.nearest import Workspace, best, merged


@pytest.mark.parametrize(("rows", "queries", "k"), [(1, 3, 5), (7, 1, 7), (100, 5, 1), (3001, 130, 9), (9000, 3, 40)])
def test_the_k_largest_products_come_back(rows, queries, k):
    rng = np.random.default_rng(rows)
    base = rng.normal(size=(rows, 6)).astype(np.float32)
    asked = rng.normal(size=(queries, 6)).astype(np.float32)
    where, values = best(base, asked, k, Workspace())
    full = asked.astype(np.float64) @ base.T.astype(np.float64)
    expected = -np.sort(-full, axis=1)[:, :k]
    assert where.shape == (queries, min(k, rows))
    np.testing.assert_allclose(-np.sort(-values, axis=1), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(np.take_along_axis(full, where, axis=1), values, rtol=1e-5, atol=1e-6)


def test_large_matrices_are_searched_in_parts_and_merged(monkeypatch):
    rng = np.random.default_rng(1)
    base, asked = rng.normal(size=(1000, 4)).astype(np.float32), rng.normal(size=(9, 4)).astype(np.float32)
    whole = np.sort(best(base, asked, 6, Workspace())[0], axis=1)
    monkeypatch.setattr(nearest, "_ROWS", 128)
    monkeypatch.setattr(nearest, "_CHUNK", 256)
    np.testing.assert_array_equal(np.sort(best(base, asked, 6, Workspace())[0], axis=1), whole)


def test_equal_rows_have_equal_similarities_whatever_the_place():
    rng = np.random.default_rng(2)
    row = rng.normal(size=(1, 45)).astype(np.float32)
    _, values = best(np.repeat(row, 999, axis=0), rng.normal(size=(17, 45)).astype(np.float32), 9, Workspace())
    assert (values == values[:, :1]).all()


def test_half_precision_rows_are_searched_in_single_precision():
    rng = np.random.default_rng(3)
    base = rng.normal(size=(500, 5)).astype(np.float16)
    asked = rng.normal(size=(4, 5)).astype(np.float32)
    half, single = best(base, asked, 3, Workspace()), best(base.astype(np.float32), asked, 3, Workspace())
    np.testing.assert_array_equal(half[1], single[1])


def test_merging_keeps_the_best_of_both():
    one = (np.array([[0, 1]]), np.array([[0.9, 0.1]], np.float32))
    other = (np.array([[5, 6]]), np.array([[0.5, 0.4]], np.float32))
    rows, values = merged(one, other, 2)
    assert set(rows[0].tolist()) == {0, 5}
    assert set(values[0].tolist()) == {np.float32(0.9), np.float32(0.5)}


def test_a_space_gives_the_same_array_again():
    space = Workspace()
    first = space.array("a", (4, 5))
    assert np.shares_memory(first, space.array("a", (2, 3)))
    assert not np.shares_memory(first, space.array("b", (2, 3)))
    assert space.array("a", (100, 5)).shape == (100, 5)
