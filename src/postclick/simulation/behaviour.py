"""The truth of a world with in-shop actions, and what the chain P(click) P(action | click) P(purchase | action) misses.

The derivation is in docs/behaviour_path.md.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from postclick.simulation.actions import Paths
from postclick.simulation.presets import Knobs

__all__ = ["BEHAVIOUR_COLUMNS", "Behaviour", "PscGap", "behaviour", "psc_gap"]

Floats = NDArray[np.float64]
BEHAVIOUR_COLUMNS = (
    "action",
    "ctar",
    "cvr_given_action",
    "cvr_given_other",
    "cvr_given_any_action",
    "purchase_given_action",
)


@dataclass(frozen=True)
class Behaviour:
    """True probabilities of the behaviour path, float64 [B] each, with b the conversion as logged.

    ``cvr_do = action * cvr_given_action + (1 - action) * cvr_given_other`` holds to the last bit.

    Parameters
    ----------
    action
        P(a | do(click), x): an action that is logged in the exposure's window.
    ctar
        P(click and a | x).
    cvr_given_action, cvr_given_other
        P(b | do(click), a = 1, x) and P(b | do(click), a = 0, x). The second also counts actions outside the window.
    cvr_given_any_action
        P(click and b | an action is logged, x), clicked or not: what a cart log not joined to its clicks tells.
    purchase_given_action
        P(purchase | action, x) in a log of all actions and purchases, whenever they happen.
    """

    action: Floats
    ctar: Floats
    cvr_given_action: Floats
    cvr_given_other: Floats
    cvr_given_any_action: Floats
    purchase_given_action: Floats

    @property
    def cvr(self) -> Floats:
        """P(b | do(click), x), by the law of total probability."""
        return self.action * self.cvr_given_action + (1.0 - self.action) * self.cvr_given_other


def behaviour(knobs: Knobs, ctr: Floats, true: Paths) -> Behaviour:
    """Return what is logged of the true paths: actions and purchases are lost to the exposure at constant rates."""
    seen, settled = 1.0 - knobs.action_outside_window, 1.0 - knobs.purchase_outside_window
    action = true.act * seen
    unseen = true.act * knobs.action_outside_window
    other = (unseen * true.after + (1.0 - true.act) * true.without) / (1.0 - action)
    ctar, given_action = ctr * action, true.after * settled
    any_action = ctar * given_action / (ctar + (1.0 - ctr) * knobs.orphan_actions)
    return Behaviour(action, ctar, given_action, other * settled, any_action, true.after)


@dataclass(frozen=True)
class PscGap:
    """What the three-factor chain misses of the true CTCVR (truth less chain), float64 [B] each.

    Parameters
    ----------
    without_action
        P(o) P(b, not a | o): conversions that no logged action comes before. Never negative.
    other_space
        P(o) P(a | o) [P(b | a, o) - P(b | a)]: the last factor was fitted on other rows than the exposures' own.
    """

    without_action: Floats
    other_space: Floats

    @property
    def total(self) -> Floats:
        """P(o, b) less the chain's product; over P(o) it is the gap of the CVR."""
        return self.without_action + self.other_space


def psc_gap(ctr: Floats, true: Behaviour, fitted: Floats | None = None) -> PscGap:
    """Return the probability-space-confusion gap of the chain T = P(o) P(a | o) P(b | a), exposure by exposure.

    ``P(o, b) - T = P(o) P(b, not a | o) + P(o) P(a | o) [P(b | a, o) - P(b | a)]`` (derived in docs/behaviour_path.md;
    the confusion is named in Jiang et al. 2023, whose own formulas are not published).

    Parameters
    ----------
    ctr
        P(o | x), [B].
    true
        The truth of the paths.
    fitted
        P(b | a) as the chain has it, [B]; None: fitted on the exposures' own action rows, where the second term is 0.
    """
    last = true.cvr_given_action if fitted is None else fitted
    return PscGap(ctr * (1.0 - true.action) * true.cvr_given_other, ctr * true.action * (true.cvr_given_action - last))
