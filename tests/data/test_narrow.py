"""Narrow columns: every value stays what it is."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from postclick.data.narrow import narrowed

INT32 = st.integers(-(2**31), 2**31 - 1)


@given(st.lists(st.none() | st.integers(-(2**63), 2**63 - 1)))
def test_whole_numbers(values):
    array = pa.array(values, pa.int64())
    slim = narrowed(array)
    assert slim.cast(pa.int64()).equals(array)
    fits = all(value is None or -(2**31) <= value < 2**31 for value in values)
    assert slim.type == (pa.int32() if fits else pa.int64())


@given(st.lists(st.none() | st.floats() | st.floats(width=32)))
def test_floating_point(values):
    array = pa.array(values, pa.float64())
    slim = narrowed(array)
    back = slim.cast(pa.float64())
    assert back.is_valid().equals(array.is_valid())
    np.testing.assert_array_equal(np.asarray(back.fill_null(0)), np.asarray(array.fill_null(0)))
    present = np.asarray([value for value in values if value is not None], np.float64)
    with np.errstate(over="ignore"):
        fits = np.array_equal(present.astype(np.float32), present, equal_nan=True)
    assert slim.type == (pa.float32() if fits else pa.float64())


@given(st.lists(st.none() | st.lists(st.none() | INT32)), st.integers(0, 3))
def test_lists(values, start):
    array = pa.array(values, pa.large_list(pa.int64())).slice(start)
    slim = narrowed(array)
    assert slim.type == pa.large_list(pa.int32())
    assert slim.to_pylist() == array.to_pylist()


@pytest.mark.parametrize("array", [pa.array(["a"]), pa.nulls(2), pa.array([True])])
def test_other_types_stay(array):
    assert narrowed(array) is array
