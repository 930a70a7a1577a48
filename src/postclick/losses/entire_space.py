"""Losses a row over the exposure space and over the clicked part of it; reduce with `reduce.mean_over_exposures`.

Labels are float [B] in {0, 1}: click o and conversion r, logged as t = o r. All are cross-entropies
l(y, f) = -[y log f + (1 - y) log(1 - f)] in nats.
"""

from __future__ import annotations

from torch import Tensor

from postclick.losses.probability import LogProbability

__all__ = ["click_loss", "clicked_conversion_loss", "joint_loss"]


def click_loss(ctr: LogProbability, click: Tensor) -> Tensor:
    """Return l(o, p), [B]: the CTR loss on every exposure."""
    return ctr.cross_entropy(click)


def joint_loss(ctcvr: LogProbability, click: Tensor, conversion: Tensor) -> Tensor:
    """Return l(o r, pq), [B]: click and conversion as one label on every exposure (Ma et al. 2018, eq. 3)."""
    return ctcvr.cross_entropy(click * conversion)


def clicked_conversion_loss(cvr: LogProbability, click: Tensor, conversion: Tensor) -> Tensor:
    """Return o l(r, q), [B]: the CVR loss on clicked rows, 0 elsewhere.

    Its mean over exposures estimates P(o) E[l(r, q) | o = 1]: the risk over clicks, not over the exposure space.
    """
    return click * cvr.cross_entropy(conversion)
