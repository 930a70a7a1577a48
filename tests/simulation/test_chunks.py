from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from postclick.simulation.chunks import CHUNK_ROWS, draw, draw_outcomes, plan, solve
from postclick.simulation.presets import PRESETS, Knobs


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_the_logits_are_those_of_the_documented_equations():
    knobs = Knobs(user_effect=0.7, underspecification=0.3, correlation=0.4)
    story = plan(knobs, 500, seed=2)
    chunk = draw(story, 0)
    users, items = story.population.users, story.population.items
    for i in range(0, 500, 25):
        u, v, web = chunk.user[i], chunk.item[i], chunk.web[i]
        g, h = users.group[u], items.group[v]
        cheap = (3.5 - np.log(items.price[v])) / 0.9
        device = (web - 0.3) / np.sqrt(0.3 * 0.7)
        linear = 0.45**0.5 * users.conversion[u] + 0.45**0.5 * items.conversion[v] + 0.06**0.5 * cheap
        linear += 0.04**0.5 * device
        c = 0.7**0.5 * linear + 0.3**0.5 * story.population.affinity[g, h]
        m = 0.4**0.5 * (users.click[u] + items.click[v]) + 0.2**0.5 * story.population.attraction[g, h]
        hour = chunk.time[i] % 86_400 // 3600
        place = -0.3 * np.log(chunk.position[i]) + 0.15 * np.sin(2 * np.pi * (hour - 14) / 24)
        n = 0.7 * 0.5**0.5 * (users.neutral[u] + items.neutral[v]) + place
        click = 2.0 * (0.4 * c + (1 - 0.4**2) ** 0.5 * m) + n + 0.7 * users.own_click[u]
        assert chunk.click_logit[i] == pytest.approx(click)
        assert chunk.conversion_logit[i] == pytest.approx(1.1 * c + 0.7 * users.own_conversion[u])


@settings(max_examples=15, deadline=None)
@given(st.floats(0.001, 0.7), st.floats(0.001, 0.7), st.floats(0, 4), st.integers(1, 3_000), st.integers(0, 99))
def test_intercepts_hit_the_base_rates_of_the_very_log(ctr, cvr, selection, exposures, seed):
    story = plan(Knobs(ctr=ctr, cvr=cvr, selection=selection), exposures, seed)
    intercepts = solve(story)
    chunk = draw(story, 0)
    p = sigmoid(chunk.click_logit + intercepts.click)
    q = sigmoid(chunk.conversion_logit + intercepts.conversion)
    assert p.mean() == pytest.approx(ctr, rel=1e-6)
    assert (p @ q) / p.sum() == pytest.approx(cvr, rel=1e-6)


def test_a_log_longer_than_the_calibration_sample_stays_near_the_base_rates():
    story = plan(Knobs(days=3), 6 * CHUNK_ROWS, seed=1)
    intercepts = solve(story)
    outcomes = [draw_outcomes(story, intercepts, draw(story, index)) for index in range(story.chunks)]
    p, q = (np.concatenate([getattr(part, name) for part in outcomes]) for name in ("ctr", "cvr_do"))
    assert p.mean() == pytest.approx(0.1, abs=0.002)
    assert (p @ q) / p.sum() == pytest.approx(0.1, abs=0.002)


def test_exposures_run_through_the_days_in_order_of_time():
    story = plan(Knobs(days=3), 2 * CHUNK_ROWS + 17, seed=0)
    chunks = [draw(story, index) for index in range(story.chunks)]
    assert [len(chunk) for chunk in chunks] == [CHUNK_ROWS, CHUNK_ROWS, 17]
    time = np.concatenate([chunk.time for chunk in chunks])
    assert np.all(np.diff(time) >= 0)
    assert time.max() - time.min() == pytest.approx(3 * 86_400, rel=0.01)
    assert (np.concatenate([chunk.exposure_id for chunk in chunks]) == np.arange(1, len(time) + 1)).all()
    hours = np.bincount(time // 3600 % 24, minlength=24)
    assert hours[3] < hours[20] / 4


def test_without_selection_clicks_are_a_fair_sample_with_it_they_are_not():
    ratios = {}
    for name, knobs in PRESETS.items():
        if not isinstance(knobs, Knobs):
            continue
        story = plan(knobs, CHUNK_ROWS, seed=0)
        outcomes = draw_outcomes(story, solve(story), draw(story, 0))
        ratios[name] = np.average(outcomes.cvr_do, weights=outcomes.ctr) / outcomes.cvr_do.mean()
    assert ratios["no-bias"] == pytest.approx(1, abs=0.06)
    assert ratios["selection"] > 1.6


def test_position_moves_the_click_and_not_the_conversion():
    story = plan(PRESETS["no-bias"], CHUNK_ROWS, seed=0)
    chunk = draw(story, 0)
    top, low = chunk.position == 1, chunk.position >= 8
    assert chunk.click_logit[top].mean() - chunk.click_logit[low].mean() > 0.5
    assert chunk.conversion_logit[top].mean() - chunk.conversion_logit[low].mean() == pytest.approx(0, abs=0.05)


def test_conversion_needs_a_click_unless_orphans_are_asked_for():
    story = plan(Knobs(), 20_000, seed=0)
    intercepts = solve(story)
    clean = draw_outcomes(story, intercepts, draw(story, 0))
    assert not np.any(clean.conversion > clean.click)
    faulty = replace(story, knobs=Knobs(orphan_conversions=0.1))
    outcomes = draw_outcomes(faulty, intercepts, draw(faulty, 0))
    unclicked = outcomes.click == 0
    assert outcomes.conversion[unclicked].mean() == pytest.approx(0.1, abs=0.01)
    np.testing.assert_array_equal(outcomes.conversion[~unclicked], clean.conversion[~unclicked])


def test_user_effects_correlate_the_outcomes_of_a_user():
    def spread(user_effect):
        story = plan(Knobs(user_effect=user_effect, users=200, tail=0.0, selection=0.0), CHUNK_ROWS, seed=0)
        chunk = draw(story, 0)
        cvr = draw_outcomes(story, solve(story), chunk).cvr_do
        return np.std([cvr[chunk.user == user].mean() for user in range(200)])

    assert spread(2.0) > 1.5 * spread(0.0)
