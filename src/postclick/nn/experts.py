"""Experts and gates: K small networks on one input, and a softmax that mixes them.

Shapes: B rows, D input width, K experts, H expert width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn

from postclick.binding import Argument
from postclick.nn.tower import Perceptron, Tower

__all__ = ["ExpertBank", "Experts", "Gate", "mix"]


@dataclass(frozen=True)
class Experts:
    """How many experts and of what shape; defaults are those of AITM (Xi et al. 2021, Table 4) for two tasks.

    Parameters
    ----------
    count
        K, experts that all tasks share (OMoE, MMoE).
    specific, shared
        Experts of each task alone, and of all tasks, at each level (CGC, PLE).
    levels
        Extraction levels (1 is CGC).
    hidden
        Widths of an expert's layers.
    dropout
        Rate after each layer, or one for all.

    Raises
    ------
    ValueError
        On a count below 1, no expert at all at a level, or a bad shape.
    """

    count: Annotated[int, Argument("experts that all tasks share (omoe, mmoe)", paper=8, low=2, high=16)] = 4
    specific: Annotated[int, Argument("experts of each task alone, a level (ple)", low=1, high=4)] = 1
    shared: Annotated[int, Argument("experts of all tasks, a level (ple)", low=1, high=4)] = 2
    levels: Annotated[int, Argument("extraction levels (ple); one is CGC", paper=2, low=1, high=3)] = 1
    hidden: Annotated[tuple[int, ...], Argument("widths of an expert's layers")] = (64, 32, 16)
    dropout: Annotated[tuple[float, ...], Argument("rate after each layer, or one for all")] = (0.1, 0.3, 0.3)

    def __post_init__(self) -> None:
        object.__setattr__(self, "hidden", tuple(self.hidden))
        object.__setattr__(self, "dropout", tuple(self.dropout))
        if self.count < 1 or self.levels < 1:
            raise ValueError(f"count and levels are at least 1, got {self.count} and {self.levels}")
        if self.specific < 0 or self.shared < 0 or self.specific + self.shared < 1:
            raise ValueError(f"a level needs an expert, got {self.specific} specific and {self.shared} shared")
        if not self.hidden:
            raise ValueError("an expert has at least one layer")
        _ = self.network

    @property
    def network(self) -> Tower:
        """The layers of one expert."""
        return Tower(self.hidden, self.dropout)


class ExpertBank(nn.Module):
    """K networks of one shape on one input, [B, D] -> [B, K, H].

    Each draws its own weights: experts that start equal stay equal.

    Parameters
    ----------
    width
        D.
    count
        K; 0 gives [B, 0, H].
    network
        Layers of an expert.
    """

    def __init__(self, width: int, count: int, network: Tower) -> None:
        super().__init__()
        self.experts = nn.ModuleList(Perceptron(width, network) for _ in range(count))
        self.width = network.hidden[-1]

    def __len__(self) -> int:
        return len(self.experts)

    def forward(self, x: Tensor) -> Tensor:
        """Return the experts' outputs; `width` is H."""
        if not len(self.experts):
            return x.new_zeros(len(x), 0, self.width)
        return torch.stack([expert(x) for expert in self.experts], dim=1)


class Gate(nn.Module):
    """softmax(W x), W in R^{K x D} without bias, [B, D] -> [B, K] (Ma et al. 2018).

    Parameters
    ----------
    width
        D.
    experts
        K.
    """

    def __init__(self, width: int, experts: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, experts, bias=False)
        if not self.linear.weight.is_meta:
            nn.init.xavier_normal_(self.linear.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Return weights that are positive and sum to 1 a row."""
        logits: Tensor = self.linear(x)
        return logits.softmax(dim=-1)


def mix(weights: Tensor, experts: Tensor) -> Tensor:
    """Return sum_k g_k f_k, [B, K] and [B, K, H] -> [B, H]."""
    return torch.bmm(weights.unsqueeze(1), experts).squeeze(1)
