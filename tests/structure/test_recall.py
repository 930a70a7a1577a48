"""Recall by similarity: ties are hits, self and strangers are not."""

from __future__ import annotations

import numpy as np
import pytest

from postclick.structure import Neighbours, neighbours, recall, recall_at


def test_an_exact_result_has_recall_one(clustered):
    found = neighbours(clustered, 8, method="exact")
    measured = recall_at(clustered, found, sample=300)
    assert (measured.value, measured.entities, measured.found, measured.wanted) == (1.0, 300, 2400, 2400)
    assert recall_at(clustered, neighbours(clustered, 4, include_self=True), sample=100).wanted == 300


def test_each_wrong_neighbour_is_missed(clustered):
    found = neighbours(clustered, 8, method="exact")
    worst = np.argmin(clustered @ clustered.T, axis=1).astype(np.int32)
    spoiled = found.indices.copy()
    spoiled[:, 7], spoiled[:, 3], spoiled[:, 0] = worst, np.arange(4000), -1
    measured = recall_at(clustered, Neighbours(spoiled, found.similarities), sample=200)
    assert measured.value == pytest.approx(5 / 8)


def test_ties_are_hits_whichever_was_returned():
    vectors = np.repeat(np.eye(3, dtype=np.float32), 20, axis=0)
    found = neighbours(vectors, 8, method="exact")
    other = (np.arange(60)[:, None] // 20 * 20 + (np.arange(60)[:, None] + np.arange(1, 9)) % 20).astype(np.int32)
    assert (np.sort(other, axis=1) != np.sort(found.indices, axis=1)).any()
    assert recall_at(vectors, Neighbours(other, found.similarities)).value == 1.0


def test_where_nobody_has_a_neighbour_nothing_is_missed():
    vectors = np.eye(4, dtype=np.float32)
    measured = recall_at(vectors, neighbours(vectors, 2))
    assert (measured.value, measured.wanted) == (1.0, 0)
    for few in (vectors[:1], vectors[:0]):
        assert recall_at(few, neighbours(few, 2)).value == 1.0


def test_blocks_of_vectors_are_merged(clustered, monkeypatch):
    found = neighbours(clustered, 8, method="approximate", recall=0.7)
    whole = recall_at(clustered, found, sample=500)
    monkeypatch.setattr(recall, "_BLOCK", 600)
    assert recall_at(clustered, found, sample=500) == whole
    assert whole.value < 1.0
