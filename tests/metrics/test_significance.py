import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from postclick.metrics.influence import Influence, influence
from postclick.metrics.significance import (
    Contrast,
    Distance,
    contrast,
    holm,
    letters,
    needed,
    satterthwaite,
    student_cdf,
    student_quantile,
)


def sample(seed=0, rows=80, users=12):
    rng = np.random.default_rng(seed)
    user = np.concatenate([np.arange(users), rng.integers(0, users, rows - users)])
    label = (rng.random(rows) < 0.4).astype(np.int8)
    scores = np.round(rng.normal(size=(4, rows)) + 0.7 * label, 1)
    return scores, label, user


def placements(odds, label):
    """All pairs, ties half: V10 of each positive, V01 of each negative."""
    x, y = odds[label == 1][:, None], odds[label == 0][None, :]
    kernel = (x > y) + 0.5 * (x == y)
    return kernel.mean(axis=1), kernel.mean(axis=0), kernel.mean()


def test_paired_auc_variance_equals_delongs_direct_formula():
    scores, label, _ = sample()
    (v10, v01, one), (w10, w01, other) = (placements(odds, label) for odds in scores[:2])
    m, n = len(v10), len(v01)
    expected = np.var(v10 - w10, ddof=1) / m + np.var(v01 - w01, ddof=1) / n
    found = contrast(*([influence("auc", odds, label)] for odds in scores[:2]))
    assert found.value == pytest.approx(one - other, abs=1e-14)
    assert found.variance == pytest.approx(expected, rel=1e-10)
    assert found.seed_variance == 0.0


def obuchowski_covariance(odds, more, label, user):
    """Obuchowski (1997), the covariance of two clustered AUCs by loops over clusters."""
    (v10, v01, one), (w10, w01, other) = (placements(column, label) for column in (odds, more))
    m, n = len(v10), len(v01)
    up, down = user[label == 1], user[label == 0]
    s10 = s01 = s11 = s21 = 0.0
    for code in set(user.tolist()):
        x, x2 = (v10[up == code] - one).sum(), (w10[up == code] - other).sum()
        z, z2 = (v01[down == code] - one).sum(), (w01[down == code] - other).sum()
        s10, s01, s11, s21 = s10 + x * x2, s01 + z * z2, s11 + x * z2, s21 + x2 * z
    i10, i01, i = len(set(up.tolist())), len(set(down.tolist())), len(set(user.tolist()))
    cross = i / (i - 1) * (s11 + s21) / (m * n)
    return i10 / (i10 - 1) * s10 / m**2 + i01 / (i01 - 1) * s01 / n**2 + cross


def test_clustered_and_seed_averaged_auc_variance_equals_the_direct_formula():
    """Two seeds a system: the seed-mean difference is (a1 + a2 - b1 - b2) / 2, sixteen covariances."""
    scores, label, user = sample()
    found = contrast(*([influence("auc", odds, label, unit=user) for odds in scores[k : k + 2]] for k in (0, 2)))
    cov = np.array([[obuchowski_covariance(s, t, label, user) for t in scores] for s in scores])
    weights = np.array([1, 1, -1, -1]) / 2
    whole = weights @ cov @ weights
    pairs = [np.array([1, 0, -1, 0]), np.array([0, 1, 0, -1])]
    interaction = np.mean([pair @ cov @ pair for pair in pairs]) - whole
    values = [placements(odds, label)[2] for odds in scores]
    gaps = np.array([values[0] - values[2], values[1] - values[3]])
    assert found.value == pytest.approx(gaps.mean(), abs=1e-14)
    assert found.seed_variance == pytest.approx(gaps.var(ddof=1) / 2, rel=1e-10)
    assert found.seed_df == 1
    assert found.test_variance == pytest.approx(max(0.0, whole - interaction), rel=1e-9, abs=1e-18)


def test_log_loss_difference_by_users_by_hand():
    """Three users, one row each: losses 1, 2, 6 less 0, 2, 1: differences 1, 0, 5."""
    one, other = (
        Influence.single(c.mean(), (c - c.mean()) / 3) for c in (np.array([1.0, 2, 6]), np.array([0.0, 2, 1]))
    )
    found = contrast([one], [other])
    assert found.value == pytest.approx(2.0)
    assert found.variance == pytest.approx(7.0 / 3.0)  # sample variance (1 + 4 + 9) / 2 = 7, over 3 users


def linear(values):
    """Influences of means: [S, U] what each user contributes under each seed."""
    return [Influence.single(row.mean(), (row - row.mean()) / len(row)) for row in values]


def test_unequal_numbers_of_seeds_add_their_variances():
    rng = np.random.default_rng(0)
    one, other = linear(rng.normal(size=(3, 50))), linear(rng.normal(size=(5, 50)))
    a, b = (np.array([entry.value for entry in side]) for side in (one, other))
    found = contrast(one, other)
    expected = stats.ttest_ind(a, b, equal_var=False)
    assert found.value == pytest.approx(a.mean() - b.mean())
    assert found.seed_variance == pytest.approx(a.var(ddof=1) / 3 + b.var(ddof=1) / 5)
    assert found.seed_df == pytest.approx(expected.df)
    single = contrast(one, other[:1])
    assert single.seed_variance == pytest.approx(a.var(ddof=1) / 3)


@pytest.mark.parametrize("common", [0.0, 1.0])
def test_users_that_like_one_seed_are_not_counted_twice(common):
    """Seeds and users crossed, with interaction: the variance is right on average; the plain sum is too large."""
    rng, seeds, users, plain, mine, gaps = np.random.default_rng(3), 5, 40, [], [], []
    for _ in range(2000):
        table = common * rng.normal(size=users) + 0.1 * rng.normal(size=(seeds, 1)) + rng.normal(size=(seeds, users))
        found = contrast(linear(table), linear(np.zeros((seeds, users))))
        gaps.append(found.value)
        mine.append(found.variance)
        plain.append(found.seed_variance + table.mean(axis=0).var(ddof=1) / users)
    expected = (common**2 + 1 / seeds) / users + 0.1**2 / seeds
    assert np.var(gaps) == pytest.approx(expected, rel=0.15)
    assert np.mean(mine) == pytest.approx(expected, rel=0.1)
    assert np.mean(plain) - np.mean(mine) == pytest.approx(1 / seeds / users, rel=0.15)  # the floor at 0


def test_satterthwaite_by_hand():
    # (4 + 2)^2 / (16 / 2 + 4 / 4) = 36 / 9
    assert satterthwaite((4.0, 2.0), (2.0, 4.0)) == pytest.approx(4.0)
    assert satterthwaite((0.0, 2.0), (math.inf, 7.0)) == pytest.approx(7.0)
    assert satterthwaite((), ()) == math.inf
    # 3 seeds: the weight of the seed part is 1 + 3 / 2: (10 + 2)^2 / (100 / 2 + 4 / 4)
    assert Contrast(1.0, 4.0, 2.0, 2.0, 4.0).df == pytest.approx(144 / 51)
    assert Contrast(1.0, 4.0, 0.0, 2.0, 4.0).df == pytest.approx(2.0)


def test_the_raised_weight_of_few_seeds_covers_where_plain_satterthwaite_does_not():
    """Three seeds that carry nine tenths of the variance: 92 % before, 94 % after (docs/comparison.md)."""
    rng, draws, raised, plain = np.random.default_rng(0), 20_000, 0, 0
    parts = 0.9 * rng.chisquare(2, draws) / 2, 0.1 * rng.chisquare(100, draws) / 100
    for value, seed, test in zip(rng.normal(size=draws), *parts, strict=True):
        raised += Contrast(value, seed, test, 2.0, 100.0).p >= 0.05
        df = satterthwaite((seed, test), (2.0, 100.0))
        plain += abs(value) <= student_quantile(df, 0.05) * math.sqrt(seed + test)
    assert 0.935 < raised / draws < 0.955
    assert plain / draws < 0.93


def test_degrees_of_freedom_of_the_test_part_count_the_users_that_matter():
    rng = np.random.default_rng(0)
    even = contrast(linear(rng.normal(size=(1, 4000))), linear(np.zeros((1, 4000))))
    assert even.test_df == pytest.approx(4000, rel=0.15)
    few = np.zeros((1, 4000))
    few[0, :3] = [1.0, 1.0, -2.0]
    # sum x^4 / (sum x^2)^2 = (1 + 1 + 16) / 36 = 1 / 2
    assert contrast(linear(few), linear(np.zeros((1, 4000)))).test_df == pytest.approx(2 / (0.5 - 1 / 4000), rel=1e-3)


def test_p_and_interval_agree_and_follow_student():
    found = Contrast(2.5, 0.0, 1.0, math.inf, 10.0)
    assert found.p == pytest.approx(2 * stats.t.sf(2.5, 10), rel=1e-9)
    low, high = found.interval(0.95)
    assert (low, high) == pytest.approx((2.5 - stats.t.ppf(0.975, 10), 2.5 + stats.t.ppf(0.975, 10)), rel=1e-9)
    assert found.interval(1 - found.p)[0] == pytest.approx(0.0, abs=1e-9)
    assert student_quantile(math.inf, 0.05) == pytest.approx(stats.norm.ppf(0.975), rel=1e-6)
    assert student_cdf(math.inf, -1.96) == pytest.approx(stats.norm.cdf(-1.96), rel=1e-6)


def test_no_variance_is_an_answer():
    none = contrast(linear(np.full((1, 5), 2.0)), linear(np.full((1, 5), 2.0)))
    assert (none.value, none.p, none.interval(0.95)) == (0.0, 1.0, (0.0, 0.0))
    sure = contrast(linear(np.full((1, 5), 3.0)), linear(np.full((1, 5), 2.0)))
    assert (sure.value, sure.p, sure.interval(0.95)) == (1.0, 0.0, (1.0, 1.0))
    alone = contrast(linear(np.ones((1, 1))), linear(np.zeros((1, 1))))
    assert math.isnan(alone.p)
    assert all(math.isnan(end) for end in alone.interval(0.95))


def test_distance_from_calibration_by_hand():
    """log PCOC 0.5 against -0.2: difference 0.7, sum 0.3, distance 0.3."""
    found = Distance(Contrast(0.7, 0, 0.01, math.inf, math.inf), Contrast(0.3, 0, 0.04, math.inf, math.inf))
    assert found.value == pytest.approx(0.3)
    assert found.limiting is found.total
    assert found.p == found.total.p
    d, s = found.difference.interval(0.95), found.total.interval(0.95)
    assert found.interval(0.95) == pytest.approx((s[0], min(d[1], s[1])))


@given(st.lists(st.tuples(st.floats(-1, 1), st.floats(0.01, 0.5)), min_size=2, max_size=2))
def test_the_interval_of_a_distance_is_the_image_of_the_box(parts):
    found = Distance(*(Contrast(value, 0.0, spread**2, math.inf, math.inf) for value, spread in parts))
    low, high = found.interval(0.95)
    grids = [np.linspace(*part.interval(0.95), 81) for part in (found.difference, found.total)]
    d, s = np.meshgrid(*grids)
    image = np.abs((d + s) / 2) - np.abs((s - d) / 2)
    assert low <= image.min() + 1e-12
    assert high >= image.max() - 1e-12
    assert image.min() - low < 0.05
    assert high - image.max() < 0.05
    assert (low <= 0 <= high) == (found.p >= 0.05 - 1e-9)


def test_holm_by_hand():
    """Holm (1979): 0.01 x 4, 0.02 x 3, 0.03 x 2 (held at 0.06), 0.9 x 1; nan is no test."""
    assert holm([0.03, 0.01, math.nan, 0.9, 0.02])[[0, 1, 3, 4]] == pytest.approx([0.06, 0.04, 0.9, 0.06])
    assert math.isnan(holm([math.nan])[0])
    assert holm([]).size == 0


def test_needed_rows_and_seeds_by_hand():
    t = student_quantile(math.inf, 0.05)
    half = 3.0 * 0.1  # the half width is three times the difference: nine times the rows
    found = needed(Contrast(0.1, 0.0, (half / t) ** 2, math.inf, math.inf), 0.05)
    assert found.rows == pytest.approx(8.0)
    assert found.seeds == 0.0
    # (d / t)^2 = 1: rows shrink 3 to 1 - 0.5
    assert needed(Contrast(t, 0.5, 3.0, math.inf, math.inf), 0.05).rows == pytest.approx(5.0)
    seeds = needed(Contrast(t, 3.0, 0.5, math.inf, math.inf), 0.05)
    assert (seeds.rows, seeds.seeds) == (0.0, pytest.approx(5.0))
    both = needed(Contrast(t, 3.0, 1.5, math.inf, math.inf), 0.05)
    assert (both.rows, both.seeds) == pytest.approx((3.5, 3.5))
    assert needed(Contrast(0.0, 0.0, 1.0, math.inf, math.inf), 0.05) is None
    assert needed(Contrast(1.0, 0.0, 0.0, math.inf, math.inf), 0.05) is None


def matrix(size, *pairs):
    apart = np.zeros((size, size), bool)
    for one, other in pairs:
        apart[one, other] = apart[other, one] = True
    return apart


def test_letters_by_hand():
    assert letters(matrix(3)) == ["a", "a", "a"]
    assert letters(matrix(3, (0, 2))) == ["a", "ab", "b"]
    assert letters(matrix(3, (0, 1), (0, 2), (1, 2))) == ["a", "b", "c"]
    assert letters(matrix(4, (0, 2), (0, 3), (1, 3))) == ["a", "ab", "bc", "c"]
    many = letters(~np.eye(27, dtype=bool))
    assert (many[0], many[25], many[26]) == ("a", "z", "a1")
    assert letters(matrix(0)) == []


@given(st.integers(1, 7).flatmap(lambda size: st.tuples(st.just(size), st.sets(st.tuples(*[st.integers(0, 6)] * 2)))))
def test_systems_share_a_letter_exactly_where_they_cannot_be_told_apart(drawn):
    size, pairs = drawn
    apart = matrix(size, *((i, j) for i, j in pairs if i != j and max(i, j) < size))
    found = letters(apart)
    for one in range(size):
        for other in range(one):
            assert bool(set(found[one]) & set(found[other])) == (not apart[one, other])
