"""Merging counts as they come."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from postclick.data import counts
from postclick.data.counts import CountMerger, VocabularyCounts
from postclick.schema import Schema, SparseFeature

SCHEMA = Schema((SparseFeature("f"),))


def test_merging_on_the_way_gives_the_same_counts(monkeypatch):
    monkeypatch.setattr(counts, "_MERGE_AT", 10)
    values = np.random.default_rng(0).integers(0, 50, 1_000)
    parts = [VocabularyCounts.of(pa.table({"f": part}), SCHEMA) for part in np.split(values, 50)]
    merger = CountMerger()
    for part in parts:
        merger.add(part)
    # without merging on the way all parts would be waiting
    assert len(merger._parts) < 10
    table = merger.result().fields["f"]
    found = dict(zip(table.column("value").to_pylist(), table.column("count").to_pylist(), strict=True))
    assert found == dict(zip(*(part.tolist() for part in np.unique(values, return_counts=True)), strict=True))
