"""Which rows train, validate and test."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from postclick.data.arrays import Labels
from postclick.data.split import SplitPlan, choose_split, order_statistic, time_plan
from postclick.errors import ConfigError, DataError
from postclick.schema import Columns, Schema, SparseFeature


def labels(rows, **columns):
    zeros = np.zeros(rows, np.int8)
    return Labels(zeros, zeros, **columns)


@given(st.lists(st.integers(-(10**15), 10**15), min_size=1, max_size=50), st.data())
def test_order_statistic_equals_sorting(values, data):
    rank = data.draw(st.integers(0, len(values) - 1))
    array = np.asarray(values, np.int64)
    assert order_statistic(lambda: iter([array[::2], array[1::2]]), rank) == sorted(values)[rank]


def test_time_keeps_equal_times_together():
    times = np.repeat(np.arange(10), 10)
    plan = time_plan(lambda: iter([times[:37], times[37:]]), 100)
    codes = plan.assign(labels(100, time=times), None)
    assert (plan.valid_from, plan.test_from) == (8, 9)
    assert np.bincount(codes).tolist() == [80, 10, 10]


def test_too_few_times_are_refused():
    with pytest.raises(DataError, match="--split user"):
        time_plan(lambda: iter([np.array([1] * 9 + [2])]), 10)


def test_users_stay_together_and_shares_are_80_10_10():
    users = np.random.default_rng(0).integers(0, 5_000, 50_000)
    codes = SplitPlan("user").assign(labels(50_000, user_id=users), None)
    assert all(len(set(codes[users == user].tolist())) == 1 for user in range(50))
    np.testing.assert_allclose(np.bincount(codes) / 50_000, [0.8, 0.1, 0.1], atol=0.02)


def test_random_and_carved_splits_depend_on_the_exposure_alone():
    ids = np.arange(20_000)
    plans = SplitPlan("random"), SplitPlan("provider", carve_valid=True)
    for plan, shares in zip(plans, ([0.8, 0.1, 0.1], [0.9, 0.1]), strict=True):
        codes = plan.assign(labels(20_000, exposure_id=ids), "train")
        order = np.random.default_rng(1).permutation(20_000)
        np.testing.assert_array_equal(plan.assign(labels(20_000, exposure_id=ids[order]), "train"), codes[order])
        np.testing.assert_allclose(np.bincount(codes) / 20_000, shares, atol=0.01)
    assert set(plans[1].assign(labels(100, exposure_id=ids[:100]), "test").tolist()) == {2}


def schema(**roles):
    return Schema((SparseFeature("f"),), Columns(**roles))


@pytest.mark.parametrize(
    ("requested", "roles", "columns", "wanted"),
    [
        (None, ["train", "test"], {"time": "t"}, "provider"),
        (None, [None, None], {"time": "t"}, "time"),
        ("user", ["train", "test"], {"user_id": "u"}, "user"),
        ("random", [None], {}, "random"),
    ],
)
def test_the_default_is_the_provider_then_time(requested, roles, columns, wanted):
    assert choose_split(requested, roles, schema(**columns)) == wanted


@pytest.mark.parametrize(
    ("requested", "roles", "text"),
    [
        (None, [None], "--split user"),
        (None, ["train", None], "some files have a role and some have none"),
        ("provider", ["train", None], "needs a role a file"),
        ("time", [None], r"columns\.time"),
        ("user", [None], r"columns\.user_id"),
        ("tima", [None], "provider, time, user, random"),
    ],
)
def test_what_cannot_be_split_is_refused(requested, roles, text):
    with pytest.raises(ConfigError, match=text) as caught:
        choose_split(requested, roles, schema())
    assert (caught.value.code, caught.value.exit_code) == ("config.split", 78)
