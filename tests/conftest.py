"""Fixtures that several test files share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest


def small_table(rows: int = 6_000, seed: int = 0) -> pa.Table:
    """Raw exposures that a model can learn from: users, items and a price drive clicks and conversions."""
    rng = np.random.default_rng(seed)
    user, item = rng.integers(0, 60, rows), rng.integers(100, 140, rows)
    price = rng.normal(0.0, 1.0, rows)
    click_odds = 1.2 * np.sin(user) + 0.8 * np.cos(item) - 0.4
    sale_odds = 1.5 * np.cos(1.7 * item) - 0.9 * price + 0.2
    click = (rng.random(rows) < 1.0 / (1.0 + np.exp(-click_odds))).astype(np.int8)
    conversion = click * (rng.random(rows) < 1.0 / (1.0 + np.exp(-sale_odds))).astype(np.int8)
    return pa.table(
        {
            "exposure_id": np.arange(rows) + 10_000 * seed,
            "user": user,
            "item": item,
            "price": price,
            "shop": np.where(item % 2 == 0, "a", "b"),
            "click": click,
            "conversion": conversion,
        }
    )


@pytest.fixture(scope="session")
def raw_table() -> pa.Table:
    """A few thousand raw exposures."""
    return small_table()


@pytest.fixture(scope="session")
def small_schema():
    """The schema of `raw_table`."""
    from postclick.schema import Columns, DenseFeature, Schema, SparseFeature

    features = (
        SparseFeature("user", "user", 1),
        SparseFeature("item", "item", 1),
        SparseFeature("shop", "item", 1),
        DenseFeature("price", "item"),
    )
    return Schema(features, Columns(exposure_id="exposure_id", user_id="user", item_id="item"))


@pytest.fixture(scope="session")
def small_log(tmp_path_factory, raw_table, small_schema):
    """A LOG of `raw_table`: 60 % train, 20 % valid, 20 % test."""
    from postclick.data.prepare import PrepareOptions, prepare
    from postclick.data.sources.opening import open_source

    path: Path = tmp_path_factory.mktemp("small") / "log"
    rows = len(raw_table)
    first, second = rows * 6 // 10, rows * 8 // 10
    source = open_source(
        (),
        train=raw_table.slice(0, first),
        valid=raw_table.slice(first, second - first),
        test=raw_table.slice(second),
        schema=small_schema,
    )
    return prepare(source, path, PrepareOptions(min_count=1))


@pytest.fixture(scope="session")
def small_config():
    """A small ESMM that learns `small_log` in a second."""
    from postclick.run import RunConfig
    from postclick.training.config import TrainingConfig

    arguments = {"embedding_size": 4, "tower": {"hidden": [16, 8], "dropout": [0.1]}}
    training = TrainingConfig(batch_size=256, max_epochs=4, learning_rate=0.01, checks_per_epoch=1)
    return RunConfig("esmm", arguments, training, seed=3, device="cpu")


@pytest.fixture(scope="session")
def small_run(tmp_path_factory, small_log, small_config):
    """A finished run of `small_config` on `small_log`; do not write into it."""
    from postclick.run import run

    return run(small_log, small_config, tmp_path_factory.mktemp("small") / "run")
