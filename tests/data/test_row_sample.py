"""The sample: bounded, uniform within an outcome, and the same however rows come."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from postclick.data.arrays import Labels
from postclick.data.row_sample import RowSample, RowSampler, WeightTotals
from postclick.schema import EmbeddingFeature, Schema, SequenceFeature, SparseFeature

SCHEMA = Schema((SparseFeature("f"),))


def rows(count: int, seed: int = 0) -> tuple[pa.Table, Labels, np.ndarray]:
    rng = np.random.default_rng(seed)
    click = (rng.random(count) < 0.3).astype(np.int8)
    sale = click * (rng.random(count) < 0.2).astype(np.int8)
    return pa.table({"f": np.arange(count)}), Labels(click, sale), rng.integers(0, 3, count)


def taken(sampler: RowSampler, table: pa.Table, labels: Labels, splits, start: int, stop: int) -> None:
    part = labels.take(slice(start, stop))
    sampler.add(table.slice(start, stop - start), part, splits[start:stop], start)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 3_000), max_size=6), st.booleans())
def test_what_is_kept_depends_neither_on_cuts_nor_on_who_merges(cuts, merged):
    table, labels, splits = rows(3_000)
    bounds = sorted({0, 3_000, *cuts})
    whole, parts = RowSampler(SCHEMA, 40), RowSampler(SCHEMA, 40)
    taken(whole, table, labels, splits, 0, 3_000)
    for start, stop in pairwise(bounds):
        if merged:
            own = RowSampler(SCHEMA, 40)
            taken(own, table, labels, splits, start, stop)
            parts.merge(own.result())
        else:
            taken(parts, table, labels, splits, start, stop)
    one, two = whole.result(), parts.result()
    np.testing.assert_array_equal(one.totals, two.totals)
    np.testing.assert_array_equal(one.limits, two.limits)
    for split in range(3):
        assert one.of(split)["f"].to_pylist() == two.of(split)["f"].to_pylist()


def test_each_group_is_full_and_no_fuller():
    table, labels, splits = rows(30_000)
    sampler = RowSampler(SCHEMA, 100)
    sampler.add(table, labels, splits, 0)
    sample = sampler.result()
    assert sample.table.num_rows == 900
    assert int(sample.totals.sum()) == 30_000
    wanted = [(splits == split) & (labels.click == 0) for split in range(3)]
    assert sample.totals[:, 0].tolist() == [int(mask.sum()) for mask in wanted]


def test_a_sample_over_outcomes_is_uniform():
    table, labels, _ = rows(30_000)
    sampler = RowSampler(SCHEMA, 500)
    sampler.add(table, labels, 0, 0)
    train = sampler.result().of(0)
    share = np.asarray(train["label:click"]).mean()
    assert len(train) > 500
    assert share == pytest.approx(0.3, abs=0.06)
    clicks = sampler.result().of(0, (1, 2))
    assert np.asarray(clicks["label:conversion"]).mean() == pytest.approx(0.2, abs=0.06)


def test_a_small_log_is_kept_whole_and_comes_back_from_disk(tmp_path):
    table, labels, splits = rows(500)
    sampler = RowSampler(SCHEMA)
    sampler.add(table, labels, splits, 0)
    sample = sampler.result()
    sample.save(tmp_path / "sample.arrow")
    again = RowSample.load(tmp_path / "sample.arrow")
    assert again.table.equals(sample.table)
    np.testing.assert_array_equal(again.limits, sample.limits)
    assert sorted(value for split in range(3) for value in again.of(split)["f"].to_pylist()) == list(range(500))


def test_no_row_at_all(tmp_path):
    sample = RowSampler(SCHEMA).result()
    sample.save(tmp_path / "sample.arrow")
    assert len(RowSample.load(tmp_path / "sample.arrow").of(0)) == 0


def test_lists_become_lengths_and_vectors_norms():
    schema = Schema((SequenceFeature("s"), SequenceFeature("t", separator="|"), EmbeddingFeature("v", 2)))
    table = pa.table({"s": [[1, 2], None, []], "t": ["a|b", None, ""], "v": [[3.0, 4.0], None, [0.0, 1.0]]})
    sampler = RowSampler(schema)
    sampler.add(table, Labels(np.zeros(3, np.int8), np.zeros(3, np.int8)), 0, 0)
    found = sampler.result().table.sort_by("sample:key").to_pydict()
    assert sorted(found["s"]) == [0, 0, 2]
    assert sorted(value or 0 for value in found["t"]) == [0, 0, 3]
    assert sorted(value or 0.0 for value in found["v"]) == [0.0, 1.0, 5.0]


def test_weights_are_summed_over_all_rows_not_over_the_sample():
    table, labels, _ = rows(2_000)
    weights = np.where(np.arange(2_000) < 10, 100.0, 1.0)
    labels = Labels(labels.click, labels.conversion, sample_weight=weights)
    sampler = RowSampler(SCHEMA, 5)
    sampler.add(table, labels, 0, 0)
    train = sampler.result().weights[0]
    assert train == WeightTotals(2_000, weights.sum(), (weights**2).sum())
    assert train.effective == pytest.approx(weights.sum() ** 2 / (weights**2).sum())
    assert WeightTotals().effective == 0.0
