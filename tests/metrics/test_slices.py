"""Calibration by slices."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import gamma, nbinom

from postclick.metrics import field_rce, holm, shrunken, slice_sums
from postclick.metrics.slices import SliceSums


def sigmoid(odds):
    return 1 / (1 + np.exp(-odds))


def drawn(rows=6000, slices=20, seed=0, off=None):
    """Calibrated scores in slices, but for slice `off`, which converts half as often again."""
    rng = np.random.default_rng(seed)
    odds, code = rng.normal(-1.5, 0.7, rows), rng.integers(0, slices, rows)
    chance = np.where(code == off, np.minimum(1.5 * sigmoid(odds), 1.0), sigmoid(odds))
    return odds, (rng.random(rows) < chance).astype(np.int8), code


def test_sums_equal_a_loop():
    odds, label, code = drawn(300, 4)
    rng = np.random.default_rng(1)
    weight, user = rng.uniform(0.5, 2.0, 300), rng.integers(0, 40, 300)
    found = slice_sums(odds, label, code, weight, user)
    for each in range(4):
        mine = code == each
        q, p, w = sigmoid(odds[mine]), label[mine], weight[mine]
        assert found.rows[each] == mine.sum()
        assert (found.mass[each], found.predicted[each]) == pytest.approx((w.sum(), (w * q).sum()))
        assert (found.observed[each], found.square[each]) == pytest.approx(((w * p).sum(), (w**2 * p).sum()))
        assert found.spread[each] == pytest.approx((w**2 * q * (1 - q)).sum())
        parts = [(w * (q - p))[user[mine] == one].sum() for one in range(40)]
        assert found.clustered[each] == pytest.approx(np.sum(np.square(parts)))


def test_field_rce_by_hand():
    odds = np.log(np.array([0.2, 0.4, 0.5, 0.5]) / (1 - np.array([0.2, 0.4, 0.5, 0.5])))
    label, code = np.array([0, 1, 1, 1]), np.array([0, 0, 1, 1])
    found = field_rce(slice_sums(odds, label, code), label)
    assert found.value == pytest.approx(0.5 * 0.4 / 1.01 + 0.5 * 1.0 / 2.01)
    assert "2 slices" in found.method
    assert field_rce(slice_sums(odds[:0], label[:0], code[:0]), label[:0]).undefined == "no rows"
    soft = field_rce(slice_sums(odds, sigmoid(odds), code), sigmoid(odds))
    assert (soft.value, soft.low) == (pytest.approx(0.0), None)


def test_field_rce_of_calibrated_scores_lies_in_its_null_band_and_of_shifted_ones_above():
    inside = 0
    for seed in range(60):
        odds, label, code = drawn(seed=seed)
        found = field_rce(slice_sums(odds, label, code), label, seed=seed)
        inside += found.low <= found.value <= found.high
    assert inside >= 51
    odds, label, code = drawn()
    shifted = field_rce(slice_sums(odds + 0.5, label, code), label)
    assert shifted.value > shifted.high


def test_one_slice_that_is_off_is_found_and_calibrated_ones_are_not():
    odds, label, code = drawn(off=7, rows=20_000)
    p = holm(slice_sums(odds, label, code).p.tolist())
    assert np.flatnonzero(p < 0.05).tolist() == [7]


def test_holm_errs_in_one_family_of_twenty_and_the_unadjusted_test_in_most():
    wrong = np.zeros(2)
    for seed in range(200):
        odds, label, code = drawn(seed=seed)
        p = slice_sums(odds, label, code).p
        wrong += [np.nanmin(holm(p.tolist())) < 0.05, np.nanmin(p) < 0.05]
    assert wrong[0] <= 20  # 10 expected
    assert wrong[1] > 100  # the planted twin: 1 - 0.95^20 = 64 %


def test_alike_rows_of_a_user_count_as_few():
    rng = np.random.default_rng(0)
    user = np.repeat(np.arange(200), 50)
    taste = rng.normal(0.0, 1.0, 200)
    odds, code = np.full(10_000, -1.0), np.repeat(np.arange(10), 1000)
    label = (rng.random(10_000) < sigmoid(-1.0 + taste[user])).astype(np.int8)
    alone, clustered = (slice_sums(odds, label, code, None, unit) for unit in (None, user))
    assert (clustered.variance > 3 * alone.variance).all()
    assert np.nanmin(alone.p) < 1e-4
    assert np.nanmin(clustered.p) > 1e-3


def test_slices_with_few_positives_are_not_tested():
    odds, label, code = drawn(rows=400, slices=20)
    found = slice_sums(odds, label, code)
    few = found.observed < 10
    assert few.any()
    assert np.isnan(found.p[few]).all()
    ratio, low, _ = found.pcoc(0.95)
    assert np.isnan(low[few]).all()
    seen = found.observed > 0
    assert ratio[seen] == pytest.approx(found.predicted[seen] / found.observed[seen])
    # five rows of weight 10 are not 50 positives
    heavy = slice_sums(np.zeros(10), np.repeat([0, 1], 5), np.zeros(10, int), np.full(10, 10.0))
    assert not heavy.tested[0]


def test_intervals_of_pcoc_cover():
    hits = total = 0
    for seed in range(100):
        odds, label, code = drawn(seed=seed, slices=10)
        _, low, high = slice_sums(odds, label, code).pcoc(0.95)
        hits, total = hits + int(((low <= 1) & (high >= 1)).sum()), total + 10
    assert 0.93 * total <= hits <= 0.97 * total


def counted(predicted, observed, variance):
    """Slices with given counts, whatever rows they came of."""
    p, o, v = (np.array(column, float) for column in (predicted, observed, variance))
    return SliceSums(o, o, p, o, o, v, v)


def test_the_interval_of_pcoc_by_hand():
    # |p - t o| <= z sqrt(t v) at its border: o^2 t^2 - (2 p o + z^2 v) t + p^2 = 0
    low, high = np.roots([20.0**2, -(2 * 36 * 20 + 1.959964**2 * 54.8), 36.0**2])[::-1]
    found = counted([36], [20], [54.8]).pcoc(0.95)
    assert [column[0] for column in found] == pytest.approx([1.8, low, high], rel=1e-6)
    assert found[1][0] * found[2][0] == pytest.approx(1.8**2)


def test_the_interval_leaves_out_1_exactly_where_the_test_rejects():
    # PCOC 1.80 whose residual is over 2 of its standard errors: by log(36 / 20) / (sqrt(v) / 20) it were 1.6 of them
    border = counted([36, 36], [20, 20], [16**2 / 2.0**2, 16**2 / 1.9**2])
    assert (border.p < 0.05).tolist() == [True, False]
    assert (border.pcoc(0.95)[1] > 1.0).tolist() == [True, False]
    rng = np.random.default_rng(0)
    many = counted(rng.uniform(10, 60, 2000), rng.uniform(10, 60, 2000), rng.uniform(5, 200, 2000))
    for level in (0.95, 0.9995):
        _, low, high = many.pcoc(level)
        outside = (low > 1.0) | (high < 1.0)
        assert np.array_equal(outside, many.p < 1.0 - level)
        assert 0 < outside.sum() < 2000


def gamma_poisson(slices=300, shape=8.0, seed=0):
    rng = np.random.default_rng(seed)
    expected = rng.gamma(1.0, 12.0, slices) + 0.5
    rate = rng.gamma(shape, 1.25 / shape, slices)
    observed = rng.poisson(rate * expected).astype(float)
    ones = np.zeros(slices)
    return SliceSums(ones + 1, expected, expected, observed, observed, expected, expected), rate


def test_shrinkage_is_the_marginal_optimum_that_scipy_finds():
    sums, _ = gamma_poisson()

    def surprise(point):
        mean, shape = np.exp(point)
        return -nbinom.logpmf(sums.observed, shape, shape / (shape + mean * sums.predicted)).sum()

    mean, shape = np.exp(minimize(surprise, [0.0, 1.0], method="Nelder-Mead", options={"xatol": 1e-6}).x)
    found = shrunken(sums)
    assert found.center == pytest.approx(1 / mean, rel=1e-3)
    assert found.spread == pytest.approx(1 / np.sqrt(shape), rel=1e-2)
    posterior = gamma(shape + sums.observed, scale=1 / (shape / mean + sums.predicted))
    assert found.value == pytest.approx(1 / posterior.mean(), rel=5e-3)
    assert found.low == pytest.approx(1 / posterior.ppf(0.975), rel=5e-3)


def test_shrunken_ratios_are_nearer_the_truth_and_their_intervals_cover():
    sums, rate = gamma_poisson(1000)
    found = shrunken(sums)
    plain = (sums.observed + 0.5) / (sums.predicted + 0.5)
    assert np.mean((1 / found.value - rate) ** 2) < 0.7 * np.mean((plain - rate) ** 2)
    assert np.mean((found.low <= 1 / rate) & (1 / rate <= found.high)) == pytest.approx(0.95, abs=0.03)


def test_slices_without_differences_are_drawn_together_and_none_without_positives():
    sums, _ = gamma_poisson(shape=1e6)
    found = shrunken(sums)
    assert found.spread < 0.1
    assert np.std(found.value) < 0.05
    empty = np.zeros(3)
    assert shrunken(SliceSums(empty + 9, empty + 9, empty + 1, empty, empty, empty + 1, empty + 1)) is None
    assert shrunken(SliceSums(*(np.ones(1),) * 7)) is None
