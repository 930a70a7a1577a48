"""Ten times the values: declared, or in the vocabulary that grows; and what hashing costs."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from postclick.data.cardinality import check_cardinality, collision_rate, hashed, table_bytes
from postclick.data.counts import VocabularyCounts
from postclick.data.vocabulary import Vocabulary
from postclick.errors import DataError
from postclick.schema import Schema, SequenceFeature, SparseFeature


def counts(schema: Schema, values: int) -> VocabularyCounts:
    return VocabularyCounts.of(pa.table({item.name: np.arange(2 * values) // 2 for item in schema.fields}), schema)


@pytest.mark.parametrize(("values", "refused"), [(99, False), (100, True)])
def test_ten_times_what_is_declared_stops(values, refused):
    schema = Schema((SparseFeature("f", expected_values=10), SparseFeature("g")))
    if not refused:
        check_cardinality(schema, counts(schema, values), None)
        return
    with pytest.raises(DataError, match=r"data\.cardinality 100 values where the schema expects 10: .* MB") as caught:
        check_cardinality(schema, counts(schema, values), None)
    (finding,) = caught.value.findings
    assert (finding.where, finding.count) == ("f", 100)
    assert "hash_buckets" in finding.fix


def test_a_field_with_buckets_cannot_grow():
    schema = Schema((SparseFeature("f", hash_buckets=5, expected_values=10),))
    check_cardinality(schema, counts(schema, 5_000), None)


def test_ten_times_the_frequent_values_of_a_vocabulary_stop():
    schema = Schema((SparseFeature("f"),))
    base = Vocabulary.build(schema, counts(schema, 200), min_count=2)
    check_cardinality(schema, counts(schema, 1_999), base)
    with pytest.raises(DataError, match="2,000 values where the vocabulary has 200"):
        check_cardinality(schema, counts(schema, 2_000), base)
    rare = Vocabulary.build(schema, counts(schema, 200), min_count=2)
    once = VocabularyCounts.of(pa.table({"f": np.arange(9_000)}), schema)  # each once: none would get a row
    check_cardinality(schema, once, rare)
    small = Vocabulary.build(schema, counts(schema, 20), min_count=2)
    check_cardinality(schema, counts(schema, 5_000), small)  # a first day of twenty values says little


def test_collisions_by_simulation():
    rng = np.random.default_rng(0)
    shares = []
    for _ in range(200):
        size = np.bincount(rng.integers(0, 50, 40), minlength=50)
        shares.append(size[size > 1].sum() / 40)
    assert collision_rate(40, 50) == pytest.approx(np.mean(shares), abs=0.02)
    assert collision_rate(1, 50) == 0.0
    assert collision_rate(2, 1) == 1.0


def test_estimates_and_which_fields_are_hashed():
    assert table_bytes(1_000, 8) == 32_000
    schema = Schema((SparseFeature("f", hash_buckets=50), SparseFeature("g"), SequenceFeature("s", hash_buckets=9)))
    assert hashed(schema, {"f": 40, "g": 3}) == {"f": collision_rate(40, 50)}
