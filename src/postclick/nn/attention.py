"""Target attention: a sequence pooled by how each of its values fits the candidate.

Shapes: B rows, L values of all rows together, E embedding size, H hidden width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from postclick.nn.features import Sequence
from postclick.nn.initialise import initialise_hidden, initialise_linear
from postclick.nn.segments import Segments

__all__ = ["TargetAttention"]

HIDDEN = 16
"""H. Zhou et al. have 80 and 40 for larger embeddings; 32 learn no faster than 16 and take a tenth longer a step."""


class TargetAttention(nn.Module):
    r"""A sequence as the sum of its values, each weighted by how it fits the candidate (DIN, Zhou et al., KDD 2018).

    With e_1 ... e_n the embeddings of a row's values, e_t that of its target and w_i the logged weights (1 without),

        a_i = u . relu(W [e_i, e_t, e_i - e_t, e_i * e_t] + b) + c          v = sum_i w_i a_i e_i

    The a_i are neither positive nor normalised, as in the paper: a history with three fitting values says more than
    one with a single one. An empty sequence gives the zero vector. c starts at 1, which is `sum` pooling but for a few
    hundredths. Rows are segments of one list: nothing is padded, and no row depends on its neighbours.

    Parameters
    ----------
    size
        E.
    hidden
        H.
    """

    def __init__(self, size: int, hidden: int = HIDDEN) -> None:
        super().__init__()
        self.hidden = nn.Linear(4 * size, hidden)
        self.score = nn.Linear(hidden, 1)
        initialise_hidden(self.hidden)
        initialise_linear(self.score, bias=1.0)

    def forward(self, values: Tensor, target: Tensor, sequence: Sequence) -> Tensor:
        """Return v, [B, E], from the embeddings of the values, [L, E], and of the targets, [B, E]."""
        segments = Segments(sequence.offsets, len(values))
        attention = self.attention(values, target, segments)
        if sequence.weights is not None:
            attention = attention * sequence.weights.to(attention.dtype)
        return segments.weighted_sum(attention, values)

    def attention(self, values: Tensor, target: Tensor, segments: Segments) -> Tensor:
        """Return a, [L]."""
        # W [e_i, e_t, e_i - e_t, ...] = (W1 + W3) e_i + (W2 - W3) e_t + ...: the second once a row, not once a value
        own, other, difference, product = self.hidden.weight.chunk(4, dim=1)  # [H, E] each
        by_row = torch.addmm(self.hidden.bias, target, (other - difference).t())  # [B, H]
        pairs = torch.cat([values, values * segments.spread(target)], dim=1)  # [L, 2E]
        weight = torch.cat([own + difference, product], dim=1)
        score: Tensor = self.score(torch.addmm(segments.spread(by_row), pairs, weight.t()).relu_())
        return score.squeeze(-1)
