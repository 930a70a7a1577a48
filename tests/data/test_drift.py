"""The stability index by hand, and the words for it."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pytest

from postclick.data.drift import drifts, stability_index
from postclick.schema import DenseFeature, Schema, SparseFeature

SCHEMA = Schema((SparseFeature("shop"), DenseFeature("price")))


def test_the_index_by_hand():
    psi, noise = stability_index(np.array([79.5, 19.5]), np.array([49.5, 49.5]))
    assert psi == pytest.approx(0.3 * math.log(1.6) - 0.3 * math.log(0.4))
    assert noise == pytest.approx(2 / 99)
    assert stability_index(np.array([5.0, 5.0]), np.array([50.0, 50.0]))[0] == pytest.approx(0.0)


def sample(rows: int, seed: int, shops=("a", "b", "c"), shift: float = 0.0) -> pa.Table:
    rng = np.random.default_rng(seed)
    price = np.where(rng.random(rows) < 0.1, np.nan, rng.normal(shift, 1.0, rows))
    return pa.table({"shop": rng.choice(list(shops), rows), "price": price})


def test_one_population_is_stable_and_its_index_is_about_its_noise():
    found = [drifts(sample(3_000, 2 * seed), sample(3_000, 2 * seed + 1), SCHEMA) for seed in range(150)]
    assert {entry.word for fields in found for entry in fields.values()} == {"stable"}
    for name in ("shop", "price"):
        ratio = np.mean([fields[name].psi / fields[name].noise for fields in found])
        assert 0.8 < ratio < 1.25


def test_another_population_is_named():
    found = drifts(sample(3_000, 0), sample(3_000, 1, shops=("a", "d"), shift=0.4), SCHEMA)
    assert found["shop"].word == "large"
    assert found["price"].word == "moderate"
    assert found["price"].rows == (3_000, 3_000)


def test_few_rows_say_nothing_and_noise_is_no_drift():
    assert drifts(sample(199, 0), sample(3_000, 1), SCHEMA) == {}
    many = [f"s{n}" for n in range(18)]
    entry = drifts(sample(200, 0, shops=many), sample(200, 1, shops=many), SCHEMA)["shop"]
    assert entry.psi > 0.1
    assert entry.word == "stable"


def test_a_column_without_values_is_left_out():
    table = sample(300, 0).set_column(0, "shop", pa.nulls(300))
    assert set(drifts(table, sample(300, 1), SCHEMA)) == {"price"}


def test_categories_of_equal_frequency_do_not_drift_by_being_chosen():
    rng = np.random.default_rng(0)
    user = rng.permutation(np.repeat(np.arange(290), 24))
    table = pa.table({"shop": user, "price": rng.random(len(user))})
    assert drifts(table.slice(0, 6_247), table.slice(6_247), SCHEMA)["shop"].word == "stable"
