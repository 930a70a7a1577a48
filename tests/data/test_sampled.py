"""The audit's numbers from a sample: which splits are compared, and when before a split exists."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from postclick.data.arrays import Labels
from postclick.data.row_sample import RowSampler
from postclick.data.sampled import look_at_sample, refuse_suspicious, sample_facts
from postclick.errors import DataError
from postclick.schema import Columns, DenseFeature, Schema, SparseFeature

SCHEMA = Schema(
    (SparseFeature("shop"), SparseFeature("hashed", hash_buckets=4), DenseFeature("price")), Columns(time="t")
)


def sampled(rows: int = 3_000, leak: bool = False, seed: int = 0, start: int = 0) -> RowSampler:
    """Rows in time order, 2/3 train and 1/3 test; the shops of the last third are new."""
    rng = np.random.default_rng(seed)
    click = (rng.random(rows) < 0.3).astype(np.int8)
    labels = Labels(click, np.zeros_like(click), time=np.arange(rows) * 1_000_000, sample_weight=np.ones(rows))
    split = np.where(np.arange(rows) < rows * 2 // 3, 0, 2)
    shop = np.where(split == 0, rng.choice(["a", "b"], rows), "c")
    price = click * 1.0 if leak else rng.random(rows)
    sampler = RowSampler(SCHEMA)
    sampler.add(pa.table({"shop": shop, "hashed": rng.integers(0, 9, rows), "price": price}), labels, split, start)
    return sampler


def test_splits_are_compared_with_train() -> None:
    facts = look_at_sample(sampled().result(), SCHEMA)
    assert (facts.rows, facts.of) == (2_000, 2_000)
    assert set(facts.drift) == {"train-test"}
    assert facts.drift["train-test"]["shop"].word == "large"
    assert facts.drift["train-test"]["price"].word == "stable"
    assert facts.unseen["train-test"]["shop"] == 1.0
    assert facts.unseen["train-test"]["hashed"] == 0.0
    assert facts.collisions["hashed"] > 0.8
    assert {split: sums.rows for split, sums in facts.weights.items()} == {"train": 2_000, "test": 1_000}
    assert json.loads(json.dumps(facts.to_dict(), allow_nan=False))["sample"]["rows"] == 2_000


def test_one_body_is_compared_as_a_split_by_time_would() -> None:
    sampler = RowSampler(SCHEMA)
    whole = sampled().result()
    labels = Labels(
        *(np.asarray(whole.table[f"label:{name}"]) for name in ("click", "conversion")),
        time=np.asarray(whole.table["label:time"]),
    )
    sampler.add(whole.table.select(["shop", "hashed", "price"]), labels, 0, 0)
    facts = look_at_sample(sampler.result(), SCHEMA, one_body=True)
    (fields,) = facts.drift.values()
    assert fields["shop"].word == "large"
    assert facts.span is not None
    assert facts.span.first == 0


def test_samples_of_pieces_are_joined_and_a_leak_is_refused(tmp_path: Path) -> None:
    for index in range(3):
        sampled(leak=True, seed=index, start=index << 40).result().save(tmp_path / f"sample-{index:05d}.arrow")
    facts = sample_facts(tmp_path, 3, SCHEMA)
    assert facts.of == 6_000
    with pytest.raises(DataError, match=r"data\.leakage .* \| price"):
        refuse_suspicious(facts)
    refuse_suspicious(look_at_sample(sampled().result(), SCHEMA))
