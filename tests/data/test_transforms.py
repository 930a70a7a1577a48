"""Dense features: merged statistics and fitted transforms."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from postclick import files
from postclick.data.transforms import DenseStatistics, Transforms
from postclick.errors import DataError
from postclick.schema import DenseFeature, Schema

KINDS = ("standard", "log", "quantile", "none")
SCHEMA = Schema(tuple(DenseFeature(kind, transform=kind) for kind in KINDS))


def statistics(values, keys=None):
    keys = np.arange(len(values), dtype=np.uint64) if keys is None else keys
    return DenseStatistics.of(values, keys, SCHEMA)


def test_what_each_transform_does():
    rng = np.random.default_rng(0)
    values = rng.lognormal(0.0, 1.0, (5_000, 4))
    fitted = Transforms.fit(SCHEMA, statistics(values))
    out = fitted.apply(values)
    np.testing.assert_allclose(out[:, 0], (values[:, 0] - values[:, 0].mean()) / values[:, 0].std(), rtol=1e-5)
    logs = np.log1p(values[:, 1])
    np.testing.assert_allclose(out[:, 1], (logs - logs.mean()) / logs.std(), rtol=1e-4, atol=1e-6)
    ranks = np.argsort(np.argsort(values[:, 2])) / 4_999 * 2 - 1
    np.testing.assert_allclose(out[:, 2], ranks, atol=2e-3)
    np.testing.assert_array_equal(out[:, 3], values[:, 3].astype(np.float32))
    assert out.dtype == np.float32


def test_missing_values_by_policy():
    schema = Schema(
        tuple(
            DenseFeature(f"{kind}-{missing}", transform=kind, missing=missing)
            for kind in KINDS
            for missing in ("mean", "zero")
        )
    )
    column = np.array([1.0, 2.0, 3.0, 6.0, np.nan])
    values = np.repeat(column[:, None], 8, axis=1)
    fitted = Transforms.fit(schema, DenseStatistics.of(values, np.arange(5, dtype=np.uint64), schema))
    out = fitted.apply(np.full((1, 8), np.nan))[0]
    std, log_std = np.array([1, 2, 3, 6.0]).std(), np.log1p([1, 2, 3, 6.0]).std()
    wanted = [0.0, -3.0 / std, 0.0, -np.log1p([1, 2, 3, 6.0]).mean() / log_std, 1 / 3, -1.0, 3.0, 0.0]
    np.testing.assert_allclose(out, wanted, rtol=1e-6)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.one_of(st.floats(-1e6, 1e6), st.just(np.nan)), min_size=2, max_size=40),
    st.integers(0, 40),
)
def test_merged_parts_equal_the_whole(column, cut):
    values = np.repeat(np.asarray(column)[:, None], 4, axis=1)
    keys = np.arange(len(column), dtype=np.uint64)
    whole = statistics(values, keys)
    merged = statistics(values[:cut], keys[:cut]).merge(statistics(values[cut:], keys[cut:]))
    np.testing.assert_array_equal(whole.count, merged.count)
    np.testing.assert_allclose(whole.mean, merged.mean, rtol=1e-9, atol=1e-6)
    np.testing.assert_allclose(whole.squares, merged.squares, rtol=1e-9, atol=1e-3)
    np.testing.assert_array_equal(whole.sample, merged.sample)


def test_large_offsets_do_not_lose_the_spread():
    rng = np.random.default_rng(1)
    values = np.repeat(1e9 + rng.normal(0, 1, (3_000, 1)), 4, axis=1)
    merged = statistics(values[:1_000]).merge(statistics(values[1_000:]))
    assert Transforms.fit(SCHEMA, merged).features[0].scale == pytest.approx(values[:, 0].std(), rel=1e-6)


def test_the_sample_is_the_rows_with_the_smallest_keys(monkeypatch):
    from postclick.data import transforms

    monkeypatch.setattr(transforms, "_SAMPLE", 10)
    keys = np.random.default_rng(2).permutation(100).astype(np.uint64)
    values = np.repeat(keys.astype(float)[:, None], 4, axis=1)
    parts = [statistics(values[i::3], keys[i::3]) for i in (2, 0, 1)]
    merged = parts[0].merge(parts[1]).merge(parts[2])
    assert merged.keys.tolist() == list(range(10))
    assert merged.sample[:, 0].tolist() == list(range(10))
    plain = Schema((DenseFeature("x"),))
    assert DenseStatistics.of(values[:, :1], keys, plain).sample.shape == (0, 0)


def test_constants_and_columns_without_a_value_stay_finite():
    values = np.stack([np.full(3, 7.0)] * 4, axis=1)
    assert np.isfinite(Transforms.fit(SCHEMA, statistics(values)).apply(values)).all()
    np.testing.assert_array_equal(Transforms.fit(SCHEMA, statistics(values)).apply(values)[:, :3], 0.0)
    empty = Transforms.fit(SCHEMA, statistics(np.full((3, 4), np.nan)))
    assert np.isfinite(empty.apply(np.array([[1.0, 2.0, 3.0, np.nan]]))).all()


def test_equal_values_share_the_middle_of_their_ranks():
    values = np.repeat(np.array([0.0] * 50 + [1.0] * 50)[:, None], 4, axis=1)
    out = Transforms.fit(SCHEMA, statistics(values)).apply(
        np.repeat(np.array([[0.0], [1.0], [-5.0], [5.0]]), 4, axis=1)
    )
    assert out[0, 2] == pytest.approx(-0.5, abs=0.02)
    assert out[1, 2] == pytest.approx(0.5, abs=0.02)
    assert out[2:, 2].tolist() == [-1.0, 1.0]


def test_save_and_load(tmp_path):
    fitted = Transforms.fit(SCHEMA, statistics(np.random.default_rng(3).normal(0, 1, (200, 4))))
    fitted.save(tmp_path)
    assert Transforms.load(tmp_path) == fitted
    files.write_json(tmp_path / "transforms.json", {"format": 9, "features": []})
    with pytest.raises(DataError, match="format 9"):
        Transforms.load(tmp_path)
