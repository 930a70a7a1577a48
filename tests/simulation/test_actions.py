"""The action stage: its equations, its rates, and that each knob moves what it names and nothing else."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from postclick.simulation.actions import ActionIntercepts, Paths, action_logit, draw_actions, paths, solve_actions
from postclick.simulation.chunks import CHUNK_ROWS, draw, draw_outcomes, plan, solve
from postclick.simulation.presets import Knobs

BASE = Knobs(action_rate=0.4, purchase_without_action=0.3, ctr=0.2, cvr=0.15)


def drawn(knobs: Knobs, exposures: int = 30_000, seed: int = 1):
    story = plan(knobs, exposures, seed)
    chunk = draw(story, 0)
    return chunk, draw_outcomes(story, solve(story), chunk)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_the_logits_and_the_truth_are_those_of_the_documented_equations():
    knobs = replace(BASE, action_strength=0.6, action_spread=0.9, user_effect=0.5, action_outside_window=0.2)
    knobs = replace(knobs, purchase_outside_window=0.1, orphan_actions=0.03)
    story = plan(knobs, 400, seed=2)
    chunk, intercepts = draw(story, 0), solve(story)
    true = draw_outcomes(story, intercepts, draw(story, 0)).behaviour
    users, items, d = story.population.users, story.population.items, intercepts.actions
    for i in range(0, 400, 25):
        u, v = chunk.user[i], chunk.item[i]
        c = (chunk.conversion_logit[i] - 0.5 * users.own_conversion[u]) / 1.1
        logit = 0.6 * c + 0.9 * (users.action[u] + items.action[v]) / 2**0.5
        assert chunk.action_logit[i] == pytest.approx(logit)
        act = sigmoid(logit + d.act)
        after, without = (sigmoid(chunk.conversion_logit[i] + shift) for shift in (d.after, d.without))
        ctr = sigmoid(chunk.click_logit[i] + intercepts.click)
        seen = act * 0.8
        assert true.action[i] == pytest.approx(seen)
        assert true.ctar[i] == pytest.approx(ctr * seen)
        assert true.cvr_given_action[i] == pytest.approx(0.9 * after)
        assert true.cvr_given_other[i] == pytest.approx(
            0.9 * (act * 0.2 * after + (1 - act) * without) / (act * 0.2 + 1 - act)
        )
        assert true.cvr_given_any_action[i] == pytest.approx(ctr * seen * 0.9 * after / (ctr * seen + (1 - ctr) * 0.03))
        assert true.purchase_given_action[i] == pytest.approx(after)


@settings(max_examples=20, deadline=None)
@given(
    st.floats(0.3, 0.8),
    st.floats(0.0, 1.0),
    st.floats(0.01, 0.15),
    st.floats(0.0, 0.4),
    st.integers(1, 2_000),
    st.data(),
)
def test_intercepts_hit_every_rate_of_the_very_log(rate, without, cvr, lost, exposures, data):
    knobs = Knobs(action_rate=rate, purchase_without_action=without, cvr=cvr, purchase_outside_window=lost)
    knobs = replace(knobs, action_strength=data.draw(st.floats(-1, 2)))
    story = plan(knobs, exposures, seed=3)
    intercepts, chunk = solve(story), draw(story, 0)
    share = sigmoid(chunk.click_logit + intercepts.click)
    share /= share.sum()
    true = paths(intercepts.actions, chunk.action_logit, chunk.conversion_logit)
    assert share @ true.act == pytest.approx(rate, rel=1e-9)
    after, other = (1 - lost) * share @ (true.act * true.after), (1 - lost) * share @ ((1 - true.act) * true.without)
    assert after == pytest.approx((1 - without) * cvr, rel=1e-9, abs=1e-12)
    assert other == pytest.approx(without * cvr, rel=1e-9, abs=1e-12)


def test_a_path_without_conversions_has_probability_zero():
    share, logit = np.full(4, 0.25), np.array([-1.0, 0.0, 1.0, 2.0])
    none_without = solve_actions(Knobs(action_rate=0.5), share, logit, logit)
    assert np.all(paths(none_without, logit, logit).without == 0.0)
    none_after = solve_actions(Knobs(action_rate=0.5, purchase_without_action=1.0), share, logit, logit)
    assert np.all(paths(none_after, logit, logit).after == 0.0)


def test_labels_agree_with_the_truth_within_binomial_error():
    knobs = replace(BASE, action_outside_window=0.3, purchase_outside_window=0.2, orphan_actions=0.05)
    _, found = drawn(knobs, CHUNK_ROWS)
    click, action, bought = found.click == 1, found.action == 1, found.conversion == 1
    true = found.behaviour
    for label, p in (
        (action[click], true.action[click]),
        (bought[click], found.cvr_do[click]),
        (bought[click & action], true.cvr_given_action[click & action]),
        (bought[click & ~action], true.cvr_given_other[click & ~action]),
        (bought[action], true.cvr_given_any_action[action]),
        (action[~click], np.full(int((~click).sum()), 0.05)),
    ):
        assert abs(label.sum() - p.sum()) < 4 * np.sqrt((p * (1 - p)).sum())
        order = np.argsort(p)
        for part in np.array_split(order, 5):
            assert abs(label[part].sum() - p[part].sum()) < 4.5 * np.sqrt((p[part] * (1 - p[part])).sum())


def test_users_items_exposures_and_clicks_are_those_of_the_world_without_actions():
    plain, found = drawn(replace(BASE, action_rate=0.0, purchase_without_action=0.0)), drawn(BASE)
    for name in ("user", "item", "time", "position", "click_logit", "conversion_logit"):
        np.testing.assert_array_equal(getattr(plain[0], name), getattr(found[0], name))
    np.testing.assert_array_equal(plain[1].click, found[1].click)
    np.testing.assert_array_equal(plain[1].ctr, found[1].ctr)
    assert plain[1].action is None
    assert plain[1].behaviour is None
    assert plain[0].action_logit is None


LABELS = ("click", "conversion", "action")
TRUTH = ("action", "cvr_given_action", "cvr_given_other", "cvr_given_any_action", "purchase_given_action")
EVERY = {f"true:{name}" for name in TRUTH}


def moved(one, other) -> set[str]:
    found = {name for name in LABELS if not np.array_equal(getattr(one, name), getattr(other, name))}
    found |= {"ctr"} if not np.array_equal(one.ctr, other.ctr) else set()
    found |= {"cvr_do"} if not np.allclose(one.cvr_do, other.cvr_do, rtol=1e-9, atol=0) else set()
    pairs = ((name, getattr(one.behaviour, name), getattr(other.behaviour, name)) for name in TRUTH)
    return found | {f"true:{name}" for name, a, b in pairs if not np.allclose(a, b, rtol=1e-9, atol=0)}


@pytest.mark.parametrize(
    ("knob", "value", "moves"),
    [
        ("action_rate", 0.6, {"action", "conversion", "cvr_do", *EVERY}),
        ("action_strength", 0.0, {"action", "conversion", "cvr_do", *EVERY}),
        ("action_spread", 1.5, {"action", "conversion", "cvr_do", *EVERY}),
        ("purchase_without_action", 0.6, {"conversion", "cvr_do", *EVERY} - {"true:action"}),
        ("action_outside_window", 0.3, {"action", "true:action", "true:cvr_given_other"}),
        ("purchase_outside_window", 0.3, {"conversion", "cvr_do", *EVERY} - {"true:action"}),
        ("orphan_actions", 0.1, {"action", "true:cvr_given_any_action"}),
    ],
)
def test_each_knob_moves_what_it_names_and_nothing_else(knob, value, moves):
    one, other = drawn(BASE)[1], drawn(replace(BASE, **{knob: value}))[1]
    assert moved(one, other) == moves
    if knob == "action_outside_window":
        assert not np.any(other.action > one.action)
    if knob == "orphan_actions":
        np.testing.assert_array_equal(one.action[one.click == 1], other.action[other.click == 1])


def test_strength_is_how_strongly_an_action_tells_of_a_purchase():
    def lift(strength):
        _, found = drawn(replace(BASE, action_strength=strength, action_spread=0.5), CHUNK_ROWS)
        return np.corrcoef(found.behaviour.action, found.behaviour.purchase_given_action)[0, 1]

    assert lift(0.0) == pytest.approx(0.0, abs=0.05)
    assert lift(1.5) > 0.8
    assert lift(-1.5) < -0.8


def test_a_draw_depends_on_its_own_knob_alone():
    true = Paths(np.full(1_000, 0.5), np.full(1_000, 0.5), np.full(1_000, 0.1))
    one, other = (
        draw_actions(knobs, true, np.random.default_rng(0))
        for knobs in (BASE, replace(BASE, action_outside_window=0.5, orphan_actions=0.5))
    )
    np.testing.assert_array_equal(one.acts, other.acts)
    np.testing.assert_array_equal(one.purchase_logged, other.purchase_logged)
    assert one.action_logged.all()
    assert not one.orphan.any()
    assert other.action_logged.mean() == pytest.approx(0.5, abs=0.06)
    assert other.orphan.mean() == pytest.approx(0.5, abs=0.06)


def test_the_logit_is_zero_where_its_weights_are():
    story = plan(replace(BASE, action_strength=0.0, action_spread=0.0), 50, seed=0)
    chunk = draw(story, 0)
    np.testing.assert_array_equal(chunk.action_logit, np.zeros(50))
    logit = action_logit(story.population, story.knobs, chunk.user, chunk.item, np.ones(50))
    np.testing.assert_array_equal(logit, np.zeros(50))
    act = paths(ActionIntercepts(0.5, 0.0, 0.0), logit, logit).act
    np.testing.assert_allclose(act, sigmoid(0.5))
