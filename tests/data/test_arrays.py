"""Encoded exposures as arrays."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from postclick.data.arrays import Exposures, Labels, Ragged, concatenate

lists = st.lists(st.lists(st.integers(0, 9), max_size=4), max_size=8)


def ragged(rows, weighted=True):
    flat = np.array([value for row in rows for value in row], np.int32)
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
    return Ragged(flat, offsets, flat.astype(np.float32) / 2 if weighted else None)


def plain(found):
    return [found.values[a:b].tolist() for a, b in zip(found.offsets[:-1], found.offsets[1:], strict=True)]


@given(lists, st.data())
def test_ragged_take_equals_a_plain_loop(rows, data):
    index = data.draw(st.lists(st.integers(0, max(len(rows) - 1, 0)), max_size=10 if rows else 0))
    found = ragged(rows).take(np.asarray(index, np.int64))
    assert plain(found) == [rows[place] for place in index]
    np.testing.assert_array_equal(found.weights, found.values / 2)
    assert found.offsets[0] == 0
    assert ragged(rows, weighted=False).take(np.asarray(index, np.int64)).weights is None


def exposures(rows):
    size = len(rows)
    labels = Labels(np.arange(size, dtype=np.int8) % 2, np.zeros(size, np.int8), user_id=np.array(["a"] * size, object))
    matrix = np.arange(2 * size, dtype=np.int32).reshape(size, 2)
    return Exposures(matrix, matrix[:, :1].astype(np.float32), np.zeros((size, 0), np.float32), (ragged(rows),), labels)


@given(lists, st.integers(0, 8))
def test_parts_join_to_the_whole(rows, cut):
    whole = exposures(rows)
    parts = [whole.take(np.arange(len(rows))[part]) for part in (slice(0, cut), slice(cut, None))]
    joined = concatenate(parts)
    np.testing.assert_array_equal(joined.rows, whole.rows)
    np.testing.assert_array_equal(joined.dense, whole.dense)
    assert plain(joined.sequences[0]) == rows
    np.testing.assert_array_equal(joined.sequences[0].weights, whole.sequences[0].weights)
    np.testing.assert_array_equal(joined.labels.click, whole.labels.click)
    assert joined.labels.user_id.tolist() == ["a"] * len(rows)
    assert joined.labels.action is None
    assert len(joined) == len(rows)


def test_labels_take_positions_slices_and_masks():
    labels = exposures([[]] * 4).labels
    for index in (np.array([1, 3]), slice(1, None, 2), np.array([False, True, False, True])):
        assert labels.take(index).click.tolist() == [1, 1]
    assert exposures([[1]]).without_labels().labels is None
    assert concatenate([exposures([[1]]), exposures([[1]]).without_labels()]).labels is None
