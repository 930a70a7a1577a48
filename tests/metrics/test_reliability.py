import numpy as np
import pytest

from postclick.metrics.reliability import clustered_squares, ece, reliability_table


def sample(seed=0, rows=4000, shift=0.0):
    rng = np.random.default_rng(seed)
    odds = rng.normal(-1.5, 1.0, rows)
    return odds + shift, (rng.random(rows) < 1 / (1 + np.exp(-odds))).astype(np.int8)


def test_ece_equals_a_loop_over_sorted_bins():
    odds, label = sample()
    order, share = np.argsort(odds), 1 / (1 + np.exp(-odds))
    total = 0.0
    for chunk in np.split(order, [4000 * k // 15 for k in range(1, 15)]):
        total += abs(share[chunk].sum() - label[chunk].sum())
    assert ece(odds, label).value == pytest.approx(total / 4000, rel=1e-12)


def test_bins_have_equal_mass_with_weights():
    odds, label = sample(1)
    weight = np.random.default_rng(0).uniform(0.5, 1.5, 4000)
    table = reliability_table(odds, label, weight, 10)
    assert table.mass == pytest.approx(np.full(10, weight.sum() / 10), abs=3.0)
    assert table.observed.sum() == pytest.approx((weight * label).sum())
    assert reliability_table(odds, label, np.ones(4000)).ece == pytest.approx(ece(odds, label).value)


def test_equal_scores_share_a_bin():
    odds, label = np.zeros(100), np.repeat([0, 1], 50)
    table = reliability_table(odds, label)
    assert len(table.mass) == 1
    assert ece(odds, label).value == 0.0


def test_null_band_holds_calibrated_scores_and_not_shifted_ones():
    inside = 0
    for seed in range(60):
        odds, label = sample(seed, 1500)
        found = ece(odds, label, seed=seed)
        inside += found.low <= found.value <= found.high
    assert inside >= 51  # 95 % of 60 is 57; 50 or fewer has a chance under 1e-3
    shifted = ece(*sample(0, 1500, shift=0.7))
    assert shifted.value > shifted.high
    assert "null band" in shifted.method


def test_the_band_of_weighted_rows_is_close_to_the_unweighted_one():
    odds, label = sample(2)
    plain, weighted = ece(odds, label), ece(odds, label, np.full(4000, 3.0))
    assert weighted.value == pytest.approx(plain.value)
    assert (weighted.low, weighted.high) == pytest.approx((plain.low, plain.high), rel=0.1)


def test_soft_labels_have_no_band_and_no_rows_no_value():
    odds, _ = sample()
    soft = ece(odds, 1 / (1 + np.exp(-odds)))
    assert soft.value == pytest.approx(0.0, abs=1e-12)
    assert soft.low is None
    assert ece(np.zeros(0), np.zeros(0)).undefined == "no rows"
    assert ece(np.zeros(2), np.ones(2), np.zeros(2)).undefined == "no rows"


def test_equal_seeds_give_equal_bits():
    assert ece(*sample(), seed=4) == ece(*sample(), seed=4)


def test_rates_by_hand_and_wider_where_a_user_s_rows_are_alike():
    odds = np.repeat([-2.0, 1.0], 100)
    label = np.concatenate([np.repeat([1, 0], [10, 90]), np.repeat([1, 0], [60, 40])])
    predicted, rate, low, high = reliability_table(odds, label, bins=2).rates()
    assert predicted == pytest.approx([1 / (1 + np.exp(2.0)), 1 / (1 + np.exp(-1.0))])
    assert rate.tolist() == [0.1, 0.6]
    # Wilson's interval of 10 in 100, from its formula
    z, n, p = 1.959964, 100, 0.1
    center, half = (p + z**2 / (2 * n)) / (1 + z**2 / n), z / (1 + z**2 / n) * np.sqrt(p * (1 - p) / n + z**2 / 4e4)
    assert (low[0], high[0]) == pytest.approx((center - half, center + half), rel=1e-5)
    blocks = np.concatenate([np.arange(100) // 10, np.arange(100) // 10])  # ten users, alike within
    _, _, wide_low, wide_high = reliability_table(odds, label, bins=2, unit=blocks).rates()
    assert wide_high[1] - wide_low[1] > 1.5 * (high[1] - low[1])
    # all of one class still has an interval
    _, none, floor, top = reliability_table(odds, np.zeros(200, np.int8), bins=2).rates()
    assert none.tolist() == [0.0, 0.0]
    assert floor.tolist() == pytest.approx([0.0, 0.0])
    assert top[0] == pytest.approx(z**2 / (n + z**2), rel=1e-4)


def test_rows_without_weight_make_no_bin():
    # the first bin's cut lies before the one row that carries everything
    odds, label, weight = np.array([-3.0, -2.0, 0.0, 1.0]), np.array([0, 1, 1, 0]), np.array([0.0, 0.0, 9.0, 1.0])
    table = reliability_table(odds, label, weight)
    assert table.mass.tolist() == [9.0, 1.0]
    assert all(np.isfinite(column).all() for column in table.rates())
    assert len(reliability_table(odds, label, 0.0 * weight).mass) == 0


def test_clustered_squares_equal_a_loop(monkeypatch):
    rng = np.random.default_rng(0)
    residual, code, unit = rng.normal(size=500), rng.integers(0, 4, 500), rng.integers(0, 30, 500)
    expected = [sum(residual[(code == each) & (unit == user)].sum() ** 2 for user in range(30)) for each in range(4)]
    assert clustered_squares(residual, code, unit, 4) == pytest.approx(expected)
    assert clustered_squares(residual, code, None, 4) == pytest.approx(np.bincount(code, residual**2))
    monkeypatch.setattr("postclick.metrics.reliability._DENSE_CELLS", 1)
    assert clustered_squares(residual, code, unit, 4) == pytest.approx(expected)


@pytest.mark.slow
def test_the_null_band_holds_95_percent_of_2000_replicas():
    inside = 0
    for seed in range(2000):
        found = ece(*sample(seed, 1500), seed=seed)
        inside += found.low <= found.value <= found.high
    # the exact 99.9 % binomial interval of the coverage contains .95 between 1867 and 1931
    assert 1867 <= inside <= 1931
