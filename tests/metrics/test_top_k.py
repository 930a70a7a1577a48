"""NDCG@K and Recall@K against a loop over users, ties by averaging over every order."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from postclick.errors import DataError
from postclick.metrics import ndcg, recall_at
from postclick.metrics.top_k import user_ndcg, user_recall


def dcg(gains, k):
    return sum(gain / np.log2(place + 2) for place, gain in enumerate(gains[:k]))


def plain(odds, gain, k):
    """NDCG@K and Recall@K of one user, averaged over the orders that its scores allow; None without a positive."""
    if not gain.sum() > 0:
        return None
    orders = [list(order) for order in permutations(range(len(odds))) if all(np.diff(odds[list(order)]) <= 0)]
    best = dcg(np.sort(gain)[::-1], k)
    lists = np.mean([dcg(gain[order], k) / best for order in orders])
    return lists, np.mean([gain[order][:k].sum() / gain.sum() for order in orders])


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6), st.integers(1, 4), st.booleans(), st.booleans())
def test_both_equal_a_loop_with_every_order_of_ties(seed, k, weighted, soft):
    random = np.random.default_rng(seed)
    rows = int(random.integers(1, 12))
    user = random.integers(0, 3, rows) * 2  # code 1 and 3 have no rows
    odds = random.integers(0, 3, rows).astype(np.float64)
    label = random.random(rows) if soft else random.integers(0, 2, rows)
    weight = random.random(rows) if weighted else None
    gain = label * (1.0 if weight is None else weight)
    found = [plain(odds[user == u], gain[user == u], k) for u in np.unique(user)]
    known = [each for each in found if each is not None]
    for place, metric in enumerate((ndcg, recall_at)):
        each = [value[place] for value in known]
        for empty, extra in (("skip", None), ("zero", 0.0), ("one", 1.0)):
            counted = each if extra is None else each + [extra] * (len(found) - len(known))
            estimate = metric(odds, label, user, k, weight, empty=empty)
            if counted:
                assert estimate.value == pytest.approx(np.mean(counted), abs=1e-12)
            else:
                assert (estimate.value, estimate.undefined) == (None, "no positives")


def test_a_case_by_hand():
    # user 0: positives at places 1 and 3 of 3; user 1: at place 2 of 2; user 2: none
    odds = np.array([3.0, 2.0, 1.0, 5.0, 4.0, 0.0])
    label, user = np.array([1, 0, 1, 0, 1, 0]), np.array([0, 0, 0, 1, 1, 2])
    best = 1 + 1 / np.log2(3)
    assert ndcg(odds, label, user, 2).value == pytest.approx((1 / best + 1 / np.log2(3)) / 2)
    assert recall_at(odds, label, user, 2).value == pytest.approx((1 / 2 + 1) / 2)
    assert recall_at(odds, label, user, 2, empty="zero").value == pytest.approx((1 / 2 + 1) / 3)
    assert recall_at(odds, label, user, 1).value == pytest.approx((1 / 2 + 0) / 2)
    means = user_recall(odds, label, user, 2)
    assert (means.users, means.empty, means.counted.tolist()) == (3, 1, [1, 1, 0])


def test_a_perfect_list_has_ndcg_one_and_order_of_rows_does_not_count():
    random = np.random.default_rng(1)
    user, label = random.integers(0, 20, 300), random.integers(0, 2, 300)
    assert ndcg(label.astype(float), label, user, 7).value == pytest.approx(1.0)
    odds, order = random.integers(0, 5, 300).astype(float), random.permutation(300)
    one, two = user_ndcg(odds, label, user, 5), user_ndcg(odds[order], label[order], user[order], 5)
    np.testing.assert_allclose(one.value, two.value, atol=1e-12)


def test_no_rows_and_scores_that_are_no_numbers():
    none = np.zeros(0)
    assert ndcg(none, none, np.zeros(0, int), 5).undefined == "no rows"
    with pytest.raises(DataError, match="cannot be ranked"):
        recall_at(np.array([np.nan]), np.array([1]), np.array([0]), 5)
