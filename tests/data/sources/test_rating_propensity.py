"""Propensities against their definitions, cell by cell, and against a regression of scikit-learn."""

import numpy as np
import pytest
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from postclick.data.sources.exposure_space import ExposureSpace, Pairs
from postclick.data.sources.rating_files import Ratings
from postclick.data.sources.rating_propensity import logistic, naive_bayes, popularity, slice_users

USERS, ITEMS = 30, 20


def drawn(seed=0, values=5):
    """A space whose users and items are rated with probabilities of their own, and higher ratings more often."""
    random = np.random.default_rng(seed)
    a, b = random.normal(size=USERS) - 1, random.normal(size=ITEMS)
    rating = random.integers(1, values + 1, (USERS, ITEMS))
    rated = random.random((USERS, ITEMS)) < expit(a[:, None] + b + rating - 3)
    user, item = np.nonzero(rated)
    space = ExposureSpace.of(Ratings(user, item, rating[user, item].astype(float)), extent=(USERS, ITEMS))
    return space, rated, rating


def whole(space):
    blocks = list(space.blocks())
    return Pairs(*(np.concatenate([getattr(b, name) for b in blocks]) for name in ("user", "item", "click", "value")))


def test_popularity_is_the_share_of_users():
    space, rated, _ = drawn()
    found = popularity(space)(whole(space)).reshape(USERS, ITEMS)
    for item in range(ITEMS):
        expected = (rated[:, item].sum() + rated.mean()) / (USERS + 1)
        np.testing.assert_allclose(found[:, item], expected, rtol=1e-12)
    everything = ExposureSpace.of(Ratings(np.array([0, 1]), np.array([0, 0]), np.ones(2)))
    np.testing.assert_array_equal(popularity(everything)(whole(everything)), 1.0)


def test_logistic_is_the_ridge_regression_on_user_and_item():
    space, rated, _ = drawn()
    found = logistic(space)(whole(space))
    user, item = np.divmod(np.arange(USERS * ITEMS), ITEMS)
    columns = np.concatenate([np.eye(USERS)[user], np.eye(ITEMS)[item]], axis=1)
    fit = LogisticRegression(C=1.0, tol=1e-10, max_iter=5000).fit(columns, rated.ravel())
    np.testing.assert_allclose(found, fit.predict_proba(columns)[:, 1], atol=1e-5)
    assert found.mean() == pytest.approx(rated.mean(), rel=1e-6)


def test_naive_bayes_is_bayes_rule_by_rating():
    space, rated, rating = drawn()
    random = np.random.default_rng(1).integers(1, 6, 60).astype(float)
    pairs = whole(space)
    found = naive_bayes(space, random, 3.0)(pairs).reshape(USERS, ITEMS)
    for level in range(1, 6):
        inside = rated & (rating == level)
        given = (inside.sum() + 1) / (rated.sum() + 5)
        expected = given * rated.mean() / ((np.sum(random == level) + 1) / 65)
        np.testing.assert_allclose(found[inside], min(expected, 1.0), rtol=1e-12)
    assert len(np.unique(found[~rated])) == 1
    assert found.mean() == pytest.approx(rated.mean(), rel=1e-9)


def test_many_different_ratings_count_by_the_side_of_the_threshold():
    space, rated, rating = drawn(values=5)
    noise = np.random.default_rng(2).random(len(space.value)) * 0.5
    measured = ExposureSpace(space.users, space.items, space.pair, space.value + noise, 0)
    random = np.random.default_rng(1).integers(1, 6, 60).astype(float)
    found = naive_bayes(measured, random, 3.0)(whole(measured)).reshape(USERS, ITEMS)
    high = rated & (rating >= 3)
    given, every = (high.sum() + 1) / (rated.sum() + 2), (np.sum(random >= 3) + 1) / 62
    np.testing.assert_allclose(found[high], given * rated.mean() / every, rtol=1e-12)
    assert len(np.unique(found)) == 3


def test_a_weighted_mean_of_ratings_is_that_of_random_items():
    """What naive Bayes is for: missing not at random by the rating itself."""
    random = np.random.default_rng(3)
    rating = random.choice([1, 2, 3, 4, 5], 40_000, p=[0.3, 0.3, 0.2, 0.1, 0.1]).astype(float)
    rated = random.random(40_000) < np.array([0, 0.05, 0.05, 0.1, 0.3, 0.5])[rating.astype(int)]
    user, item = np.divmod(np.flatnonzero(rated), 200)
    space = ExposureSpace.of(Ratings(user, item, rating[rated]), extent=(200, 200))
    weight = 1 / naive_bayes(space, random.choice(rating, 3000), 3.0)(
        Pairs(user, item, np.ones(len(user), bool), rating[rated])
    )
    assert (rating[rated] >= 3).mean() > 0.7
    assert (weight * (rating[rated] >= 3)).sum() / len(rating) == pytest.approx((rating >= 3).mean(), abs=0.03)


def test_the_slice_is_a_twentieth_of_the_users_rounded_up_and_always_the_same():
    users = np.repeat(np.arange(290), 16)
    chosen = slice_users(users)
    assert len(chosen) == 15
    np.testing.assert_array_equal(chosen, slice_users(np.random.default_rng(0).permutation(users)))
    assert len(slice_users(np.array([7, 7]))) == 1
