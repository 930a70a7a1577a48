"""Raw columns in one form a kind, without rounding."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from postclick.data.columns import as_kind, column, ids, list_parts, numbers, require_columns, vectors
from postclick.errors import DataError


@pytest.mark.parametrize(
    ("array", "wanted"),
    [
        (pa.array([1, None], pa.int8()), [1, None]),
        (pa.array([2**53, 2**53 + 1]), [2**53, 2**53 + 1]),
        (pa.array([2**63 - 1], pa.uint64()), [2**63 - 1]),
        (pa.array([True, None]), [1, None]),
        (pa.array([3.0, None, float("nan")]), [3, None, None]),
        (pa.array([2.0**24 - 1], pa.float32()), [2**24 - 1]),
        (pa.array(["a", None]).dictionary_encode(), ["a", None]),
        (pa.array([b"a"]), ["a"]),
        (pa.array(["a"], pa.string_view()), ["a"]),
        (pa.array([1], pa.date32()), [86_400_000_000]),
        (pa.nulls(2), [None, None]),
    ],
)
def test_ids_become_int64_or_text(array, wanted):
    table = pa.table({"f": array})
    found, rejected = ids(column(table, "f"), "f")
    assert (found.to_pylist(), rejected) == (wanted, 0)
    assert found.type in (pa.int64(), pa.large_string(), pa.null())


def test_numbers_that_are_no_integers_are_no_ids():
    found, rejected = ids(pa.array([1.0, 1.5, float("inf"), None]), "f")
    assert (found.to_pylist(), rejected) == ([1, None, None, None], 2)


@pytest.mark.parametrize("array", [pa.array([1.0, 1e17]), pa.array([-(2.0**53)]), pa.array([2.0**24], pa.float32())])
def test_ids_that_floating_point_cannot_hold_are_refused(array):
    with pytest.raises(DataError, match=r"data\.lossy_cast.*\| row \d:f \| 1 time"):
        ids(array, "f")


def test_integers_beyond_64_bits_are_refused():
    with pytest.raises(DataError, match=r"data\.lossy_cast"):
        ids(pa.array([2**63], pa.uint64()), "f")


def test_other_types_and_broken_text_are_refused():
    with pytest.raises(DataError, match=r"data\.schema_mismatch expected ids, found list"):
        ids(pa.array([[1]]), "f")
    with pytest.raises(DataError, match=r"data\.text"):
        ids(pa.array([b"\xff"]), "f")


def test_text_is_an_integer_only_where_it_is_written_as_one():
    texts = [
        "0",
        "-7",
        "007",
        " 5",
        "1.0",
        "-0",
        "",
        None,
        "9223372036854775807",
        "9223372036854775808",
        "12345678901234567890",
    ]
    found = as_kind(pa.array(texts, pa.large_string()), "int64")
    assert found.to_pylist() == [0, -7, None, None, None, None, None, None, 2**63 - 1, None, None]


@given(st.lists(st.integers(-(2**63) + 1, 2**63 - 1)))
def test_integers_survive_the_way_through_text(values):
    array = pa.array(values, pa.int64())
    assert as_kind(as_kind(array, "text"), "int64").to_pylist() == values


def test_numbers_keep_infinities_and_turn_null_to_nan():
    np.testing.assert_array_equal(numbers(pa.array([1, None]), "x"), [1.0, np.nan])
    np.testing.assert_array_equal(numbers(pa.array(["1.5", "inf"]), "x"), [1.5, np.inf])
    with pytest.raises(DataError, match=r"data\.schema_mismatch expected numbers"):
        numbers(pa.array(["a"]), "x")


def test_list_parts_give_no_value_to_null_lists():
    for kind in (pa.list_(pa.int64()), pa.large_list(pa.int64()), pa.list_(pa.int64(), 2)):
        values, lengths = list_parts(pa.array([[1, 2], None, [3, 4]], kind), "f")
        assert (values.to_pylist(), lengths.tolist()) == ([1, 2, 3, 4], [2, 0, 2])
    values, lengths = list_parts(pa.array([[0], [1, 2], None, [3]]).slice(1), "f")
    assert (values.to_pylist(), lengths.tolist()) == ([1, 2, 3], [2, 0, 1])
    with pytest.raises(DataError, match="expected lists"):
        list_parts(pa.array([1]), "f")


def test_vectors_have_the_declared_size():
    found, missing = vectors(pa.array([[1, 2], None]), 2, "v")
    assert (found.tolist(), missing.tolist()) == ([[1.0, 2.0], [0.0, 0.0]], [False, True])
    with pytest.raises(DataError, match=r"expected vectors of 3 numbers.*1 time.*example 2"):
        vectors(pa.array([[1, 2], [1, 2, 3]]), 3, "v")


def test_missing_and_double_columns_are_named_together():
    batch = pa.RecordBatch.from_arrays([pa.array([1])] * 3, names=["user_id", "x", "x"])
    with pytest.raises(DataError) as caught:
        require_columns(batch, ("userid", "x"), "file.csv")
    assert [finding.what for finding in caught.value.findings] == [
        "there is no column 'userid'",
        "column 'x' occurs 2 times",
    ]
    assert "did you mean 'user_id'?" in str(caught.value)


@pytest.mark.parametrize(
    ("values", "words", "row"),
    [
        ([b"ok", None, b"\xff"], "not UTF-8", 2),
        ([b"a\x00b", b"ok", b"c\x00"], "NUL character", 0),
        ([b"ok", b"x" * 1_025], "longer than 1,024 bytes", 1),
    ],
)
@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.binary(), pa.large_binary()])
def test_text_that_can_be_no_id_is_refused_with_its_row(values, words, row, kind):
    array = pa.array(values, pa.binary() if kind in (pa.string(), pa.binary()) else pa.large_binary())
    array = array.view(kind) if array.type != kind else array
    for part, first in ((array, row), (pa.concat_arrays([array, array]).slice(len(values)), row)):
        with pytest.raises(DataError, match=rf"data\.text .*{words} \| row {first}:f \|"):
            ids(part, "f")


def test_text_that_is_odd_but_sound_stays_as_it_is():
    words = ["", "x" * 1_024, "\u202e", "\x1b[31m", "é", None]
    assert ids(pa.array(words), "f")[0].to_pylist() == words
    assert ids(pa.array(["a\x00", "b"]).slice(1), "f")[0].to_pylist() == ["b"]  # a fault of another slice


def test_a_value_of_a_list_is_placed_in_its_row():
    with pytest.raises(DataError, match=r"row 2:f"):
        ids(pa.array(["a", "b", "c\x00"]), "f", np.array([1, 0, 2]))
