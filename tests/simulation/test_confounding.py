"""The hidden variable: its truth by brute force, its draws, and where the two CVRs part."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from postclick.simulation.chunks import CHUNK_ROWS, draw, draw_outcomes, plan, solve
from postclick.simulation.confounding import draw_hidden, funnel, states
from postclick.simulation.presets import Knobs

BASE = Knobs(ctr=0.2, cvr=0.15, unobserved_confounder=1.2)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def drawn(knobs: Knobs, exposures: int = CHUNK_ROWS, seed: int = 1):
    story = plan(knobs, exposures, seed)
    intercepts, chunk = solve(story), draw(story, 0)
    return intercepts, chunk, draw_outcomes(story, intercepts, chunk)


@settings(max_examples=40, deadline=None)
@given(st.floats(-8, 8), st.floats(-8, 8), st.floats(0.01, 4))
def test_the_truth_is_the_sum_over_both_states(click, conversion, weight):
    found = funnel(states(np.array([click]), weight), states(np.array([conversion]), weight))
    half = [(sigmoid(click + weight * z), sigmoid(conversion + weight * z)) for z in (-1, 1)]
    ctr, ctcvr = sum(p for p, _ in half) / 2, sum(p * q for p, q in half) / 2
    cvr = sum(q for _, q in half) / 2
    assert found.ctr[0] == pytest.approx(ctr, rel=1e-12)
    assert found.cvr_do[0] == pytest.approx(cvr, rel=1e-12)
    assert found.cvr_click[0] == pytest.approx(ctcvr / ctr, rel=1e-12)
    covariance = sum((p - ctr) * (q - cvr) for p, q in half) / 2
    assert found.cvr_click[0] - found.cvr_do[0] == pytest.approx(covariance / ctr, rel=1e-9, abs=1e-15)


def test_by_hand():
    # odds 3 and 1/3 in the two states: p and q are 3/4 and 1/4
    found = funnel(*(states(np.zeros(1), np.log(3.0)) for _ in range(2)))
    assert found.ctr[0] == pytest.approx(1 / 2, rel=1e-15)
    assert found.cvr_do[0] == pytest.approx(1 / 2, rel=1e-15)
    assert found.cvr_click[0] == pytest.approx((9 / 16 + 1 / 16) / 2 / (1 / 2), rel=1e-15)


def test_without_a_hidden_variable_the_two_cvrs_are_one_array():
    logit = np.array([-1.0, 0.5])
    assert states(logit, 0.0).shape == (1, 2)
    found = funnel(states(logit, 0.0), states(logit, 0.0))
    assert found.cvr_click is found.cvr_do
    np.testing.assert_allclose(found.ctr, sigmoid(logit), rtol=1e-14)


def test_a_world_s_truth_is_that_of_its_documented_equations_and_its_rates_are_hit():
    intercepts, chunk, found = drawn(BASE)
    p, q = (
        [sigmoid(logit + shift + 1.2 * z) for z in (-1, 1)]
        for logit, shift in ((chunk.click_logit, intercepts.click), (chunk.conversion_logit, intercepts.conversion))
    )
    np.testing.assert_allclose(found.ctr, (p[0] + p[1]) / 2, rtol=1e-12)
    np.testing.assert_allclose(found.cvr_do, (q[0] + q[1]) / 2, rtol=1e-12)
    np.testing.assert_allclose(found.ctcvr, (p[0] * q[0] + p[1] * q[1]) / 2, rtol=1e-12)
    np.testing.assert_array_equal(found.ctcvr, found.ctr * found.cvr_click)
    assert found.ctr.mean() == pytest.approx(0.2, rel=1e-9)
    assert found.ctcvr.sum() / found.ctr.sum() == pytest.approx(0.15, rel=1e-9)
    assert np.all(found.cvr_click > found.cvr_do)


def test_labels_agree_with_the_truth_within_binomial_error():
    _, _, found = drawn(BASE)
    click, conversion = found.click == 1, found.conversion == 1
    for label, p in ((click, found.ctr), (conversion, found.ctcvr), (conversion[click], found.cvr_click[click])):
        for part in np.array_split(np.argsort(p), 8):
            assert abs(label[part].sum() - p[part].sum()) < 4.5 * np.sqrt((p[part] * (1 - p[part])).sum())
    # what clicks tell is not what a click would do: the labels are far from cvr_do
    missed = conversion[click].sum() - found.cvr_do[click].sum()
    assert missed > 10 * np.sqrt((found.cvr_do * (1 - found.cvr_do))[click].sum())


def test_the_hidden_variable_is_a_fair_coin_that_no_logged_column_tells():
    z = draw_hidden(1.5, 40_000, np.random.default_rng(0))
    assert set(np.unique(z)) == {-1.5, 1.5}
    assert z.mean() == pytest.approx(0, abs=4 * 1.5 / 200)
    _, chunk, _ = drawn(BASE)
    hidden = draw_hidden(1.0, CHUNK_ROWS, np.random.default_rng([1, 11, 0]))
    for column in (chunk.user, chunk.item, chunk.web, chunk.position, chunk.click_logit, chunk.conversion_logit):
        assert np.corrcoef(hidden, column)[0, 1] == pytest.approx(0, abs=4 / CHUNK_ROWS**0.5)


def test_it_leaves_everything_that_is_logged_beside_the_labels():
    one, other = drawn(replace(BASE, unobserved_confounder=0.0))[1], drawn(BASE)[1]
    for name in ("user", "item", "time", "web", "position", "click_logit", "conversion_logit"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
