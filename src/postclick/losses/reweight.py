r"""Weights that depend on the label: more for rows whose outcome contradicts the click (Ouyang et al. 2023, eq. 18).

With p the predicted CTR and thresholds h1 (high) and h2 (low), a row without conversion weighs more where p > h1 and a
row with one where p < h2:

    w0(p) = w(p / h1) where p > h1, else 1        w1(p) = w(h2 / p) where p < h2, else 1        w = w1 if y = 1 else w0

The paper's formula is lost; three forms of w, for a ratio above 1, are consistent with its text:

    power    min(cap, ratio^epsilon)                     1 at the threshold and at epsilon = 0
    linear   min(cap, 1 + epsilon * excess)              excess = p / h1 - 1, or 1 - p / h2; 1 there as well
    jump     min(cap, epsilon * ratio)                   epsilon at the threshold, whatever the row before it weighs

A weight that depends on the label moves what is estimated: the loss w1 y log s + w0 (1 - y) log(1 - s) is least in the
mean at odds(s) = odds(P) w1 / w0, P the probability of the label. `undo_weights` takes that back. Nothing here
detaches: a system hands in a detached p, or its weights would move the tower of the click.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from postclick.losses.probability import LogProbability
from postclick.losses.reduce import mean_over_exposures

__all__ = ["LabelWeights", "WeightForm", "contradiction_weights", "reweighted_shares", "undo_weights"]

WeightForm = Literal["power", "linear", "jump"]
_LARGEST = 1e30
"""Stands for the ratio to a CTR of 0: its powers are infinite and capped, and 0 times it is 0."""


@dataclass(frozen=True)
class LabelWeights:
    """What a row weighs with either label, [B] each.

    Parameters
    ----------
    negative, positive
        w0 and w1, above 0.
    """

    negative: Tensor
    positive: Tensor

    def of(self, label: Tensor) -> Tensor:
        """Return the weight of each row by its label in {0, 1}, [B]."""
        return torch.where(label > 0.5, self.positive, self.negative)


def contradiction_weights(
    ctr: Tensor, *, high: Tensor, low: Tensor, form: WeightForm = "power", epsilon: float = 3.0, cap: float = 4.0
) -> LabelWeights:
    """Return w0 and w1, [B] each.

    Parameters
    ----------
    ctr
        p, [B], probabilities, detached.
    high, low
        h1 and h2, scalars; infinite ones weigh no row.
    form
        w, see above.
    epsilon
        At least 0. With 0 a jump weighs rows 0, which `undo_weights` cannot take back.
    cap
        Upper bound of a weight, at least 1.

    Raises
    ------
    ValueError
        Where `epsilon` or `cap` is out of range, or a form is not known.
    """
    if not (0.0 <= epsilon < float("inf") and cap >= 1.0):
        raise ValueError(f"expected an epsilon of at least 0 and a cap of at least 1, got {epsilon} and {cap}")
    one = torch.ones_like(ctr)
    above, below = ctr / high, low / ctr
    if form == "linear":  # (h2 - p) / h2 in place of h2 / p - 1: the text of this form divides by the threshold
        negative, positive = 1.0 + epsilon * _bounded(above - 1.0), 1.0 + epsilon * _bounded(1.0 - ctr / low)
    elif form == "power":
        negative, positive = _bounded(above) ** epsilon, _bounded(below) ** epsilon
    elif form == "jump":
        negative, positive = epsilon * _bounded(above), epsilon * _bounded(below)
    else:
        raise ValueError(f"expected the form power, linear or jump, got {form!r}")
    return LabelWeights(
        torch.where(ctr > high, negative.clamp(max=cap), one), torch.where(ctr < low, positive.clamp(max=cap), one)
    )


def _bounded(ratio: Tensor) -> Tensor:
    return ratio.clamp(max=_LARGEST)


@torch.no_grad()
def reweighted_shares(weights: LabelWeights, label: Tensor, sample_weight: Tensor | None) -> dict[str, Tensor]:
    """Return shares of exposures that weigh other than 1, scalars: ``reweighted/high`` with y = 0, ``/low`` with y = 1.

    Parameters
    ----------
    weights, label
        Of B exposures.
    sample_weight
        [B], or None for 1.
    """
    other = {"high": (weights.negative != 1.0) * (1.0 - label), "low": (weights.positive != 1.0) * label}
    return {f"reweighted/{name}": mean_over_exposures(rows, sample_weight) for name, rows in other.items()}


def undo_weights(weighted: LogProbability, weights: LabelWeights) -> LogProbability:
    """Return P with odds(P) = odds(s) w0 / w1, [B]: what was estimated before labels had weights.

    P = s w0 / (s w0 + (1 - s) w1), in logarithms; a row whose weights are equal keeps its bits.

    Parameters
    ----------
    weighted
        s, of a head that was trained with the weights.
    weights
        Of the same rows.
    """
    yes, no = weighted.log_p + weights.negative.log(), weighted.log_not_p + weights.positive.log()
    total = torch.logaddexp(yes, no)
    same = weights.negative == weights.positive
    return LogProbability(
        torch.where(same, weighted.log_p, yes - total), torch.where(same, weighted.log_not_p, no - total)
    )
