"""Where clicks are few or none, and the propensity that the log publishes; each knob moves what it names alone."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from postclick.simulation.chunks import CHUNK_ROWS, draw, draw_outcomes, plan, solve
from postclick.simulation.overlap import (
    NEVER,
    THIN_ODDS,
    Overlap,
    find_overlap,
    logged_propensity,
    solve_propensity,
)
from postclick.simulation.presets import Knobs

BASE = Knobs(ctr=0.2, cvr=0.15, selection=1.0, logged_propensity=True)


def odds(p):
    return p / (1 - p)


def drawn(knobs: Knobs, exposures: int = 30_000, seed: int = 1):
    story = plan(knobs, exposures, seed)
    intercepts, chunk = solve(story), draw(story, 0)
    return intercepts, chunk, draw_outcomes(story, intercepts, chunk)


def effective_share(p):
    """Expected, over clicks drawn with p: (sum p w)^2 / (sum p w^2 sum p), w = 1 / p."""
    p = p[p > 0]
    return len(p) ** 2 / ((1 / p).sum() * p.sum())


def test_the_lowest_click_logits_are_never_clicked_and_the_next_seldom():
    intercepts, chunk, found = drawn(replace(BASE, support_violation=0.2, thin_overlap=0.3))
    never, thin = np.quantile(chunk.click_logit, [0.2, 0.5])
    assert intercepts.overlap == Overlap(never, thin)
    lowest = chunk.click_logit < never
    assert lowest.mean() == pytest.approx(0.2, abs=1e-3)
    assert not found.ctr[lowest].any()
    assert not found.click[lowest].any()
    assert not found.ctcvr[lowest].any()
    assert (found.ctr[~lowest] > 0).all()
    base = odds(found.ctr) / np.exp(chunk.click_logit + intercepts.click)
    np.testing.assert_allclose(base[~lowest & (chunk.click_logit < thin)], THIN_ODDS, rtol=1e-9)
    np.testing.assert_allclose(base[chunk.click_logit >= thin], 1.0, rtol=1e-9)


def test_base_rates_are_hit_whatever_is_turned():
    for turned in (
        {"support_violation": 0.4},
        {"thin_overlap": 0.4},
        {"support_violation": 0.3, "thin_overlap": 0.3, "unobserved_confounder": 1.0},
    ):
        _, _, found = drawn(replace(BASE, **turned))
        assert found.ctr.mean() == pytest.approx(0.2, rel=1e-9)
        assert found.ctcvr.sum() / found.ctr.sum() == pytest.approx(0.15, rel=1e-9)


def test_a_click_that_never_happens_has_the_cvr_of_ever_fewer_clicks():
    _, _, found = drawn(replace(BASE, support_violation=0.3))
    np.testing.assert_array_equal(found.cvr_click, found.cvr_do)
    intercepts, chunk, found = drawn(replace(BASE, support_violation=0.3, unobserved_confounder=1.0))
    row = int(np.argmin(chunk.click_logit))
    p, q = (
        [1 / (1 + np.exp(-(logit + shift + z))) for z in (-1, 1)]
        for logit, shift in (
            (chunk.click_logit[row], intercepts.click),
            (chunk.conversion_logit[row], intercepts.conversion),
        )
    )
    assert found.cvr_click[row] == pytest.approx((p[0] * q[0] + p[1] * q[1]) / (p[0] + p[1]), rel=1e-12)


def test_thin_overlap_costs_effective_clicks():
    shares = [effective_share(drawn(replace(BASE, thin_overlap=share))[2].ctr) for share in (0.0, 0.2, 0.4)]
    assert shares[0] > 2 * shares[1]
    assert shares[0] > 0.3
    assert shares[2] < 0.1


def test_without_selection_what_is_never_clicked_converts_like_the_rest():
    def ratio(selection):
        _, _, found = drawn(replace(BASE, support_violation=0.3, selection=selection), CHUNK_ROWS)
        return found.cvr_do[found.ctr == 0].mean() / found.cvr_do[found.ctr > 0].mean()

    assert ratio(0.0) == pytest.approx(1.0, abs=0.05)
    assert ratio(1.0) < 0.7


def test_the_logged_propensity_is_the_truth_unless_it_is_flattened():
    _, _, found = drawn(BASE)
    np.testing.assert_array_equal(found.propensity, found.ctr)
    assert drawn(replace(BASE, logged_propensity=False))[2].propensity is None
    _, _, flat = drawn(replace(BASE, propensity_misspecification=1.0))
    np.testing.assert_allclose(flat.propensity, 0.2, rtol=1e-9)
    _, _, never = drawn(replace(BASE, support_violation=0.3))
    assert (never.propensity[never.ctr == 0] == NEVER).all()
    np.testing.assert_array_equal(never.propensity[never.ctr > 0], never.ctr[never.ctr > 0])


@settings(max_examples=25, deadline=None)
@given(st.floats(0.05, 0.95), st.sampled_from([0.0, 0.25]), st.sampled_from([0.0, 1.0]))
def test_flattening_keeps_the_mean_and_the_order_and_shrinks_the_log_odds(wrong, violation, hidden):
    knobs = replace(BASE, propensity_misspecification=wrong, support_violation=violation)
    _, _, found = drawn(replace(knobs, unobserved_confounder=hidden), 3_000)
    some = found.ctr > 0
    assert found.propensity[some].sum() == pytest.approx(found.ctr.sum(), rel=1e-9)
    assert (found.propensity[~some] == NEVER).all()
    true, told = (np.log(odds(p[some])) for p in (found.ctr, found.propensity))
    shift = told - (1 - wrong) * true
    np.testing.assert_allclose(shift, shift[0], atol=1e-9)


def test_a_ctr_of_one_has_a_propensity():
    knobs = replace(BASE, propensity_misspecification=0.5)
    ctr = np.array([0.0, 0.5, 1.0])
    told = logged_propensity(knobs, ctr, solve_propensity(knobs, ctr))
    assert np.isfinite(told).all()
    assert told[0] == NEVER
    assert told[1] < told[2] <= 1.0
    assert solve_propensity(BASE, ctr) == 0.0


def test_nothing_is_lowered_unless_asked():
    logit = np.array([-1.0, 2.0])
    assert find_overlap(Knobs(), logit) == Overlap()
    assert Overlap().thinned(logit) is logit
    assert Overlap().possible(logit).all()


NAMES = ("ctr", "cvr_do", "cvr_click", "click", "conversion", "propensity")
CHUNK = ("user", "item", "time", "web", "position", "click_logit", "conversion_logit")


@pytest.mark.parametrize(
    ("knob", "value", "moves"),
    [
        ("propensity_misspecification", 0.5, {"propensity"}),
        # the intercept of the CVR follows the clicks, so that `cvr` is hit: its logit moves by one number
        ("thin_overlap", 0.3, {"ctr", "click", "propensity", "cvr_do", "cvr_click", "conversion"}),
        ("support_violation", 0.3, {"ctr", "click", "propensity", "cvr_do", "cvr_click", "conversion"}),
        ("unobserved_confounder", 1.0, set(NAMES)),
    ],
)
def test_each_knob_moves_what_it_names_and_nothing_else(knob, value, moves):
    one, other = drawn(BASE), drawn(replace(BASE, **{knob: value}))
    for name in CHUNK:
        np.testing.assert_array_equal(getattr(one[1], name), getattr(other[1], name))
    moved = {name for name in NAMES if not np.array_equal(getattr(one[2], name), getattr(other[2], name))}
    assert moved == moves
    if knob in ("thin_overlap", "support_violation"):
        shift = np.log(odds(other[2].cvr_do)) - np.log(odds(one[2].cvr_do))
        np.testing.assert_allclose(shift, shift[0], atol=1e-9)


def test_logging_the_propensity_changes_nothing_else():
    one, other = drawn(BASE)[2], drawn(replace(BASE, logged_propensity=False))[2]
    for name in ("ctr", "cvr_do", "cvr_click", "click", "conversion"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_a_longer_log_keeps_the_shares_of_its_calibration():
    story = plan(replace(BASE, support_violation=0.3, days=2), 5 * CHUNK_ROWS, seed=0)
    intercepts = solve(story)
    found = [draw_outcomes(story, intercepts, draw(story, index)) for index in range(story.chunks)]
    ctr = np.concatenate([part.ctr for part in found])
    assert (ctr == 0).mean() == pytest.approx(0.3, abs=0.005)
    assert ctr.mean() == pytest.approx(0.2, abs=0.004)
