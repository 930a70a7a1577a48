"""Multi-valued columns: every value is kept, cut off or rejected."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from postclick.data.sequences import count_values, read_sequence
from postclick.errors import DataError
from postclick.schema import SequenceFeature


def batch(**columns):
    return pa.RecordBatch.from_pydict(columns)


def test_lists_with_weights():
    feature = SequenceFeature("s", weights="w", max_length=2)
    found = read_sequence(
        batch(s=pa.array([[5, None, 6, 7], None, [8]]), w=pa.array([[0.5, 9.0, 0.25, 1.0], None, [2.0]])), feature
    )
    assert found.values.to_pylist() == [5, 6, 8]
    assert found.offsets.tolist() == [0, 2, 2, 3]
    assert found.weights.tolist() == [0.5, 0.25, 2.0]
    assert (found.read, found.truncated, found.rejected) == (5, 1, 1)


def test_text_is_cut_at_the_separator():
    feature = SequenceFeature("s", separator=";", weights="w")
    found = read_sequence(batch(s=["a;b", "", None, ";c"], w=["1;2", "", None, "3;4"]), feature)
    assert found.values.to_pylist() == ["a", "b", "c"]
    assert found.offsets.tolist() == [0, 2, 2, 2, 3]
    assert found.weights.tolist() == [1.0, 2.0, 4.0]
    assert (found.read, found.truncated, found.rejected) == (4, 0, 1)


def test_a_file_of_single_values_reads_as_numbers_and_is_still_a_list():
    found = read_sequence(batch(s=pa.array([3, None, 4])), SequenceFeature("s", separator=" "))
    assert (found.values.to_pylist(), found.offsets.tolist()) == (["3", "4"], [0, 1, 1, 2])


def test_a_column_of_nulls_is_empty():
    found = read_sequence(batch(s=pa.nulls(3)), SequenceFeature("s"))
    assert (len(found.values), found.offsets.tolist(), found.read) == (0, [0, 0, 0, 0], 0)


def test_faults_are_named():
    with pytest.raises(DataError, match="declare the separator"):
        read_sequence(batch(s=["a b"]), SequenceFeature("s"))
    weighted = SequenceFeature("s", weights="w")
    with pytest.raises(DataError, match=r"data\.multivalue.*1 time.*2 values with 1 weights"):
        read_sequence(batch(s=[[1], [1, 2]], w=[[1.0], [1.0]]), weighted)
    with pytest.raises(DataError, match=r"data\.non_finite"):
        read_sequence(batch(s=[[1]], w=[[np.nan]]), weighted)


@given(
    st.lists(st.one_of(st.none(), st.lists(st.one_of(st.none(), st.integers(-3, 3)), max_size=6)), max_size=12),
    st.integers(1, 4),
)
def test_lists_equal_a_plain_loop(rows, longest):
    feature = SequenceFeature("s", max_length=longest)
    found = read_sequence(batch(s=pa.array(rows, pa.list_(pa.int64()))), feature)
    sound = [[value for value in row or () if value is not None] for row in rows]
    wanted = [row[:longest] for row in sound]
    got = [found.values.to_pylist()[a:b] for a, b in zip(found.offsets[:-1], found.offsets[1:], strict=True)]
    assert got == wanted
    assert (
        found.read == sum(len(row or ()) for row in rows) == count_values(pa.array(rows, pa.list_(pa.int64())), feature)
    )
    assert found.rejected == found.read - sum(map(len, sound))
    assert found.truncated == sum(map(len, sound)) - sum(map(len, wanted))


@given(st.lists(st.one_of(st.none(), st.text("ab|", max_size=6)), max_size=12))
def test_text_equals_a_plain_loop(rows):
    feature = SequenceFeature("s", separator="|")
    array = pa.array(rows, pa.large_string())
    found = read_sequence(batch(s=array), feature)
    tokens = [row.split("|") if row else [] for row in rows]
    assert found.values.to_pylist() == [token for row in tokens for token in row if token]
    assert found.read == count_values(array, feature) == sum(map(len, tokens))
