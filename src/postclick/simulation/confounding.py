"""A variable that moves the click and the conversion and that nobody logs, and the truth with it integrated out.

Every exposure has a hidden z, -1 or +1 with probability 1/2 each, independent of everything that is logged. With
h = `unobserved_confounder`::

    p(z) = P(click | x, z)                 = sigmoid( click logit + h z )
    q(z) = P(conversion | do(click), x, z) = sigmoid( conversion logit + h z )

    ctr       = E_z p(z)                    cvr_do    = E_z q(z)
    ctcvr     = E_z p(z) q(z)               cvr_click = ctcvr / ctr = cvr_do + Cov_z(p, q) / ctr

z has two values, so these are sums of two terms: exact, with no quadrature. It is drawn by the exposure, not by the
user, since a user's own z could be learned from the user's id and would be hidden from nobody.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from postclick.data.scores import probability

__all__ = ["Funnel", "draw_hidden", "funnel", "states"]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Funnel:
    """True probabilities of a chunk, float64 [B] each: P(click | x), P(conversion | do(click), x), .. | click = 1, x).

    Without a hidden variable the two CVRs are one array.
    """

    ctr: Floats
    cvr_do: Floats
    cvr_click: Floats


def states(logit: Floats, weight: float) -> Floats:
    """Return the logit in every state of the hidden variable, [Z, B]: Z is 2, or 1 where the weight is 0.

    Parameters
    ----------
    logit
        Up to the hidden part, [B].
    weight
        h, at least 0.
    """
    return np.stack([logit - weight, logit + weight]) if weight else logit[None]


def draw_hidden(weight: float, count: int, rng: np.random.Generator) -> Floats:
    """Return h z, [B], which joins both logits."""
    return np.asarray(weight * (2.0 * rng.integers(0, 2, count) - 1.0))


def funnel(click: Floats, conversion: Floats) -> Funnel:
    """Integrate the hidden variable out.

    Parameters
    ----------
    click, conversion
        Finite logits with their intercepts, [Z, B], from `states`.
    """
    clicked, bought = probability(click), probability(conversion)
    if len(clicked) == 1:
        cvr = bought[0]
        return Funnel(clicked[0], cvr, cvr)
    ctr = clicked.mean(axis=0)
    return Funnel(ctr, bought.mean(axis=0), (clicked * bought).mean(axis=0) / ctr)
