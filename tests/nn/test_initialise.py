"""Scales are what the docstrings say."""

import math

import pytest
import torch
from torch import nn

from postclick.nn.initialise import (
    initialise_embedding,
    initialise_hidden,
    initialise_linear,
    initialise_output,
    log_odds_of_rate,
)


def test_embedding_scale_and_unknown_rows():
    torch.manual_seed(0)
    weight = nn.Parameter(torch.full((20_000, 8), 9.0))
    initialise_embedding(weight, unknown_rows=3)
    assert torch.all(weight[:3] == 0)
    assert weight[3:].std().item() == pytest.approx(0.05, rel=0.02)
    assert weight[3:].mean().item() == pytest.approx(0.0, abs=1e-3)


def test_hidden_layer_keeps_the_second_moment():
    torch.manual_seed(0)
    layer = nn.Linear(400, 300)
    initialise_hidden(layer)
    x = torch.randn(2000, 400)
    out = torch.relu(layer(x))
    assert (out**2).mean().item() == pytest.approx((x**2).mean().item(), rel=0.05)
    assert torch.all(layer.bias == 0)


def test_a_layer_without_activation_keeps_the_scale_and_takes_the_bias():
    torch.manual_seed(0)
    layer = nn.Linear(300, 100)
    initialise_linear(layer, bias=1.0)
    assert layer.weight.std().item() == pytest.approx((2 / 400) ** 0.5, rel=0.02)
    assert torch.all(layer.bias == 1)
    initialise_linear(nn.Linear(3, 2, bias=False))


@pytest.mark.parametrize("rate", [0.04, 0.5, 0.999])
def test_output_bias_is_the_base_rate(rate):
    layer = nn.Linear(16, 1)
    initialise_output(layer, rate)
    assert torch.sigmoid(layer.bias).item() == pytest.approx(rate, rel=1e-5)
    assert layer.weight.abs().max() > 0  # a zero weight would stop the tower's first gradient


@pytest.mark.parametrize(("rate", "held"), [(0.0, 1e-6), (1.0, 1 - 1e-6), (1e-9, 1e-6), (0.25, 0.25)])
def test_log_odds_are_finite(rate, held):
    assert log_odds_of_rate(rate) == pytest.approx(math.log(held / (1 - held)), rel=1e-9)
