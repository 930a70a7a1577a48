import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss, log_loss

from postclick.metrics.probability import brier, columns, logloss, mae, mean, ne, pcoc

ALL = (logloss, ne, brier, mae, mean, pcoc)


def sample(seed=0, rows=500):
    rng = np.random.default_rng(seed)
    odds = rng.normal(-1.0, 2.0, rows)
    return odds, (rng.random(rows) < 0.3).astype(np.int8), rng.uniform(0.1, 4.0, rows)


@pytest.mark.parametrize("weighted", [True, False])
def test_log_loss_and_brier_equal_scikit_learn(weighted):
    odds, label, weight = sample()
    weight, share = (weight if weighted else None), 1 / (1 + np.exp(-odds))
    assert logloss(odds, label, weight).value == pytest.approx(log_loss(label, share, sample_weight=weight), rel=1e-12)
    expected = brier_score_loss(label, share, sample_weight=weight)
    assert brier(odds, label, weight).value == pytest.approx(expected, rel=1e-12)


def test_against_plain_loops():
    odds, label, weight = sample(1, 40)
    share = [1 / (1 + np.exp(-o)) for o in odds]
    rows = list(zip(share, label, weight, strict=True))
    mass = sum(w for _, _, w in rows)
    assert pcoc(odds, label, weight).value == pytest.approx(
        sum(w * q for q, _, w in rows) / sum(w * y for _, y, w in rows)
    )
    assert mean(odds, label, weight).value == pytest.approx(sum(w * q for q, _, w in rows) / mass)
    assert mae(odds, label, weight).value == pytest.approx(sum(w * abs(q - y) for q, y, w in rows) / mass)
    base = sum(w * y for _, y, w in rows) / mass
    entropy = -base * np.log(base) - (1 - base) * np.log(1 - base)
    assert ne(odds, label, weight).value == pytest.approx(logloss(odds, label, weight).value / entropy)


def test_soft_labels_count_p_positive_and_1_minus_p_negative():
    rng = np.random.default_rng(2)
    odds, soft = rng.normal(size=50), rng.random(50)
    split = (np.tile(odds, 2), np.repeat([1, 0], 50), np.concatenate([soft, 1 - soft]))
    for metric in (logloss, ne, brier, pcoc, mean):
        assert metric(odds, soft).value == pytest.approx(metric(*split).value, rel=1e-12)
    assert mae(odds, soft).value == pytest.approx(np.abs(1 / (1 + np.exp(-odds)) - soft).mean())


@pytest.mark.parametrize("metric", ALL)
def test_weight_two_is_the_row_twice(metric):
    odds, label, _ = sample(3)
    weight = np.random.default_rng(0).integers(0, 3, len(odds))
    repeated = metric(np.repeat(odds, weight), np.repeat(label, weight)).value
    assert metric(odds, label, weight.astype(float)).value == pytest.approx(repeated, rel=1e-12)


@given(st.floats(-1e4, 1e4), st.floats(0.0, 1.0))
def test_log_loss_is_finite_where_log_odds_are(odds, soft):
    found = logloss(np.array([odds]), np.array([soft])).value
    assert found is not None
    assert found >= 0.0


def test_nothing_is_clipped():
    assert logloss(np.array([-1000.0]), np.array([1])).value == 1000.0
    assert logloss(np.array([-1000.0]), np.array([0])).value == 0.0


def test_a_certain_score_costs_nothing_when_right_and_everything_when_wrong():
    certain = np.array([np.inf, -np.inf])
    assert logloss(certain, np.array([1, 0])).value == 0.0
    assert logloss(certain, np.array([0, 0])).undefined == "infinite"
    assert logloss(np.array([-np.inf, 0.0]), np.array([0.0, 0.5])).value == pytest.approx(np.log(2) / 2)
    assert logloss(np.array([np.nan, np.inf]), np.array([1, 1])).undefined == "scores are not numbers"


def test_undefined():
    odds, zeros, ones = np.array([0.1, 0.2]), np.zeros(2, np.int8), np.ones(2, np.int8)
    assert pcoc(odds, zeros).undefined == "no positives"
    assert ne(odds, zeros).undefined == "no positives"
    assert ne(odds, ones).undefined == "no negatives"
    for metric in ALL:
        assert metric(odds, ones, np.zeros(2)).undefined == "no rows"
        assert metric(odds[:0], ones[:0]).undefined == "no rows"
    assert logloss(odds, zeros).value == pytest.approx(np.log1p(np.exp(odds)).mean())


def test_columns_sum_to_what_they_say():
    odds, label, weight = sample(4, 30)
    found = dict(columns(odds, label, weight))
    assert found["weight"].sum() == weight.sum()
    assert found["label"].sum() == pytest.approx((weight * label).sum())
    assert set(found) == {"weight", "label", "loss", "prediction", "square", "error"}
