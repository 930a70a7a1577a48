"""Which row each value owns."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from postclick import files
from postclick.data.counts import VocabularyCounts
from postclick.data.vocabulary import Vocabulary
from postclick.errors import DataError, InputMissingError
from postclick.schema import Schema, SequenceFeature, SparseFeature

SCHEMA = Schema((SparseFeature("n"), SequenceFeature("s"), SparseFeature("t", min_count=1)))


def counts(numbers, texts, lists=None):
    columns = {
        "n": pa.array(numbers, pa.int64()),
        "t": pa.array(texts, pa.large_string()),
        "s": pa.array(lists if lists is not None else [None] * len(numbers), pa.large_list(pa.int64())),
    }
    return VocabularyCounts.of(pa.table(columns), SCHEMA)


def test_unknown_rows_come_first_then_fields_by_count_and_value():
    found = Vocabulary.build(SCHEMA, counts([7, 7, 3, 3, 9, None], list("bbbaac"), [[1, 1, 2]] * 6), min_count=2)
    assert [entry.name for entry in found.fields] == ["n", "t", "s"]
    assert found.field("n").values.to_pylist() == [3, 7]
    assert found.field("n").rows.tolist() == [3, 4]
    assert found.field("t").values.to_pylist() == ["b", "a", "c"]
    assert found.field("t").rows.tolist() == [5, 6, 7]
    assert found.field("s").counts.tolist() == [12, 6]
    assert found.table_rows == 10
    assert found.rows_of("n", pa.array([3, 9, None, 7])).tolist() == [3, 0, 0, 4]
    assert found.rows_of("t", pa.array(["a", "zz"])).tolist() == [6, 1]


values = st.lists(st.tuples(st.integers(-3, 3), st.sampled_from(["", "a", "b", "ä"])), min_size=1, max_size=30)


@given(values, st.integers(1, 3), st.randoms())
def test_the_order_of_rows_and_parts_does_not_matter(rows, parts, random):
    numbers, texts = [row[0] for row in rows], [row[1] for row in rows]
    whole = Vocabulary.build(SCHEMA, counts(numbers, texts), min_count=1)
    random.shuffle(rows)
    pieces = [rows[part::parts] for part in range(parts)]
    merged = VocabularyCounts.merge([counts([r[0] for r in piece], [r[1] for r in piece]) for piece in pieces])
    again = Vocabulary.build(SCHEMA, merged, min_count=1)
    assert whole.extends(again)
    assert again.extends(whole)


@given(st.lists(st.integers(-(2**63) + 1, 2**63 - 1), min_size=1, unique=True))
def test_decode_inverts_rows_of(numbers):
    found = Vocabulary.build(SCHEMA, counts(numbers, [str(n) for n in numbers]), min_count=1)
    rows = found.rows_of("n", pa.array(numbers, pa.int64()))
    assert len(set(rows.tolist())) == len(numbers)
    assert found.decode("n", rows).to_pylist() == numbers
    texts = found.decode("t", found.rows_of("t", pa.array([str(n) for n in numbers])))
    assert texts.to_pylist() == [str(n) for n in numbers]
    assert found.decode("n", np.array([0, rows[0]], np.int32)).to_pylist() == [None, numbers[0]]


def test_neighbours_beyond_the_precision_of_floats_stay_apart():
    numbers = [2**24, 2**24 + 1, 2**53, 2**53 + 1]
    found = Vocabulary.build(SCHEMA, counts(numbers, ["x"] * 4), min_count=1)
    assert len(set(found.rows_of("n", pa.array(numbers)).tolist())) == 4
    assert (
        found.rows_of("n", pa.array([str(n) for n in numbers])).tolist()
        == found.rows_of("n", pa.array(numbers)).tolist()
    )
    with pytest.raises(DataError, match=r"data\.lossy_cast"):
        found.rows_of("n", pa.array([float(2**53)]))


def test_large_batches_take_the_same_rows_as_small_ones():
    texts = [f"v{n}" for n in range(500)]
    found = Vocabulary.build(SCHEMA, counts(list(range(500)), texts), min_count=1)
    queries = pa.array([f"v{n % 600}" if n % 7 else None for n in range(6_000)])
    large = found.rows_of("t", queries)
    small = np.concatenate([found.rows_of("t", queries.slice(start, 100)) for start in range(0, 6_000, 100)])
    np.testing.assert_array_equal(large, small)


def test_a_vocabulary_too_large_for_a_dictionary_gives_the_same_rows(monkeypatch):
    from postclick.data import lookup

    texts = [f"v{n}" for n in range(3_000)]
    found = Vocabulary.build(SCHEMA, counts(list(range(3_000)), texts), min_count=1)
    queries = pa.array([*texts[::-1], "none", None])
    wanted = found.rows_of("t", queries)
    monkeypatch.setattr(lookup, "_LARGE_VOCABULARY", 10)
    np.testing.assert_array_equal(found.rows_of("t", queries), wanted)


def test_integers_far_apart_are_searched(monkeypatch):
    numbers = [5, -(10**18), 10**18, 7]
    found = Vocabulary.build(SCHEMA, counts(numbers, ["x"] * 4), min_count=1)
    queries = pa.array([7, 6, 10**18, 10**18 + 1, -(2**63), 2**63 - 1, None])
    assert found.decode("n", found.rows_of("n", queries)).to_pylist() == [7, None, 10**18, None, None, None, None]
    near = Vocabulary.build(SCHEMA, counts([5, 7], ["x"] * 2), min_count=1)
    assert near.decode("n", near.rows_of("n", queries)).to_pylist() == [7, None, None, None, None, None, None]


def test_new_values_go_to_the_end_and_old_rows_stay():
    first = Vocabulary.build(SCHEMA, counts([1, 1, 2], list("aab")), min_count=1)
    grown = first.extend(counts([2, 3, 3, 4], list("bccd"), [[9]] * 4))
    assert grown.extends(first)
    assert not first.extends(grown)
    assert grown.field("n").values.to_pylist() == [1, 2, 3, 4]
    assert grown.field("n").counts.tolist() == [2, 2, 2, 1]
    assert grown.field("n").rows.tolist() == [3, 4, first.table_rows, first.table_rows + 1]
    rows = np.concatenate([entry.rows for entry in grown.fields])
    assert sorted(rows.tolist()) == list(range(3, grown.table_rows))
    assert grown.decode("s", grown.rows_of("s", pa.array([9]))).to_pylist() == [9]


def test_hash_buckets_own_a_fixed_number_of_rows():
    schema = Schema((SparseFeature("n", hash_buckets=10), SparseFeature("t", hash_buckets=5), SparseFeature("u")))
    table = pa.table({"n": range(40), "t": [f"t{i}" for i in range(40)], "u": [1] * 40})
    found = Vocabulary.build(schema, VocabularyCounts.of(table, schema))
    assert found.table_rows == 3 + 10 + 5 + 1
    rows = found.rows_of("n", pa.array([*range(40), None]))
    assert rows[-1] == 0
    assert set(rows[:-1].tolist()) <= set(range(3, 13))
    assert len(set(rows[:-1].tolist())) > 5
    texts = found.rows_of("t", pa.array([*(f"t{i}" for i in range(40)), None]))
    assert texts[-1] == 1
    assert set(texts[:-1].tolist()) <= set(range(13, 18))
    assert found.decode("n", rows).to_pylist() == [*(rows[:-1] - 3).tolist(), None]
    assert found.rows_of("n", pa.array(["7"])).tolist() == found.rows_of("n", pa.array([7])).tolist()


def test_save_and_load(tmp_path):
    schema = Schema((SparseFeature("n"), SparseFeature("t", hash_buckets=3), SparseFeature("none")))
    table = pa.table({"n": [5, 5, 6], "t": ["a", "b", "c"], "none": pa.nulls(3)})
    found = Vocabulary.build(schema, VocabularyCounts.of(table, schema), min_count=2)
    found.save(tmp_path)
    again = Vocabulary.load(tmp_path)
    assert again.table_rows == found.table_rows == 7
    assert again.extends(found)
    assert [entry.kind for entry in again.fields] == ["int64", "text", "none"]
    for name in ("n", "t", "none"):
        queries = pa.array([5, 6, None])
        np.testing.assert_array_equal(again.rows_of(name, queries), found.rows_of(name, queries))
    body = files.read_json(tmp_path / "vocabulary.json")
    assert body["fields"][0] == {"name": "n", "dtype": "int64", "size": 1, "min_count": 2, "file": "000.arrow"}
    with pytest.raises(InputMissingError, match="no vocabulary here"):
        Vocabulary.load(tmp_path / "elsewhere")
    files.write_json(tmp_path / "vocabulary.json", {**body, "format": 99})
    with pytest.raises(DataError, match="format 99"):
        Vocabulary.load(tmp_path)


def test_numbers_in_one_part_and_text_in_another_are_refused():
    schema = Schema((SparseFeature("f"),))
    parts = [VocabularyCounts.of(pa.table({"f": part}), schema) for part in ([1], ["a"], pa.nulls(1))]
    assert VocabularyCounts.merge([parts[2], parts[1]]).fields["f"].num_rows == 1
    with pytest.raises(DataError, match=r"data\.schema_mismatch the ids of 'f'"):
        VocabularyCounts.merge(parts)


def test_a_table_of_too_many_rows_is_refused(monkeypatch):
    from postclick.data import vocabulary

    monkeypatch.setattr(vocabulary, "_LARGEST_TABLE", 5)
    with pytest.raises(DataError, match=r"data\.cardinality.*6 rows.*hash_buckets"):
        Vocabulary.build(SCHEMA, counts([1, 2, 3], ["x"] * 3), min_count=1)
    with pytest.raises(DataError, match="there is no field 'm'"):
        Vocabulary.build(SCHEMA, counts([1], ["x"]), min_count=1).field("m")
