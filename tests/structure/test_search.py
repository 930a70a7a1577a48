"""Search against a full table of cosines, exact and approximate; self, ties, zeros, negatives."""

from __future__ import annotations

import numpy as np
import pytest

from postclick.errors import ConfigError, DataError
from postclick.structure import neighbours, recall_at, search
from postclick.structure.estimate import EXACT_UP_TO


def test_exact_search_equals_the_full_table(clustered, checked):
    some = clustered[:1500]
    found = neighbours(some, 8, method="exact")
    checked(some, found.indices, found.similarities, 8)
    assert (found.method, found.candidates) == ("exact", 1500.0)


@pytest.mark.parametrize("k", [1, 3, 30])
def test_exact_search_at_other_k(clustered, checked, k):
    few = clustered[:200]
    found = neighbours(few, k, method="exact")
    checked(few, found.indices, found.similarities, k)


def test_approximate_search_reaches_the_recall_it_is_asked_for_with_part_of_the_pairs(clustered):
    found = neighbours(clustered, 8, method="approximate", recall=0.95)
    assert recall_at(clustered, found, sample=4000).value >= 0.95
    assert found.candidates < 2500
    less = neighbours(clustered, 8, method="approximate", recall=0.6)
    assert less.candidates < found.candidates
    assert recall_at(clustered, less, sample=4000).value < recall_at(clustered, found, sample=4000).value


def test_what_approximate_search_returns_is_true(clustered):
    found = neighbours(clustered, 8, method="approximate")
    wide = clustered.astype(np.float64)
    wide /= np.linalg.norm(wide, axis=1, keepdims=True)
    table = wide @ wide.T
    np.testing.assert_allclose(np.take_along_axis(table, found.indices, axis=1), found.similarities, atol=2e-6)
    assert (found.indices != np.arange(4000)[:, None]).all()
    assert (np.diff(found.similarities, axis=1) <= 0).all()


def test_the_method_is_chosen_by_size(clustered):
    assert neighbours(clustered, 2).method == "exact"
    many = np.resize(clustered, (EXACT_UP_TO + 1, 20))
    assert neighbours(many, 2).method == "approximate"


def test_vectors_without_structure_are_compared_with_all_and_it_is_said(checked):
    noise = np.random.default_rng(1).standard_normal((2000, 20), dtype=np.float32)
    told: list[str] = []
    found = neighbours(noise, 8, method="approximate", note=told.append)
    assert (found.method, found.candidates, found.recall) == ("exact", 2000.0, 1.0)
    assert "all pairs are compared" in told[1]
    checked(noise, found.indices, found.similarities, 8)


def test_a_search_that_would_not_end_is_cut_and_foresees_its_recall(monkeypatch):
    noise = np.random.default_rng(1).standard_normal((4000, 20), dtype=np.float32)
    monkeypatch.setattr(search, "_MOST_PAIRS", 4000 * 1500)
    told: list[str] = []
    found = neighbours(noise, 8, method="approximate", note=told.append)
    assert found.method == "approximate"
    assert found.candidates < 1500 + 128  # a cell is looked at whole
    assert 0.5 < found.recall < 0.95
    assert f"recall 0.99 would take too long; recall {found.recall:.3f} takes 1,500 candidates" in told[1]
    measured = recall_at(noise, found, sample=4000).value
    assert found.recall - 0.02 < measured < found.recall + 0.06  # the last cell is looked at whole: a little more


@pytest.mark.parametrize("method", ["exact", "approximate"])
def test_equal_seeds_give_equal_results_whatever_the_threads(clustered, method):
    one = neighbours(clustered, 8, method=method, threads=1, seed=3)
    two = neighbours(clustered, 8, method=method, threads=3, seed=3)
    np.testing.assert_array_equal(one.indices, two.indices)
    np.testing.assert_array_equal(one.similarities, two.similarities)


@pytest.mark.parametrize("method", ["exact", "approximate"])
def test_duplicates_are_neighbours_of_each_other_and_never_of_themselves(checked, method):
    rng = np.random.default_rng(0)
    kinds = rng.normal(size=(40, 6)).astype(np.float32)
    vectors = kinds[np.repeat(np.arange(40), 20)] * rng.uniform(0.5, 2.0, (800, 1)).astype(np.float32)
    vectors = vectors[rng.permutation(800)]
    found = neighbours(vectors, 8, method=method)
    assert found.similarities == pytest.approx(1.0, abs=2e-6)
    checked(vectors, found.indices, found.similarities, 8)


def test_one_kind_alone_is_still_cheap():
    same = np.ones((5000, 4), np.float32)
    found = neighbours(same, 8, method="approximate")
    assert found.similarities == pytest.approx(1.0)
    assert (found.indices != np.arange(5000)[:, None]).all()
    assert found.candidates < 1000


@pytest.mark.parametrize("method", ["exact", "approximate"])
def test_ties_come_by_position(method):
    vectors = np.array([[1, 0], [0, 1], [1, 1], [1, 0], [1, 1]], np.float32)
    found = neighbours(vectors, 3, method=method, recall=0.999)
    np.testing.assert_array_equal(found.indices[0], [3, 2, 4])
    np.testing.assert_array_equal(found.indices[1], [2, 4, -1])
    assert found.similarities[0] == pytest.approx([1.0, 0.5**0.5, 0.5**0.5])


@pytest.mark.parametrize("method", ["exact", "approximate"])
def test_zero_vectors_and_opposite_ones_have_no_neighbours(method):
    vectors = np.array([[1, 0], [-1, 0], [0, 0], [0, 0]], np.float32)
    found = neighbours(vectors, 2, method=method)
    assert (found.indices == -1).all()
    assert (found.similarities == 0).all()
    assert (neighbours(vectors[2:], 2, method=method).indices == -1).all()


def test_zero_vectors_among_others_do_not_count(clustered, checked):
    vectors = clustered[:500].copy()
    vectors[::7] = 0
    found = neighbours(vectors, 8, method="exact")
    checked(vectors, found.indices, found.similarities, 8)
    assert (found.indices[::7] == -1).all()


@pytest.mark.parametrize("method", ["exact", "approximate"])
def test_self_is_the_first_of_the_k_where_it_is_asked_for(clustered, method):
    few = clustered[:300]
    found = neighbours(few, 4, method=method, include_self=True, recall=0.999)
    np.testing.assert_array_equal(found.indices[:, 0], np.arange(300))
    assert (found.similarities[:, 0] == 1).all()
    others = neighbours(few, 3, method=method, recall=0.999)
    np.testing.assert_array_equal(found.indices[:, 1:], others.indices)
    alone = neighbours(few, 1, method=method, include_self=True)
    np.testing.assert_array_equal(alone.indices[:, 0], np.arange(300))
    assert (neighbours(np.zeros((2, 3), np.float32), 1, include_self=True).indices == -1).all()


def test_lengths_do_not_matter_however_large(clustered):
    few = clustered[:100]
    scaled = few * (10.0 ** np.linspace(-30, 30, 100, dtype=np.float32))[:, None]
    np.testing.assert_array_equal(neighbours(few, 4).indices, neighbours(scaled, 4).indices)


def test_half_precision_finds_nearly_the_same(clustered, tmp_path):
    path = tmp_path / "vectors.npy"
    np.save(path, clustered.astype(np.float16))
    mapped = np.load(path, mmap_mode="r")
    found = neighbours(mapped, 8, method="approximate")
    assert recall_at(clustered, found, sample=4000, tolerance=2e-3).value >= 0.98


@pytest.mark.parametrize("size", [0, 1, 2, 5])
@pytest.mark.parametrize("method", ["exact", "approximate"])
def test_few_entities_have_few_neighbours(size, method):
    found = neighbours(np.ones((size, 3), np.float32), 8, method=method)
    assert found.indices.shape == (size, 8)
    assert ((found.indices >= 0).sum(axis=1) == max(0, size - 1)).all()


def test_what_it_takes_is_told_before_it_starts(clustered):
    told: list[str] = []
    neighbours(clustered, 8, method="approximate", note=told.append)
    assert told[0].startswith("approximate search of 8 neighbours among 4,000 vectors of 20")
    assert "recall 0.99 takes" in told[1]


def test_mistakes_are_reported_together(clustered):
    with pytest.raises(ConfigError, match="k is 0") as caught:
        neighbours(clustered, 0, recall=1.0, method="fast")
    assert [finding.code for finding in caught.value.findings] == ["config.value"] * 3
    with pytest.raises(ConfigError, match=r"int64 of shape \(3,\)"):
        neighbours(np.arange(3), 2)


def test_a_vector_that_is_not_finite_stops_with_its_place(clustered):
    bad = clustered[:50].copy()
    bad[[7, 9], 2] = np.nan, np.inf
    with pytest.raises(DataError, match=r"data.non_finite.*2 times.*for example 7, 9"):
        neighbours(bad, 3)
