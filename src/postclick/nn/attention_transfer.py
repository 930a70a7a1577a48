"""Transfer between two steps of a path by attention over what either tower says of a row.

Shapes: B rows, H width of both inputs.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

__all__ = ["AttentionTransfer"]

ATTENTION_SCALE = 0.01
"""Standard deviation of a new projection, as in the authors' code."""


class AttentionTransfer(nn.Module):
    """z = sum_u w_u h1(u) over u in {p, q}, w = softmax(<h2(u), h3(u)> / sqrt(H)) (Xi et al. 2021, eqs. 3-5).

    p is what the step before hands on, q what this step's own tower says. h1, h2, h3 are linear, H to H.

    Parameters
    ----------
    width
        H.
    bias
        Whether the projections have one (public ports do; the authors' code does not).
    """

    def __init__(self, width: int, *, bias: bool = False) -> None:
        super().__init__()
        self.value, self.query, self.key = (nn.Linear(width, width, bias=bias) for _ in range(3))
        for linear in (self.value, self.query, self.key):
            if not linear.weight.is_meta:
                nn.init.normal_(linear.weight, 0.0, ATTENTION_SCALE)
                if bias:
                    nn.init.zeros_(linear.bias)

    def forward(self, previous: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
        """Return z [B, H] and the weights of p and q, [B, 2]."""
        inputs = torch.stack([previous, own], dim=1)  # [B, 2, H]
        scores = (self.query(inputs) * self.key(inputs)).sum(dim=-1) / math.sqrt(inputs.shape[-1])
        weights = scores.softmax(dim=-1)  # [B, 2]
        # h1 is linear and the weights sum to 1, so the mixture may be taken first: one product in place of two
        mixed = torch.lerp(own, previous, weights[:, :1])
        return self.value(mixed), weights
