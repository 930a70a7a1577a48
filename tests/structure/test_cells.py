"""Cells: every vector in one of them, near ones together, duplicates cut into parts."""

from __future__ import annotations

import numpy as np
import pytest

from postclick.structure.cells import k_means, make_cells, nearest_centre, unit


def cells_of(vectors, wished=32, threads=1, seed=0):
    return make_cells(vectors, np.arange(len(vectors), dtype=np.int32), wished, seed=seed, threads=threads)


def test_every_vector_is_in_one_cell_with_its_own_unit_vector(clustered):
    cells = cells_of(clustered)
    np.testing.assert_array_equal(np.sort(cells.order), np.arange(4000))
    np.testing.assert_allclose(cells.store, unit(clustered[cells.order]), atol=1e-6)
    assert (cells.starts[0], cells.starts[-1]) == (0, 4000)
    assert cells.sizes.min() >= 1
    assert cells.sizes.max() <= 64
    assert np.linalg.norm(cells.centres, axis=1) == pytest.approx(1.0, abs=1e-5)


def test_members_are_nearer_to_their_centre_than_strangers(clustered):
    cells = cells_of(clustered)
    home = np.repeat(np.arange(len(cells.sizes)), cells.sizes)
    own = np.einsum("nd,nd->n", cells.store, cells.centres[home])
    other = np.einsum("nd,nd->n", cells.store, np.roll(cells.centres, 1, axis=0)[home])
    assert own.mean() > other.mean() + 0.3


def test_cells_do_not_depend_on_the_threads_but_on_the_seed(clustered):
    one, two, other = cells_of(clustered), cells_of(clustered, threads=3), cells_of(clustered, seed=1)
    np.testing.assert_array_equal(one.order, two.order)
    assert not np.array_equal(one.order, other.order)


def test_only_the_chosen_are_sorted_and_progress_is_told(clustered):
    chosen, told = np.arange(0, 4000, 3, dtype=np.int32), []
    cells = make_cells(clustered, chosen, 32, seed=0, threads=1, advance=told.append)
    np.testing.assert_array_equal(np.sort(cells.order), chosen)
    assert sum(told) == len(chosen)


def test_a_crowd_of_duplicates_is_cut_into_even_parts():
    cells = cells_of(np.ones((1000, 3), np.float32))
    assert cells.sizes.max() <= 64
    assert cells.sizes.max() - cells.sizes.min() <= 1


def test_unit_keeps_zeros_and_scales_tiny_and_huge_rows():
    rows = np.array([[0, 0], [3e-30, 4e-30], [3e30, 4e30]], np.float32)
    np.testing.assert_allclose(unit(rows), [[0, 0], [0.6, 0.8], [0.6, 0.8]], rtol=1e-6)


def test_k_means_finds_groups_apart_and_survives_more_centres_than_vectors():
    rng = np.random.default_rng(0)
    axes = unit(np.repeat(np.eye(4, dtype=np.float32), 100, axis=0) + 0.01 * rng.normal(size=(400, 4)))
    home = nearest_centre(axes, k_means(axes, 8, np.random.default_rng(1)))
    groups = [set(home[start : start + 100].tolist()) for start in range(0, 400, 100)]
    assert all(not one & other for one in groups for other in groups if one is not other)
    assert k_means(axes[:2], 5, np.random.default_rng(1)).shape == (5, 4)
