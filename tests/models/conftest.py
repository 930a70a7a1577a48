"""A small schema with every kind of feature, and exposures of it."""

import numpy as np
import pytest

from postclick.data.arrays import Exposures, Labels, Ragged
from postclick.data.log import LogSpec
from postclick.schema import DenseFeature, EmbeddingFeature, Schema, SequenceFeature, SparseFeature

TABLE_ROWS = 40


@pytest.fixture
def spec():
    schema = Schema(
        (
            SparseFeature("user"),
            SparseFeature("item"),
            DenseFeature("age"),
            SequenceFeature("history", weights="recency"),
            EmbeddingFeature("image", size=2),
        )
    )
    return LogSpec(schema, TABLE_ROWS, rows=100.0, clicks=20.0, conversions=5.0)


@pytest.fixture
def exposures():
    """Return a function: B rows -> exposures with labels."""

    def make(rows=12, seed=0, **labels):
        rng = np.random.default_rng(seed)
        offsets = np.r_[0, np.cumsum(rng.integers(0, 4, rows))].astype(np.int64)
        count = int(offsets[-1])
        click = rng.integers(0, 2, rows).astype(np.int8)
        given = {"click": click, "conversion": click * rng.integers(0, 2, rows).astype(np.int8), **labels}
        return Exposures(
            rng.integers(0, TABLE_ROWS, (rows, 2)).astype(np.int32),
            rng.normal(size=(rows, 1)).astype(np.float32),
            rng.normal(size=(rows, 2)).astype(np.float32),
            (Ragged(rng.integers(0, TABLE_ROWS, count).astype(np.int32), offsets, rng.random(count, np.float32)),),
            Labels(**given),
        )

    return make


@pytest.fixture
def tiny():
    """A spec of three plain features with an action label, and a batch of it, small enough for plain arithmetic."""
    schema = Schema((SparseFeature("user"), SparseFeature("item"), DenseFeature("age")))
    rng = np.random.default_rng(3)
    click = (rng.random(24) < 0.6).astype(np.int8)
    labels = Labels(
        click,
        click * rng.integers(0, 2, 24).astype(np.int8),
        action=rng.integers(0, 2, 24).astype(np.int8),  # on unclicked rows too
        sample_weight=rng.random(24) * 2,
    )
    rows, dense = rng.integers(0, TABLE_ROWS, (24, 2)).astype(np.int32), rng.normal(size=(24, 1)).astype(np.float32)
    spec = LogSpec(schema, TABLE_ROWS, rows=100.0, clicks=20.0, conversions=5.0, actions=8.0)
    return spec, Exposures(rows, dense, np.zeros((24, 0), np.float32), (), labels)
