"""Where clicks do not reach: exposures of thin overlap, exposures that are never clicked, and what a log says of p.

Exposures are ordered by their click logit. The share `support_violation` of the lowest is never clicked (ctr = 0
exactly: no weight can make up for them), and the share `thin_overlap` next above has `THIN_ODDS` of its click odds.
Both follow from logged columns; the intercept is solved for afterwards, so the mean CTR stays as asked. With
`selection` = 0 such exposures convert like all others, with `selection` > 0 (and `correlation` > 0) less.

The logged propensity is the true ctr, flattened by m = `propensity_misspecification`::

    propensity = sigmoid( (1 - m) logit(ctr) + d )         d solved for so that its mean is that of ctr

m = 0 is the truth, m = 1 one number for all, under which a weighted fit is the naive one. A log holds propensities
above 0, so `NEVER` stands for 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from postclick.data.scores import probability
from postclick.simulation.bisection import rising_root
from postclick.simulation.presets import Knobs

__all__ = ["NEVER", "THIN_ODDS", "Overlap", "find_overlap", "logged_propensity", "solve_propensity"]

Floats = NDArray[np.float64]

THIN_ODDS = 0.05
"""What is left of the click odds where the overlap is thin."""
NEVER = 1e-9
"""Logged propensity of what is never clicked: (0, 1] has no 0, and no click has it as its weight."""


@dataclass(frozen=True)
class Overlap:
    """Limits of the click logit (without its intercept): below `never` no click, below `thin` few."""

    never: float = -np.inf
    thin: float = -np.inf

    def thinned(self, click: Floats) -> Floats:
        """Return the click logit with the odds lowered where the overlap is thin, [B]."""
        return click if self.thin == -np.inf else np.where(click < self.thin, click + np.log(THIN_ODDS), click)

    def possible(self, click: Floats) -> NDArray[np.bool_]:
        """Return which exposures can be clicked at all, bool [B]."""
        return np.asarray(click >= self.never)


def find_overlap(knobs: Knobs, click: Floats) -> Overlap:
    """Return the limits under which the asked shares of these click logits lie."""
    never, thin = knobs.support_violation, knobs.support_violation + knobs.thin_overlap
    return Overlap(
        float(np.quantile(click, never)) if never else -np.inf,
        float(np.quantile(click, thin)) if knobs.thin_overlap else -np.inf,
    )


def solve_propensity(knobs: Knobs, ctr: Floats) -> float:
    """Return d, given the true ctr of the exposures over which the means shall agree; 0 where nothing is flattened."""
    if not knobs.propensity_misspecification:
        return 0.0
    flat = _flattened(knobs, ctr[ctr > 0.0])
    wanted = float(ctr.sum())
    return rising_root(lambda shift: float(probability(flat + shift).sum()) - wanted)


def logged_propensity(knobs: Knobs, ctr: Floats, shift: float) -> Floats:
    """Return what the log says of P(click | x), in [`NEVER`, 1]; `shift` is d."""
    if not knobs.propensity_misspecification:
        return np.maximum(ctr, NEVER)
    told = np.full(len(ctr), NEVER)
    possible = ctr > 0.0
    told[possible] = np.maximum(probability(_flattened(knobs, ctr[possible]) + shift), NEVER)
    return told


def _flattened(knobs: Knobs, ctr: Floats) -> Floats:
    # a ctr that rounds to 1 has no finite log-odds; the largest number under 1 has 36.7
    below = np.minimum(ctr, 1.0 - 2.0**-53)
    return np.asarray((1.0 - knobs.propensity_misspecification) * (np.log(below) - np.log1p(-below)))
