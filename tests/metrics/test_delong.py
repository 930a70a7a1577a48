import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from postclick.errors import DataError
from postclick.metrics import auc
from postclick.metrics import curve as curve_module
from postclick.metrics.curve import curve_of
from postclick.metrics.delong import auc_interval, components, curve_auc_interval
from postclick.metrics.estimate import normal_quantile


def sample(seed, rows=300, users=40, ties=True, rate=0.3):
    rng = np.random.default_rng(seed)
    user = rng.integers(0, users, rows)
    odds = rng.normal(size=rows) + rng.normal(size=users)[user]
    label = (rng.random(rows) < rate).astype(np.int8)
    return np.round(odds * 2) if ties else odds, label, user


def psi(odds, up, down):
    """The kernel, all pairs: [positives, negatives]."""
    x, y = odds[up][:, None], odds[down][None, :]
    return (x > y) + 0.5 * (x == y)


def delong_by_pairs(odds, label):
    kernel = psi(odds, label == 1, label == 0)
    m, n = kernel.shape
    return kernel.mean(axis=1).var(ddof=1) / m + kernel.mean(axis=0).var(ddof=1) / n


def obuchowski_by_loop(odds, label, user):
    """Obuchowski (1997), equations for the variance of one clustered AUC, term by term."""
    up, down = label == 1, label == 0
    kernel = psi(odds, up, down)
    m, n = kernel.shape
    theta, v10, v01 = kernel.mean(), kernel.mean(axis=1), kernel.mean(axis=0)
    clusters = sorted(set(user.tolist()))
    i10 = len(set(user[up].tolist()))
    i01 = len(set(user[down].tolist()))
    s10 = s01 = s11 = 0.0
    for code in clusters:
        mine_up, mine_down = user[up] == code, user[down] == code
        x = v10[mine_up].sum() - mine_up.sum() * theta
        z = v01[mine_down].sum() - mine_down.sum() * theta
        s10, s01, s11 = s10 + x * x, s01 + z * z, s11 + x * z
    s10 *= i10 / ((i10 - 1) * m)
    s01 *= i01 / ((i01 - 1) * n)
    s11 *= len(clusters) / (len(clusters) - 1)
    return s10 / m + s01 / n + 2 * s11 / (m * n)


@pytest.mark.parametrize("rate", [0.1, 0.8])
@pytest.mark.parametrize("ties", [True, False])
def test_independent_rows_equal_the_direct_formula(ties, rate):
    odds, label, _ = sample(1, ties=ties, rate=rate)
    expected = delong_by_pairs(odds, label)
    assert components(odds, label).variance == pytest.approx(expected, rel=1e-10)
    value = auc(odds, label).value
    half = normal_quantile(0.95) * math.sqrt(expected) / (value * (1 - value))
    center = math.log(value / (1 - value))
    for found in (auc_interval(odds, label), curve_auc_interval(curve_of(odds, label))):
        assert found.value == pytest.approx(value, abs=1e-14)
        assert math.log(found.low / (1 - found.low)) == pytest.approx(center - half, rel=1e-9)
        assert math.log(found.high / (1 - found.high)) == pytest.approx(center + half, rel=1e-9)
        assert found.method == "DeLong, logit scale, independent rows"


@pytest.mark.parametrize("rate", [0.1, 0.8])
@pytest.mark.parametrize("ties", [True, False])
def test_clustered_rows_equal_the_direct_formula(ties, rate):
    odds, label, user = sample(2, ties=ties, rate=rate)
    expected = obuchowski_by_loop(odds, label, user)
    fast = components(odds, label, user=user)
    general = components(odds, label, np.ones(len(odds)), user)
    for found in (fast, general):
        assert found.auc == pytest.approx(auc(odds, label).value, abs=1e-14)
        assert found.variance == pytest.approx(expected, rel=1e-10)
    assert auc_interval(odds, label, user=user).method == "DeLong, logit scale, clustered by user"


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(-3, 3), st.booleans(), st.integers(0, 4)), min_size=2, max_size=40))
def test_the_fast_way_equals_the_general_way(rows):
    odds = np.array([float(s) for s, _, _ in rows]) * 1e-3
    label, user = np.array([y for _, y, _ in rows]), np.array([u for _, _, u in rows])
    fast, general = components(odds, label, user=user), components(odds, label, np.ones(len(odds)), user)
    assert (fast is None) == (general is None) == (label.all() or not label.any())
    if fast is not None and general is not None:
        for name in ("auc", "positive", "negative", "positive_mass", "negative_mass"):
            assert getattr(fast, name) == pytest.approx(getattr(general, name), abs=1e-13)


def test_threads_and_slices_change_no_bit(monkeypatch):
    odds, label, user = sample(3, rows=2000)
    whole = components(odds, label, user=user)
    monkeypatch.setattr(curve_module, "_STEP_ROWS", 64)
    monkeypatch.setattr(curve_module, "cores", lambda: 3)
    cut = components(odds, label, user=user)
    assert np.array_equal(whole.positive, cut.positive)
    assert np.array_equal(whole.negative, cut.negative)
    assert whole.auc == cut.auc


def test_scores_that_differ_in_the_last_bit_are_not_ties():
    rng = np.random.default_rng(0)
    base = 0.7 + np.arange(400) * 1e-16 * 2  # neighbours in float64: more than the fast sort resolves
    odds = rng.permutation(np.unique(base))
    label = (rng.random(len(odds)) < 0.3).astype(np.int8)
    assert components(odds, label, user=np.zeros(len(odds), int)).auc == auc(odds, label).value


def test_one_user_a_row_is_the_independent_variance_without_cross_terms():
    odds, label, _ = sample(4)
    alone = components(odds, label, user=np.arange(len(odds)))
    assert alone.variance == pytest.approx(delong_by_pairs(odds, label), rel=1e-10)


def test_every_user_twice_halves_no_variance():
    odds, label, user = sample(5, rows=400)
    once = components(odds, label, user=user)
    twice = components(np.tile(odds, 2), np.tile(label, 2), user=np.tile(user, 2))
    assert twice.variance == pytest.approx(once.variance, rel=1e-10)
    assert components(np.tile(odds, 2), np.tile(label, 2)).variance < 0.6 * components(odds, label).variance


def test_weights_scale_out_and_zero_weight_rows_vanish():
    odds, label, user = sample(6)
    weight = np.random.default_rng(0).integers(0, 3, len(odds)).astype(float)
    keep = weight > 0
    found = components(odds, label, weight, user)
    part = components(odds[keep], label[keep], 5.0 * weight[keep], user[keep])
    assert (found.auc, found.variance) == pytest.approx((part.auc, part.variance), rel=1e-12)


def test_soft_labels_take_the_general_way():
    rng = np.random.default_rng(7)
    odds, soft, user = rng.normal(size=200), rng.random(200), rng.integers(0, 30, 200)
    found = auc_interval(odds, soft, user=user)
    assert found.value == pytest.approx(auc(odds, soft).value, abs=1e-12)
    assert found.low < found.value < found.high


def test_covariance_of_a_system_with_itself_and_with_a_copy():
    odds, label, user = sample(8)
    one, other = components(odds, label, user=user), components(3 * odds + 1, label, user=user)
    assert one.covariance(other) == pytest.approx(one.variance, rel=1e-12)
    turned = components(-odds, label, user=user)
    assert one.covariance(turned) == pytest.approx(-one.variance, rel=1e-12)


@pytest.mark.parametrize("user", [None, np.arange(6)])
def test_perfect_and_reversed_rankings_still_get_an_interval(user):
    odds, label = np.arange(6.0), np.array([0, 0, 0, 1, 1, 1])
    best, worst = auc_interval(odds, label, user=user), auc_interval(-odds, label, user=user)
    assert (best.value, best.high, worst.value, worst.low) == (1.0, 1.0, 0.0, 0.0)
    assert 0.3 < best.low < 0.95
    assert worst.high == pytest.approx(1 - best.low, abs=1e-9)
    assert best.method.startswith("Newcombe method 5")


def test_a_single_positive_or_user_gets_newcombe_too():
    odds, label = np.array([1.0, 2.0, 3.0, 0.0]), np.array([0, 1, 0, 0])
    for user in (None, np.zeros(4, int)):
        found = auc_interval(odds, label, user=user)
        assert found.low < found.value < found.high
        assert found.method.startswith("Newcombe")


def test_undefined_and_not_a_number():
    odds = np.array([1.0, 2.0])
    for user in (None, np.arange(2)):
        assert auc_interval(odds, np.zeros(2, np.int8), user=user).undefined == "no positives"
        assert auc_interval(odds, np.ones(2, np.int8), user=user).undefined == "no negatives"
        assert (
            auc_interval(odds[:0], np.zeros(0, np.int8), user=None if user is None else user[:0]).undefined == "no rows"
        )
        with pytest.raises(DataError, match="not_a_number"):
            auc_interval(np.array([np.nan, 1.0]), np.array([0, 1]), user=user)


def test_clustered_intervals_cover_where_independent_ones_do_not():
    users, each, replicas = 60, 10, 150
    rng = np.random.default_rng(11)
    user = np.repeat(np.arange(users), each)

    def draw(count):
        code = np.repeat(np.arange(count), each)
        shared = 0.9 * rng.normal(size=count)[code]
        odds = shared + 0.4 * rng.normal(size=count * each)
        share = 1 / (1 + np.exp(1.5 - odds - 1.2 * rng.normal(size=count)[code]))
        return odds, (rng.random(count * each) < share).astype(np.int8)

    truth = auc(*draw(100_000)).value
    clustered = independent = 0
    for _ in range(replicas):
        odds, label = draw(users)
        mine, alone = auc_interval(odds, label, user=user), auc_interval(odds, label)
        clustered += mine.low <= truth <= mine.high
        independent += alone.low <= truth <= alone.high
    assert clustered >= 131  # 95 % of 150 is 142.5; 130 or fewer has a chance under 2e-4
    assert independent < clustered - 15
