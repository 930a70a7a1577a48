import math

import numpy as np
import pytest

from postclick.metrics.bootstrap import bootstrap_t, fold_units, poisson_weights, ratio
from postclick.metrics.probability import STATISTICS, columns


def test_poisson_weights_have_mean_and_variance_one():
    weights = poisson_weights(np.random.default_rng(0), 1000, 500)
    assert weights.shape == (1000, 500)
    assert weights.mean() == pytest.approx(1.0, abs=0.01)
    assert weights.var() == pytest.approx(1.0, abs=0.02)
    assert (weights == 0).mean() == pytest.approx(math.exp(-1), abs=0.005)


def test_units_present_are_packed_and_many_are_folded_evenly():
    unit, count = fold_units(np.array([7, 3, 7, 9]), 4, 16)
    assert (unit.tolist(), count) == ([1, 0, 1, 2], 3)
    unit, count = fold_units(None, 1000, 16)
    assert count == 16
    sizes = np.bincount(unit, minlength=16)
    assert sizes.min() > 40
    assert sizes.max() < 90
    assert fold_units(None, 5, 16)[0].tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("metric", sorted(STATISTICS))
def test_slopes_are_the_derivatives_of_the_linked_value(metric):
    statistic = STATISTICS[metric]
    sums = np.array([{"loss": 3.0, "weight": 20.0, "label": 5.0}.get(name, 4.0) for name in statistic.columns])
    check_slope(statistic, sums)


def test_slope_on_the_logit_scale():
    check_slope(ratio("a", "b", "logit"), np.array([3.0, 7.0]))


def check_slope(statistic, sums):
    slope = statistic.slope(sums)
    for index in range(len(sums)):
        step = np.zeros(len(sums))
        step[index] = 1e-6
        numeric = (statistic.linked(sums + step) - statistic.linked(sums - step)) / 2e-6
        assert slope[index] == pytest.approx(numeric, rel=1e-6)
    assert slope @ sums == pytest.approx(0.0, abs=1e-12)  # doubling all rows changes nothing


def test_studentised_interval_equals_a_plain_loop():
    rng = np.random.default_rng(1)
    top, bottom = rng.gamma(2.0, size=30), rng.gamma(3.0, size=30)
    found = bootstrap_t({"a": top, "b": bottom}, {"r": ratio("a", "b")}, seed=5, replicates=200)["r"]
    weights = poisson_weights(np.random.default_rng(5), 200, 30)

    def error(w):
        value = (w * top).sum() / (w * bottom).sum()
        return math.sqrt((w * (top - value * bottom) ** 2).sum()) / (w * top).sum()

    center = math.log(top.sum() / bottom.sum())
    pivots = [(math.log((w @ top) / (w @ bottom)) - center) / error(w) for w in weights]
    own = error(np.ones(30))
    expected = [math.exp(center - np.quantile(pivots, q) * own) for q in (0.975, 0.025)]
    assert found == pytest.approx(expected, rel=1e-9)


def test_equal_seeds_give_equal_bits_and_blocks_do_not_matter():
    rng = np.random.default_rng(2)
    sums = {"a": rng.random(9000), "b": rng.random(9000)}
    statistics = {"r": ratio("a", "b")}
    first = bootstrap_t(sums, statistics, seed=3)
    assert first == bootstrap_t(sums, statistics, seed=3)
    assert first != bootstrap_t(sums, statistics, seed=4)
    low, high = first["r"]
    assert low < sums["a"].sum() / sums["b"].sum() < high


def test_too_few_positives_give_no_interval():
    label = np.zeros(50)
    label[:2] = 1.0
    low, high = bootstrap_t({"prediction": np.full(50, 0.1), "label": label}, {"pcoc": STATISTICS["pcoc"]})["pcoc"]
    assert math.isnan(low)
    assert math.isnan(high)
    one = bootstrap_t({"a": np.ones(1), "b": np.ones(1)}, {"r": ratio("a", "b")})["r"]
    assert math.isnan(one[0])
    assert bootstrap_t({}, {}) == {}


def test_user_bootstrap_covers_with_user_effects():
    rng = np.random.default_rng(9)
    users, each, replicas = 50, 8, 150
    user = np.repeat(np.arange(users), each)

    def draw(count):
        odds = -1.0 + 0.5 * rng.normal(size=count * each)
        share = 1 / (1 + np.exp(-odds - np.repeat(rng.normal(size=count), each)))
        return odds, (rng.random(count * each) < share).astype(np.int8)

    odds, label = draw(100_000)
    totals = {name: column.sum() for name, column in columns(odds, label)}
    truth = {"pcoc": totals["prediction"] / totals["label"], "logloss": totals["loss"] / totals["weight"]}
    inside = dict.fromkeys(truth, 0)
    for seed in range(replicas):
        sums = {name: np.bincount(user, column) for name, column in columns(*draw(users))}
        ends = bootstrap_t(sums, {name: STATISTICS[name] for name in truth}, seed=seed, replicates=300)
        for name, (low, high) in ends.items():
            inside[name] += low <= truth[name] <= high
    assert min(inside.values()) >= 131  # 95 % of 150 is 142.5; 130 or fewer has a chance under 2e-4


def test_no_interval_from_a_handful_of_positives():
    rng = np.random.default_rng(3)
    odds = rng.normal(-4.0, 0.1, 300)
    label = np.zeros(300)
    label[[5, 90, 200]] = 1.0
    sums = dict(columns(odds, label))
    low, high = bootstrap_t(sums, {"logloss": STATISTICS["logloss"]})["logloss"]
    assert math.isnan(low) or high < 10 * low  # it was 1e17 before the pivot's quantile was bounded
