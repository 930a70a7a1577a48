"""An in-memory source for the tests of the data floor."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pytest

from postclick.data.sources.base import Piece, SourceBatch, SourceProtocol, ValueCounts
from postclick.schema import Columns, DenseFeature, Schema, SequenceFeature, SparseFeature


@dataclass
class TableSource:
    """Tables in memory: one piece a table, batches of `batch_rows`."""

    schema: Schema
    tables: Sequence[pa.Table]
    roles: Sequence[str | None] = ()
    protocol: SourceProtocol = field(default_factory=lambda: SourceProtocol("memory"))
    batch_rows: int = 1_000
    values: dict[str, ValueCounts] = field(default_factory=dict)

    def pieces(self) -> list[Piece]:
        roles = self.roles or [None] * len(self.tables)
        return [Piece(f"table{i}", None, role, 0, i) for i, role in enumerate(roles)]

    def read(self, piece: Piece) -> Iterator[SourceBatch]:
        first = 0
        for batch in self.tables[piece.payload].to_batches(max_chunksize=self.batch_rows):
            yield SourceBatch(batch, piece.label, first, self.values)
            first += batch.num_rows


def raw(rows: int = 2_000, seed: int = 0, start: int = 0) -> pa.Table:
    """Rows with every kind of feature but vectors."""
    rng = np.random.default_rng(seed)
    click = (rng.random(rows) < 0.4).astype(np.int64)
    return pa.table(
        {
            "id": np.arange(start, start + rows),
            "uid": rng.integers(0, 50, rows),
            "shop": pa.array([f"s{n}" for n in rng.zipf(1.7, rows)]),
            "price": rng.lognormal(0.0, 1.0, rows),
            "tags": pa.array([list(range(n)) for n in rng.integers(0, 5, rows)]),
            "when": np.arange(start, start + rows),
            "click": click,
            "conversion": click * (rng.random(rows) < 0.3),
        }
    )


SCHEMA = Schema(
    (
        SparseFeature("uid", "user"),
        SparseFeature("shop", "item", min_count=2),
        DenseFeature("price", transform="log"),
        SequenceFeature("tags", max_length=3, min_count=1),
    ),
    Columns(exposure_id="id", user_id="uid", time="when"),
)


@pytest.fixture
def make_source():
    """Build a `TableSource`."""
    return TableSource


@pytest.fixture
def raw_rows():
    """Build raw rows."""
    return raw


@pytest.fixture
def mixed_schema() -> Schema:
    """The schema of `raw_rows`."""
    return SCHEMA
