"""The truth of the behaviour path and the gap of the chain, by hand and as identities."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from postclick.simulation.actions import Paths
from postclick.simulation.behaviour import Behaviour, behaviour, psc_gap
from postclick.simulation.presets import Knobs

RATE = st.floats(0.001, 0.999)


def one(*values: float) -> Behaviour:
    return Behaviour(*(np.array([value]) for value in values))


def test_the_gap_by_hand():
    # of 1,000 exposures 200 are clicked; 80 of them act, 20 of those buy; 120 do not, 6 of those buy
    ctr, true = np.array([0.2]), one(0.4, 0.08, 0.25, 0.05, 0.1, 0.25)
    assert true.cvr[0] == pytest.approx(26 / 200)
    gap = psc_gap(ctr, true)
    assert gap.without_action[0] == pytest.approx(6 / 1_000)
    assert gap.other_space[0] == 0.0
    chain = 0.2 * 0.4 * 0.25
    assert gap.total[0] == pytest.approx(26 / 1_000 - chain)
    # the cart log holds 120 more actions that no click belongs to: there 20 of 200 buy
    gap = psc_gap(ctr, true, true.cvr_given_any_action)
    assert gap.without_action[0] == pytest.approx(6 / 1_000)
    assert gap.other_space[0] == pytest.approx(12 / 1_000)
    assert gap.total[0] == pytest.approx(26 / 1_000 - 0.2 * 0.4 * 0.1)
    # a global log holds purchases of other days, too, P(b | a) = .75: the second error outweighs the first
    gap = psc_gap(ctr, true, np.array([0.75]))
    assert gap.total[0] == pytest.approx(26 / 1_000 - 0.2 * 0.4 * 0.75)
    assert gap.total[0] < 0


@given(RATE, RATE, RATE, RATE, st.floats(0.0, 0.9), st.floats(0.0, 0.9), st.floats(0.0, 0.9))
def test_what_is_lost_to_the_window_is_accounted_for(ctr, act, after, without, action_lost, lost, orphans):
    knobs = Knobs(
        action_rate=0.5,
        cvr=0.001,
        action_outside_window=action_lost,
        purchase_outside_window=lost,
        orphan_actions=orphans,
    )
    rate = np.array([ctr])
    true = behaviour(knobs, rate, Paths(np.array([act]), np.array([after]), np.array([without])))
    assert true.cvr[0] == pytest.approx((1 - lost) * (act * after + (1 - act) * without), rel=1e-12)
    assert true.cvr_given_action[0] == pytest.approx((1 - lost) * after, rel=1e-12)
    assert true.ctar[0] == pytest.approx(ctr * act * (1 - action_lost), rel=1e-12)
    gap = psc_gap(rate, true)
    missed = (1 - lost) * (act * action_lost * after + (1 - act) * without)
    assert gap.total[0] == pytest.approx(ctr * missed, rel=1e-9)
    seen = ctr * act * (1 - action_lost)
    any_action = seen * (1 - lost) * after / (seen + (1 - ctr) * orphans)
    assert true.cvr_given_any_action[0] == pytest.approx(any_action, rel=1e-12)


def test_without_orphans_a_cart_log_says_what_the_exposures_say():
    true = behaviour(Knobs(action_rate=0.5), np.array([0.2]), Paths(*(np.array([p]) for p in (0.4, 0.25, 0.05))))
    assert true.cvr_given_any_action[0] == pytest.approx(true.cvr_given_action[0], rel=1e-15)
    assert psc_gap(np.array([0.2]), true, true.cvr_given_any_action).other_space[0] == pytest.approx(0.0, abs=1e-17)


def test_the_chain_is_right_where_nobody_buys_without_a_logged_action():
    true = behaviour(Knobs(action_rate=0.5), np.array([0.2]), Paths(*(np.array([p]) for p in (0.4, 0.25, 0.0))))
    assert psc_gap(np.array([0.2]), true).total[0] == 0.0
