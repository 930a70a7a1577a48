import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from postclick.metrics.ranking import auc, gauc, pr_auc, user_ranking


def sample(seed, rows=400, ties=True, rate=0.3):
    rng = np.random.default_rng(seed)
    odds = rng.integers(-4, 5, rows).astype(float) if ties else rng.normal(size=rows)
    label = (rng.random(rows) < rate).astype(np.int8)
    return odds, label, rng.uniform(0.1, 3.0, rows)


def auc_by_pairs(odds, up, down):
    wins = ((odds[:, None] > odds[None, :]) + 0.5 * (odds[:, None] == odds[None, :])) * up[:, None] * down[None, :]
    return wins.sum() / (up.sum() * down.sum())


def test_auc_by_hand():
    # positives 3, 1; negatives 2, 1: wins 1 + 1 + 0 + .5 of 4
    assert auc(np.array([3.0, 1.0, 2.0, 1.0]), np.array([1, 1, 0, 0])).value == 2.5 / 4


@pytest.mark.parametrize("ties", [True, False])
@pytest.mark.parametrize("rate", [0.02, 0.3, 0.9])
@pytest.mark.parametrize("weighted", [True, False])
def test_auc_and_average_precision_equal_scikit_learn(ties, rate, weighted):
    odds, label, weight = sample(3, 3000, ties, rate)
    weight = weight if weighted else None
    assert auc(odds, label, weight).value == pytest.approx(roc_auc_score(label, odds, sample_weight=weight), abs=1e-12)
    expected = average_precision_score(label, odds, sample_weight=weight)
    assert pr_auc(odds, label, weight).value == pytest.approx(expected, abs=1e-12)


def test_auc_of_soft_labels_equals_all_pairs():
    rng = np.random.default_rng(5)
    odds, soft, weight = rng.integers(-3, 4, 60).astype(float), rng.random(60), rng.random(60)
    assert auc(odds, soft).value == pytest.approx(auc_by_pairs(odds, soft, 1 - soft), abs=1e-12)
    expected = auc_by_pairs(odds, weight * soft, weight * (1 - soft))
    assert auc(odds, soft, weight).value == pytest.approx(expected, abs=1e-12)
    twice = (np.tile(odds, 2), np.repeat([1, 0], 60), np.concatenate([soft, 1 - soft]))
    assert auc(odds, soft).value == pytest.approx(auc(*twice).value, abs=1e-12)


@pytest.mark.parametrize("metric", [auc, pr_auc])
def test_weight_two_is_the_row_twice(metric):
    odds, label, _ = sample(1)
    weight = np.random.default_rng(0).integers(1, 4, len(odds))
    repeated = metric(np.repeat(odds, weight), np.repeat(label, weight)).value
    assert metric(odds, label, weight.astype(float)).value == pytest.approx(repeated, abs=1e-12)


@given(st.lists(st.tuples(st.integers(-30, 30), st.booleans()), min_size=2, max_size=60))
def test_auc_is_kept_by_monotone_maps_and_by_turning_both_around(pairs):
    odds, label = np.array([float(s) for s, _ in pairs]), np.array([y for _, y in pairs])
    found = auc(odds, label)
    assert auc(np.exp(odds / 7.0), label) == found
    assert auc(-odds, ~label).value == found.value
    if found.value is not None:
        assert auc(-odds, label).value == pytest.approx(1.0 - found.value, abs=1e-12)


def test_infinite_scores_rank():
    assert auc(np.array([np.inf, -np.inf, 0.0]), np.array([1, 0, 0])).value == 1.0
    assert auc(np.array([np.inf, -np.inf, 0.0]), np.array([1, 0, 0]), np.ones(3)).value == 1.0


def gauc_by_loop(odds, label, user, weight):
    total = mass = 0.0
    for code in np.unique(user):
        own = user == code
        up, down = weight[own] * label[own], weight[own] * (1 - label[own])
        if up.sum() > 0 and down.sum() > 0:
            total += weight[own].sum() * auc_by_pairs(odds[own], up, down)
            mass += weight[own].sum()
    return total / mass


@pytest.mark.parametrize("weighted", [True, False])
def test_gauc_equals_a_loop_over_users(weighted):
    odds, label, weight = sample(7, 600)
    user = np.random.default_rng(1).integers(0, 90, 600)
    expected = gauc_by_loop(odds, label, user, weight if weighted else np.ones(600))
    assert gauc(odds, label, user, weight if weighted else None).value == pytest.approx(expected, abs=1e-12)
    one = np.zeros(600, np.int64)
    assert gauc(odds, label, one).value == pytest.approx(auc(odds, label).value, abs=1e-12)


def test_users_of_one_class_are_skipped_and_counted():
    found = user_ranking(np.array([1.0, 0.0, 5.0, 2.0]), np.array([1, 0, 1, 0]), np.array([2, 2, 0, 4]))
    assert (found.users, found.skipped, found.estimate.value) == (3, 2, 1.0)
    assert found.mass.tolist() == [0, 0, 2, 0, 0]


def test_undefined_is_an_outcome():
    nothing, ones, zeros = np.zeros(0), np.ones(3, np.int8), np.zeros(3, np.int8)
    odds = np.array([1.0, 2.0, 3.0])
    assert auc(nothing, nothing.astype(np.int8)).undefined == "no rows"
    assert auc(odds, zeros).undefined == "no positives"
    assert auc(odds, ones).undefined == "no negatives"
    assert auc(odds, ones, np.zeros(3)).undefined == "no rows"
    assert pr_auc(odds, zeros).undefined == "no positives"
    assert gauc(odds, ones, np.arange(3)).undefined == "no user has both classes"
    assert gauc(nothing, nothing, np.zeros(0, np.int64)).undefined == "no rows"
