"""How far a cell looks: measured on true neighbours, ties counted wherever they lie."""

from __future__ import annotations

import numpy as np

from postclick.structure.cells import make_cells, unit
from postclick.structure.probing import candidates, measure_reach


def cells_of(vectors):
    return make_cells(vectors, np.arange(len(vectors), dtype=np.int32), 32, seed=0, threads=1)


def test_candidates_are_the_rows_of_the_nearest_cells_own_cell_first(clustered):
    cells = cells_of(clustered)
    for cell in (0, 5, len(cells.sizes) - 1):
        own = np.arange(cells.starts[cell], cells.starts[cell + 1])
        rows = candidates(cells, cell, np.arange(len(cells.sizes)), 300, cells.store[own])
        assert np.isin(own, rows).all()
        assert (np.diff(rows) > 0).all()
        assert 300 <= len(rows) <= 300 + cells.sizes.max()
        held = np.unique(np.searchsorted(cells.starts, rows, side="right") - 1)
        assert len(rows) == cells.sizes[held].sum()
        np.testing.assert_array_equal(candidates(cells, cell, np.array([cell]), 1, cells.store[own]), own)


def test_a_larger_recall_looks_further(clustered):
    cells = cells_of(clustered)
    low, high = (measure_reach(cells, 8, recall, seed=0, threads=1) for recall in (0.6, 0.99))
    assert low.candidates < high.candidates <= 4000
    assert low.cells <= high.cells <= len(cells.sizes)


def test_the_reach_covers_the_share_of_true_neighbours_it_promises(clustered):
    cells = cells_of(clustered)
    reach = measure_reach(cells, 8, 0.9, seed=0, threads=1)
    table = cells.store @ cells.store.T
    np.fill_diagonal(table, -1)
    true = np.argpartition(-table, 8, axis=1)[:, :8]
    hits = 0
    for cell in range(len(cells.sizes)):
        own = np.arange(cells.starts[cell], cells.starts[cell + 1])
        rows = candidates(cells, cell, np.arange(len(cells.sizes)), reach.candidates, cells.store[own])
        hits += np.isin(true[own], rows).sum()
    assert hits / true.size >= 0.9


def test_a_limit_cuts_the_reach_and_the_recall_it_foresees(clustered):
    cells = cells_of(clustered)
    free = measure_reach(cells, 8, 0.99, seed=0, threads=1)
    assert free.recall >= 0.99
    cut = measure_reach(cells, 8, 0.99, seed=0, threads=1, most=free.candidates // 4)
    assert cut.candidates == free.candidates // 4
    assert cut.cells <= free.cells
    assert cut.recall < free.recall
    assert measure_reach(cells, 8, 0.99, seed=0, threads=1, most=4000) == free


def test_a_crowd_of_duplicates_needs_its_own_cell_alone():
    crowd = cells_of(np.ones((2000, 3), np.float32))
    assert measure_reach(crowd, 8, 0.99, seed=0, threads=1).candidates <= 64


def test_vectors_without_neighbours_need_no_reach():
    apart = cells_of(unit(np.eye(6, dtype=np.float32)))
    assert measure_reach(apart, 2, 0.99, seed=0, threads=1).candidates == 1
