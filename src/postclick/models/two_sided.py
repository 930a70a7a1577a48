"""What systems that learn from clicked and unclicked rows have in common: a weight for either side.

A clicked row counts 1 / P(click | x), an unclicked one 1 / (1 - P(click | x)): each side alone then stands for the
whole exposure space. What either side learns is the system's own.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from postclick.losses.probability import LogProbability
from postclick.models.base import Batch
from postclick.models.debiasing import WeightedRisk

__all__ = ["TwoSidedRisk", "TwoSidedWeights"]


@dataclass(frozen=True)
class TwoSidedWeights:
    """Weights of a batch, [B] each: w1, 0 on unclicked rows, and w0, 0 on clicked rows."""

    clicked: Tensor
    unclicked: Tensor
    diagnostics: dict[str, Tensor]


@dataclass(frozen=True)
class TwoSidedRisk(WeightedRisk):
    """As `WeightedRisk`, on both sides: w1 = o min(1 / max(p, c1), cap) and w0 = (1 - o) min(1 / max(1 - p, c0), cap).

    The floors are `propensity_floor` times the share of the side in the training log: c1 of its CTR, c0 of 1 - CTR.
    Self-normalised, w1 sums to the rows of the batch over its clicks, and w0 over its unclicked rows.
    """

    def both_sides(
        self, click: Tensor, propensity: LogProbability | Tensor, base_ctr: float, batch: Batch
    ) -> TwoSidedWeights:
        """Return the weights of a batch; nothing is detached here.

        Parameters
        ----------
        click
            o, [B].
        propensity
            p, [B], from `debiasing.propensities`.
        base_ctr
            ``spec.ctr``.
        batch
            Its sample weights count in the means that self-normalisation divides by.
        """
        rest = propensity.complement() if isinstance(propensity, LogProbability) else 1.0 - propensity
        clicked = self.weights(click, propensity, base_ctr, batch)
        unclicked = self.weights(1.0 - click, rest, 1.0 - base_ctr, batch)
        others = {f"{name}/unclicked": value for name, value in unclicked.diagnostics.items()}
        return TwoSidedWeights(clicked.rows, unclicked.rows, {**clicked.diagnostics, **others})
