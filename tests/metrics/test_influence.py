import numpy as np
import pytest

from postclick.metrics import auc, brier, components, gauc, logloss, mae, ne, pcoc
from postclick.metrics.influence import COMPARED, Influence, influence

FUNCTIONS = {"auc": auc, "gauc": gauc, "logloss": logloss, "ne": ne, "brier": brier, "mae": mae, "pcoc": pcoc}


def sample(seed=0, rows=120, users=15):
    rng = np.random.default_rng(seed)
    user = np.concatenate([np.arange(users), rng.integers(0, users, rows - users)])
    odds = np.round(rng.normal(size=rows) + rng.normal(size=users)[user], 1)
    label = (rng.random(rows) < 0.4).astype(np.int8)
    return odds, label, user


def value(metric, odds, label, weight, user):
    call = FUNCTIONS[metric]
    found = call(odds, label, user, weight) if metric == "gauc" else call(odds, label, weight)
    return np.log(found.value) if metric == "pcoc" else found.value


@pytest.mark.parametrize("metric", COMPARED)
def test_it_is_the_derivative_by_each_users_weight(metric):
    """Von Mises: give user u weight 1 + h; the metric moves by h x_u."""
    odds, label, user = sample()
    weight = np.random.default_rng(1).uniform(0.5, 2.0, len(odds))
    found = influence(metric, odds, label, weight=weight, user=user, unit=user)
    assert found.value == pytest.approx(value(metric, odds, label, weight, user), rel=1e-12)
    assert found.parts.sum(axis=1) == pytest.approx(np.zeros(len(found.parts)), abs=1e-12)
    step = 1e-5
    for code in range(15):
        up, down = (np.where(user == code, weight * (1 + h), weight) for h in (step, -step))
        slope = (value(metric, odds, label, up, user) - value(metric, odds, label, down, user)) / (2 * step)
        assert found.parts[:, code].sum() == pytest.approx(slope, abs=1e-8)


@pytest.mark.parametrize("soft", [False, True])
def test_auc_has_obuchowskis_variance(soft):
    odds, label, user = sample()
    if soft:
        label = np.random.default_rng(2).random(len(odds))
    found = influence("auc", odds, label, unit=user)
    assert np.sum(found.factors * (found.parts @ found.parts.T)) == pytest.approx(
        components(odds, label, user=user).variance, rel=1e-12
    )


def test_without_units_every_row_is_one():
    odds, label, _ = sample()
    found = influence("logloss", odds, label)
    losses = np.log1p(np.exp(-np.where(label == 1, odds, -odds)))
    assert found.parts[0] == pytest.approx((losses - losses.mean()) / len(losses), abs=1e-15)
    assert found.factors[0, 0] * found.parts[0] @ found.parts[0] == pytest.approx(
        losses.var(ddof=1) / len(losses), rel=1e-12
    )


def test_folded_users_keep_the_sum_of_their_influence():
    odds, label, user = sample()
    for metric in ("gauc", "logloss"):
        fine = influence(metric, odds, label, user=user, unit=user).parts[0]
        coarse = influence(metric, odds, label, user=user, unit=user % 4).parts[0]
        assert coarse == pytest.approx(np.bincount(np.arange(15) % 4, fine), abs=1e-15)


def test_undefined_outcomes_carry_their_reason():
    odds, label, user = sample()
    none, every = np.zeros_like(label), np.ones_like(label)
    reasons = {
        ("auc", "no positives"): (odds, none),
        ("auc", "no negatives"): (odds, every),
        ("auc", "no rows"): (odds[:0], none[:0]),
        ("logloss", "no rows"): (odds[:0], none[:0]),
        ("logloss", "infinite"): (np.where(label == 1, -np.inf, odds), label),
        ("pcoc", "no positives"): (odds, none),
        ("pcoc", "predicts none"): (np.full(len(odds), -np.inf), label),
        ("ne", "no negatives"): (odds, every),
        ("brier", "scores are not numbers"): (np.full(len(odds), np.nan), label),
        ("gauc", "no user id"): (odds, label),
    }
    for (metric, reason), (scores, truth) in reasons.items():
        assert influence(metric, scores, truth).undefined == reason
    assert influence("gauc", odds, none, user=user, unit=user).undefined == "no user has both classes"


def test_a_perfect_probability_has_no_influence():
    label = np.array([0.2, 0.5, 0.9])
    odds = np.log(label / (1 - label))
    found = influence("mae", odds, label)
    assert found.value == pytest.approx(0.0, abs=1e-15)
    assert found.parts == pytest.approx(np.zeros((1, 3)), abs=1e-15)
    assert np.isnan(Influence.single(1.0, np.zeros(1)).factors[0, 0])
