"""Doubly robust risks: an imputed error on every exposure, corrected by weighted residuals on the clicked ones.

    DR = 1/|D| sum_D [ e^ + o (e - e^) / p^ ]

is unbiased for the mean of e over exposures if p^ = P(click | x) or if e^ = E[e | x] (Robins et al. 1994; Wang et al.,
ICML 2019): bias = mean((p^ - p) / p^ (e^ - e)), variance = mean(p (1 - p) / p^^2 (e - e^)^2) / |D| for given e.

Everything is a row at a time, [B]; reduce with `reduce.mean_over_exposures`. Weights are those of
`propensity.inverse_propensity_weights` (o included) or their `self_normalised` form. Nothing here detaches: which side
of a residual learns is decided in sight by the system's loss.

Two imputations. **Error**: e^ = softplus(a tower), a number a row. Detached in the risk it has no gradient, so the CVR
tower gets exactly the IPS gradient. **Label**: e^ = l(r~, q) with a pseudo-label r~, so unclicked rows reach the CVR
tower. As l is linear in its label, the label risk is l(t, q) with the effective target t = w r + (1 - w) r~ (clicked)
or r~ (unclicked). On a clicked row with w > 1 that t leaves [0, 1], and l(t, q) is then unbounded below: a table that
can memorise rows drives the logit on for ever. `share_outside` counts those rows. A cap on the weights and
`self_normalised` weights only slow that down (a cap of 1 ends it: t = r, the naive imputation); `targeted_label` keeps
the target inside (0, 1), so the risk is bounded below.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import softplus

from postclick.losses.probability import LogProbability

__all__ = [
    "doubly_robust_risk",
    "effective_target",
    "imputation_loss",
    "imputed_error",
    "label_error",
    "mrdr_weights",
    "share_outside",
    "targeted_label",
]

_NEWTON_STEPS = 8
_LARGEST_SHIFT = 4.0
"""A batch without a conversion would shift to minus infinity."""


def imputed_error(logit: Tensor) -> Tensor:
    """Return e^ = softplus(logit), [B], in (0, inf): an imputed cross-entropy of the error tower.

    Not a probability: the cross-entropy of one conversion at q = 0.01 is 4.6, which nothing in (0, 1) can impute.
    """
    return softplus(logit)


def label_error(cvr: LogProbability, label: LogProbability | Tensor) -> Tensor:
    """Return e^ = l(r~, q), [B], in nats: the error of the CVR against an imputed label.

    Parameters
    ----------
    cvr
        q; keeps its gradient in the risk, detached in the imputation loss.
    label
        r~ as a probability in [0, 1], [B]; detached in the risk, keeps its gradient in the imputation loss.
    """
    return cvr.cross_entropy(label.log_p.exp() if isinstance(label, LogProbability) else label)


def doubly_robust_risk(error: Tensor, imputed: Tensor, weights: Tensor) -> Tensor:
    """Return e^ + w (e - e^), [B]: the DR risk a row.

    Parameters
    ----------
    error
        e = l(r, q), [B]; on unclicked rows any finite number.
    imputed
        e^, [B], on every row.
    weights
        w = o / p^ within floor and cap, [B].
    """
    return imputed + weights * (error - imputed)


def imputation_loss(error: Tensor, imputed: Tensor, weights: Tensor) -> Tensor:
    """Return w (e - e^)^2, [B]: what the imputation learns from clicked rows.

    With w = o / p^ it is the loss of DR-JL (Wang et al. 2019), of Multi-DR and of ESCM2-DR; with `mrdr_weights` that of
    MRDR (Guo et al. 2021). The error is detached by the caller; where it is not, the CVR is also pulled towards its
    imputed error (a fault of public ESCM2 code).

    Parameters
    ----------
    error, imputed, weights
        As in `doubly_robust_risk`.
    """
    return weights * (error - imputed).square()


def mrdr_weights(weights: Tensor) -> Tensor:
    """Return o (1 - p) / p^2 = w (w - 1), [B]: an imputation fitted with them minimises the variance of the DR risk.

    Parameters
    ----------
    weights
        w = o / p within floor and cap, not self-normalised: there w >= 1 on clicked rows.
    """
    return weights * torch.relu(weights - 1.0)


def effective_target(conversion: Tensor, label: Tensor, weights: Tensor) -> Tensor:
    """Return t = r~ + w (r - r~), [B]: the label that the DR risk with label imputation fits; not confined to [0, 1].

    ``cvr.cross_entropy(t)`` equals ``doubly_robust_risk(l(r, q), l(r~, q), w)``.

    Parameters
    ----------
    conversion
        r, [B], 0 or 1; on unclicked rows any finite number.
    label
        r~ in [0, 1], [B].
    weights
        w, [B].
    """
    return label + weights * (conversion - label)


def share_outside(target: Tensor, click: Tensor, tolerance: float = 1e-6) -> Tensor:
    """Return the share of clicked rows whose effective target leaves [0, 1]; scalar, detached, 0 without clicks.

    Parameters
    ----------
    target
        t of `effective_target`, [B].
    click
        o, [B].
    tolerance
        Beyond it, so that rounding does not count.
    """
    beyond = ((target < -tolerance) | (target > 1.0 + tolerance)).to(click.dtype)
    clicks = click.sum()
    return ((click * beyond).sum() / torch.where(clicks > 0, clicks, 1.0)).detach()


def targeted_label(
    label: LogProbability,
    conversion: Tensor,
    weights: Tensor,
    *,
    sample_weight: Tensor | None = None,
    largest_shift: float = _LARGEST_SHIFT,
) -> LogProbability:
    """Return r~ shifted on the log-odds scale until its weighted residuals on the clicked rows sum to 0.

    r* = sigmoid(logit(r~) + eps) with sum s w (r - r*) = 0, by Newton's method inside bounds: targeted minimum loss
    estimation (van der Laan and Rubin 2006) with the weights in the loss. Then sum_D l(r*, q) is bounded below, as
    r* stays in (0, 1), and has the gradient of the DR risk along any common shift of the logits of q. Along other
    directions the correction is given up: that is the price of the bound.

    Parameters
    ----------
    label
        r~, [B].
    conversion, weights
        r and w, [B].
    sample_weight
        s, [B], or None for 1.
    largest_shift
        Bound of |eps|; a batch without conversions reaches it.

    Returns
    -------
    LogProbability
        r*, [B]; equal to r~ where no row has weight. eps is a constant of the batch: it has no gradient.
    """
    odds = label.log_p - label.log_not_p
    mass = (weights if sample_weight is None else sample_weight * weights).detach()
    fixed, shift = odds.detach(), torch.zeros((), dtype=odds.dtype, device=odds.device)
    low, high = shift - largest_shift, shift + largest_shift
    for _ in range(_NEWTON_STEPS):
        chance = torch.sigmoid(fixed + shift)
        residual = (mass * (conversion - chance)).sum()
        low, high = torch.where(residual > 0, shift, low), torch.where(residual < 0, shift, high)
        slope = (mass * chance * (1.0 - chance)).sum()
        step = shift + residual / torch.where(slope > 0, slope, 1.0)
        # a Newton step that leaves the bracket is replaced by its middle
        inside = (step >= low) & (step <= high)
        moved = torch.where(inside, step, 0.5 * (low + high))
        shift = torch.where(residual == 0, shift, moved)
    return LogProbability.from_logit(odds + shift)
