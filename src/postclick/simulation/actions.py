"""In-shop actions: the stage between the click and the conversion, and the truth that it adds.

Exposure i = (u, v, context) with the CVR's latent c_i (see `postclick.simulation`); A is an action and B a purchase
after a click, whenever they happen::

    act_i     = P(A | do(click), x)        = sigmoid( d + action_strength c_i + action_spread sqrt(.5) (P_u + P_v) )
    after_i   = P(B | A, do(click), x)     = sigmoid( b_1 + cvr_spread c_i + user_effect F_u )
    without_i = P(B | not A, do(click), x) = sigmoid( b_0 + cvr_spread c_i + user_effect F_u )
    logged action      a = click A (1 - W),    W  ~ Bernoulli(action_outside_window)
                           without a click,    a  ~ Bernoulli(orphan_actions)
    logged conversion  t = click B (1 - W'),   W' ~ Bernoulli(purchase_outside_window)

Who acts is drawn first, then who buys: the action is a cause, not an echo of the purchase. d, b_1 and b_0 are solved
for so that over clicks (weights ctr) the mean of act is `action_rate`, and the conversions logged after an A and those
logged without one are shares 1 - purchase_without_action and purchase_without_action of `cvr`. So the CVR stays as
asked whatever is turned, and how much more an action converts follows: with rate k and share s the ratio of the two is
(1 - s)(1 - k) / (s k).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from postclick.data.scores import probability
from postclick.simulation.bisection import rising_root
from postclick.simulation.population import Population
from postclick.simulation.presets import Knobs

__all__ = ["ActionDraws", "ActionIntercepts", "Paths", "action_logit", "draw_actions", "paths", "solve_actions"]

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class ActionIntercepts:
    """Intercepts of the three logits; minus infinity where a path has no conversions."""

    act: float
    after: float
    without: float


@dataclass(frozen=True)
class Paths:
    """True probabilities of a chunk's paths given do(click), whenever they are logged: float64 [B] each.

    Parameters
    ----------
    act
        P(A | do(click), x).
    after, without
        P(B | A = 1, ...) and P(B | A = 0, ...).
    """

    act: Floats
    after: Floats
    without: Floats


@dataclass(frozen=True)
class ActionDraws:
    """Draws of a chunk: bool [B] each.

    Parameters
    ----------
    acts
        A, if clicked.
    action_logged, purchase_logged
        Within the exposure's window, if it happens.
    orphan
        An action is logged, if not clicked.
    """

    acts: Flags
    action_logged: Flags
    purchase_logged: Flags
    orphan: Flags


def action_logit(
    population: Population, knobs: Knobs, user: NDArray[np.int64], item: NDArray[np.int64], conversion: Floats
) -> Floats:
    """Return the action's logit up to its intercept; `conversion` is the CVR's latent."""
    own = np.sqrt(0.5) * (population.users.action[user] + population.items.action[item])
    return np.asarray(knobs.action_strength * conversion + knobs.action_spread * own)


def solve_actions(knobs: Knobs, share: Floats, action: Floats, conversion: Floats) -> ActionIntercepts:
    """Solve for the intercepts; `share` is each exposure's part of the expected clicks, then the two logits."""
    act = rising_root(lambda shift: float(share @ probability(action + shift)) - knobs.action_rate)
    acts = share * probability(action + act)
    purchases = knobs.mean_cvr / (1.0 - knobs.purchase_outside_window)
    after = _path(acts, conversion, (1.0 - knobs.purchase_without_action) * purchases)
    return ActionIntercepts(act, after, _path(share - acts, conversion, knobs.purchase_without_action * purchases))


def _path(share: Floats, conversion: Floats, wanted: float) -> float:
    if wanted == 0.0:
        return -np.inf
    return rising_root(lambda shift: float(share @ probability(conversion + shift)) - wanted)


def paths(intercepts: ActionIntercepts, action: Floats, conversion: Floats) -> Paths:
    """Return the true probabilities from the two logits."""
    return Paths(
        probability(action + intercepts.act),
        probability(conversion + intercepts.after),
        probability(conversion + intercepts.without),
    )


def draw_actions(knobs: Knobs, true: Paths, rng: np.random.Generator) -> ActionDraws:
    """Draw who acts, and what is logged in time.

    Each of the four has uniform numbers of its own, so a knob turns its own draw and no other.
    """
    count = len(true.act)
    acts = rng.random(count) < true.act
    action_logged = rng.random(count) >= knobs.action_outside_window
    purchase_logged = rng.random(count) >= knobs.purchase_outside_window
    return ActionDraws(acts, action_logged, purchase_logged, rng.random(count) < knobs.orphan_actions)
