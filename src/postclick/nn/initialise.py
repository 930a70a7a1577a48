"""Starting values of weights, in one place with their reasons."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

__all__ = [
    "EMBEDDING_SCALE",
    "initialise_embedding",
    "initialise_hidden",
    "initialise_linear",
    "initialise_output",
    "log_odds_of_rate",
]

EMBEDDING_SCALE = 0.05
"""Standard deviation of a new table row. The towers keep the size of their input, so the first logits are the base
rate's but for a few hundredths, and a rare value stays near its field's mean (0) until it has been seen."""
_RATE_FLOOR = 1e-6


@torch.no_grad()
def initialise_embedding(weight: Tensor, unknown_rows: int) -> None:
    """Draw N(0, 0.05^2) in place; the first `unknown_rows` rows are 0, the mean of what the others are drawn from."""
    if weight.is_meta:  # a shape without numbers, about to be loaded: drawing would import torch._refs, seconds
        return
    weight.normal_(0.0, EMBEDDING_SCALE)
    weight[:unknown_rows] = 0.0


@torch.no_grad()
def initialise_hidden(layer: nn.Linear) -> None:
    """Draw N(0, 2 / inputs) in place: keeps the variance through a ReLU (He et al. 2015); biases are 0."""
    if layer.weight.is_meta:
        return
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    nn.init.zeros_(layer.bias)


@torch.no_grad()
def initialise_output(layer: nn.Linear, rate: float) -> None:
    """Draw N(0, 2 / (inputs + outputs)) in place (Glorot and Bengio 2010); the bias is the log-odds of the base rate.

    Without it the first thousand steps on a log with 4 % clicks move nothing but the bias.
    """
    initialise_linear(layer, log_odds_of_rate(rate))


@torch.no_grad()
def initialise_linear(layer: nn.Linear, bias: float = 0.0) -> None:
    """Draw N(0, 2 / (inputs + outputs)) in place, for a layer without activation; every bias is `bias`."""
    if layer.weight.is_meta:
        return
    nn.init.xavier_normal_(layer.weight)
    if layer.bias is not None:
        nn.init.constant_(layer.bias, bias)


def log_odds_of_rate(rate: float) -> float:
    """Return log(rate / (1 - rate)) with `rate` held in [1e-6, 1 - 1e-6], so a log without a positive is finite."""
    held = min(max(rate, _RATE_FLOOR), 1.0 - _RATE_FLOOR)
    return math.log(held) - math.log1p(-held)
