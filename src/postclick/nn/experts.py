"""Experts and gates: K small networks on one input, and a softmax that mixes them.

Shapes: B rows, D input width, K experts, H expert width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, cast

import torch
from torch import Tensor, nn

from postclick.binding import Argument
from postclick.nn.tower import Perceptron, Tower, side_by_side

__all__ = ["ExpertBank", "Experts", "Gate", "banks_on_one_input", "gate_use", "gates_of", "mix"]


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
    levels: Annotated[int, Argument("extraction levels (ple); one is CGC", low=1, high=3)] = 2
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
        return banks_on_one_input([self], x)


def banks_on_one_input(banks: Sequence[ExpertBank], x: Tensor) -> Tensor:
    """Return the outputs of all experts of all banks, [B, D] -> [B, K, H], K in the order of the banks."""
    experts = [cast("Perceptron", expert) for bank in banks for expert in bank.experts]
    return side_by_side(experts, x) if experts else x.new_zeros(len(x), 0, banks[0].width)


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
    # a third of the time of torch.bmm, whose B products are too small for it
    return (weights.unsqueeze(-1) * experts).sum(dim=1)


_GATE = "gate/"


def gates_of(extras: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the gate distributions among `Outputs.extras` (``gate/TASK``), [B, K] each, by task."""
    return {name.removeprefix(_GATE): gate for name, gate in extras.items() if name.startswith(_GATE)}


@torch.no_grad()
def gate_use(gates: Mapping[str, Tensor], weight: Tensor | None = None) -> dict[str, Tensor]:
    """Return how evenly each task's gate uses its experts, as scalars without gradient.

    ``gate_entropy/TASK`` is the mean over rows of H(g) / log K: 1 where every row weighs all experts alike, 0 where
    every row takes one expert, whichever (1 for K = 1). ``gate_largest/TASK`` is max_k of the mean of g_k, in
    [1/K, 1]: near 1 all rows take the same expert, so the others are dead weight; near 1/K with a low entropy the rows
    divide the experts among them.

    Parameters
    ----------
    gates
        g by task, [B, K] each, rows that sum to 1.
    weight
        w >= 0, [B], or None for 1: means are sum(w .) / sum(w).
    """
    found = {}
    for task, gate in gates.items():
        rows = _mean_rows(torch.special.entr(gate).sum(dim=1), weight)
        choices = math.log(gate.shape[1])
        found[f"gate_entropy/{task}"] = rows / choices if choices else torch.ones_like(rows)
        found[f"gate_largest/{task}"] = _mean_rows(gate, weight).max()
    return found


def _mean_rows(values: Tensor, weight: Tensor | None) -> Tensor:
    """Return sum(w v) / sum(w) over the first axis; 0 where the weights sum to 0."""
    if weight is None:
        return values.sum(dim=0) / max(len(values), 1)
    total = weight.sum()
    return weight @ values / torch.where(total > 0, total, 1.0)
