"""Counting by hashes: exact while it fits, close beyond; copies told apart by their labels."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from postclick.data.arrays import Labels
from postclick.data.distinct import CopyCounts, CopySketch, DistinctSketch


@given(st.lists(st.integers(-5, 40) | st.none(), max_size=60))
def test_few_values_are_counted_exactly(values):
    sketch = DistinctSketch()
    for start in range(0, len(values), 7):
        sketch.add(pa.array(values[start : start + 7], pa.int64()))
    assert sketch.estimate() == len(set(values) - {None})


def test_many_values_are_estimated_to_a_few_percent():
    sketch = DistinctSketch()
    for start in range(0, 300_000, 50_000):
        sketch.add(pa.array(np.arange(start, start + 50_000) // 2))
    assert sketch.estimate() == pytest.approx(150_000, rel=0.05)
    words = DistinctSketch(64)
    words.add(pa.array([f"w{n}" for n in range(5_000)], pa.large_string()))
    assert words.estimate() == pytest.approx(5_000, rel=0.5)


def labels(ids, click) -> Labels:
    click = np.asarray(click, np.int8)
    return Labels(click, np.zeros_like(click), exposure_id=np.asarray(ids))


def test_copies_are_counted_by_their_labels():
    sketch = CopySketch()
    sketch.add(labels([1, 2, 3, 1], [0, 1, 0, 0]))
    sketch.add(labels([2, 3, 3, 9], [0, 0, 1, 1]))
    assert sketch.result() == CopyCounts(2, 2, 1.0)
    assert CopySketch().result() == CopyCounts(0, 0, 1.0)


def test_copies_in_a_long_log_are_estimated_from_a_share_of_the_ids():
    sketch = CopySketch(5_000)
    ids = np.arange(60_000)
    for part in (ids, ids[:20_000]):
        sketch.add(labels(part, np.zeros(len(part))))
    found = sketch.result()
    assert found.share < 0.2
    assert found.exact == pytest.approx(20_000, rel=0.1)
    assert found.conflicting == 0
