"""Inverse propensity weighting: what clicked rows say of all exposures (Horvitz and Thompson 1952).

With p = P(click | x) the true CTR, every confounder in x and p > 0, E[o e / p] = E[e]: the loss e of a row, observed
only where clicked (o = 1), stands for 1/p exposures like it. All functions work a row at a time, [B]; reduce them with
`reduce.mean_over_exposures`, so that (1/|D|) sum_O e / p has the scale of e whatever the CTR.

Nothing here detaches. A propensity that the loss may move is pushed towards 1 on clicks (d/dp of o e / p is
-o e / p^2), so a system hands in ``outputs.ctr.detach()``, in sight in its own loss (SYSTEMS, Decision 4).
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from postclick.losses.probability import LogProbability

__all__ = [
    "RELATIVE_FLOOR",
    "PublishedScale",
    "absolute_floor",
    "clipped_inverse",
    "exposure_scale",
    "inverse_propensity_weights",
    "ips_risk",
    "self_normalised",
    "weight_diagnostics",
]

RELATIVE_FLOOR = 0.1
"""Times the training log's CTR. The absolute 0.05 usual on ratings, where 8 % are observed, would clip nearly every
exposure of Ali-CCP (CTR 3.9 %) and turn the weighted fit back into the naive one."""
_LEAST = 1e-30
"""Stands for a floor of 0: 1 / p stays finite in float32."""

PublishedScale = Literal["exposures", "clicks", "sum", "normalised-mean"]


def absolute_floor(base_ctr: float, relative: float = RELATIVE_FLOOR) -> float:
    """Return the least propensity that is divided by: `relative` times the training log's CTR, at most 1.

    Parameters
    ----------
    base_ctr
        ``spec.ctr``, in [0, 1].
    relative
        0 turns the floor off.

    Raises
    ------
    ValueError
        Where one of them is out of range.
    """
    if not (0.0 <= base_ctr <= 1.0 and 0.0 <= relative < math.inf):
        raise ValueError(f"expected a CTR in [0, 1] and a relative floor of at least 0, got {base_ctr} and {relative}")
    return min(relative * base_ctr, 1.0)


def clipped_inverse(propensity: LogProbability | Tensor, *, floor: float, cap: float | None = None) -> Tensor:
    """Return v = min(1 / max(p, floor), cap), [B], for every exposure whether clicked or not.

    The clip comes before everything else: a cap on weights that are scaled afterwards (by the batch, by the number of
    clicks) is another cap in every batch.

    Parameters
    ----------
    propensity
        p as a pair of logarithms, or as a tensor of probabilities, [B].
    floor
        c >= 0, absolute; the largest v is 1 / c. 0: 1e-30, which only keeps v finite.
    cap
        Upper bound of v, at least 1; None: no other than 1 / floor.

    Raises
    ------
    ValueError
        Where the floor is outside [0, 1] or the cap is under 1.
    """
    if not 0.0 <= floor <= 1.0 or (cap is not None and not cap >= 1.0):
        raise ValueError(f"expected a floor in [0, 1] and a cap of at least 1, got {floor} and {cap}")
    least = max(floor, _LEAST)
    if isinstance(propensity, LogProbability):
        inverse = torch.exp(-torch.clamp(propensity.log_p, min=math.log(least)))
    else:
        inverse = 1.0 / torch.clamp(propensity, min=least)
    # exp(-log c) may round to the other side of 1 / c
    return torch.clamp(inverse, max=min(1.0 / least, math.inf if cap is None else cap))


def inverse_propensity_weights(
    click: Tensor, propensity: LogProbability | Tensor, *, floor: float, cap: float | None = None
) -> Tensor:
    """Return w = o v, [B]: 1 / p on clicked rows within floor and cap, 0 elsewhere.

    Weights of the unclicked rows are those of the complement: ``inverse_propensity_weights(1 - click,
    ctr.complement(), floor=...)``.

    Parameters
    ----------
    click
        o in {0, 1}, [B].
    propensity, floor, cap
        As in `clipped_inverse`. Not detached here.
    """
    return click * clipped_inverse(propensity, floor=floor, cap=cap)


def self_normalised(weights: Tensor, sample_weight: Tensor | None = None) -> Tensor:
    """Return w |D| / sum(w), [B]: weights that sum to the number of rows handed in (SNIPS; Swaminathan 2015).

    With them ``mean_over_exposures(e w)`` is sum(e w) / sum(w). Over a batch the bias is of the order of 1 over its
    clicks, and the variance is smaller where w varies; a constant factor in the propensities drops out.

    Parameters
    ----------
    weights
        w, [B], clipped already.
    sample_weight
        s, [B], or None for 1: the weights are scaled by sum(s) / sum(s w).

    Returns
    -------
    Tensor
        All 0 where all weights are.
    """
    if sample_weight is None:
        total, rows = weights.sum(), weights.new_tensor(float(len(weights)))
    else:
        total, rows = (sample_weight * weights).sum(), sample_weight.sum()
    return weights * (rows / torch.where(total > 0, total, 1.0))


def ips_risk(error: Tensor, weights: Tensor) -> Tensor:
    """Return w e, [B]: the IPS (or, with `self_normalised` weights, SNIPS) risk a row.

    Unbiased for the mean of e over exposures when p is the true CTR and nothing is clipped:
    bias = mean((p - p^) / p^ e), variance = mean(p (1 - p) / p^^2 e^2) / |D| for given e.

    Parameters
    ----------
    error
        e = l(r, q), [B]; what it is on unclicked rows does not matter as long as it is finite.
    weights
        From `inverse_propensity_weights`.
    """
    return weights * error


def weight_diagnostics(
    click: Tensor,
    propensity: LogProbability | Tensor,
    *,
    floor: float,
    cap: float | None = None,
    sample_weight: Tensor | None = None,
) -> dict[str, Tensor]:
    """Return what to watch of the weights of a batch: scalars, detached, no wait for the device.

    ``effective_sample_size``
        (sum s w)^2 / sum (s w)^2: as many clicks of equal weight would give the same variance.
    ``effective_share``
        Of the clicks, in [0, 1].
    ``clipped_mass``
        sum s (1 - p v) / sum s, in [0, 1]: the share of the exposure space that clipped weights leave out, in
        expectation over clicks.
    ``largest_weight``
        The largest w.

    Parameters
    ----------
    click, propensity, floor, cap
        As in `inverse_propensity_weights`.
    sample_weight
        s, [B], or None for 1.
    """
    inverse = clipped_inverse(propensity, floor=floor, cap=cap).detach()
    chance = (propensity.log_p.exp() if isinstance(propensity, LogProbability) else propensity).detach()
    own = torch.ones_like(inverse) if sample_weight is None else sample_weight
    weights = click * inverse
    mass = own * weights
    # over their largest the squares stay finite in float32
    scaled = mass / torch.where(mass.max() > 0, mass.max(), 1.0) if len(mass) else mass
    squares, clicks, rows = scaled.square().sum(), (click * (own > 0)).sum(), own.sum()
    effective = scaled.sum().square() / torch.where(squares > 0, squares, 1.0)
    return {
        "effective_sample_size": effective,
        "effective_share": effective / torch.where(clicks > 0, clicks, 1.0),
        "clipped_mass": (own * torch.relu(1.0 - chance * inverse)).sum() / torch.where(rows > 0, rows, 1.0),
        "largest_weight": weights.max() if len(weights) else weights.sum(),
    }


def exposure_scale(coefficient: float, published: PublishedScale, *, base_ctr: float, batch_size: int) -> float:
    """Return a published coefficient of a weighted CVR loss on the scale used here, the mean over exposures.

    Parameters
    ----------
    coefficient
        lambda as printed or as in the code.
    published
        How that loss is reduced. ``exposures``: (1/B) sum o e / p, as here. ``clicks``: (1 / clicks) sum o e / p
        (PaddleRec's ESCM2: its 0.01 at Ali-CCP's CTR is 0.26 here). ``sum``: sum o e / p over the batch (ICDE24-MNAR).
        ``normalised-mean``: weights that sum to 1 over the batch's clicks, then a mean over B (DDPO), so 1 / B of
        SNIPS.
    base_ctr
        CTR of the training log, in (0, 1].
    batch_size
        B of the published run.
    """
    factor = {
        "exposures": 1.0,
        "clicks": 1.0 / base_ctr,
        "sum": float(batch_size),
        "normalised-mean": 1.0 / batch_size,
    }
    return coefficient * factor[published]
