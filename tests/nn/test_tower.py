"""Towers against a hand-written forward pass; shapes are checked when they are declared."""

import dataclasses

import numpy as np
import pytest
import torch

from postclick.nn.dropout import Dropout
from postclick.nn.tower import Head, Perceptron, Tower


def test_forward_equals_numpy():
    torch.manual_seed(0)
    tower = Perceptron(6, Tower((5, 4), (0.5, 0.5))).eval()
    head = Head(tower.width, 0.2)
    x = torch.randn(7, 6)
    hidden = x.double().numpy()
    for index in (0, 3):
        layer = tower.steps[index]
        hidden = np.maximum(hidden @ layer.weight.detach().double().numpy().T + layer.bias.detach().double().numpy(), 0)
    weight, bias = head.linear.weight.detach().double().numpy()[0], head.linear.bias.item()
    logits = head(tower(x))
    assert logits.shape == (7,)
    np.testing.assert_allclose(logits.detach().numpy(), hidden @ weight + bias, rtol=1e-5, atol=1e-6)


def test_relu_and_dropout_commute():
    x = torch.randn(1000)
    drop = Dropout(0.4)
    torch.manual_seed(3)
    one = drop(torch.relu(x))
    torch.manual_seed(3)
    other = torch.relu(drop(x))
    torch.testing.assert_close(one, other)


def test_no_hidden_layer_is_a_linear_model():
    tower = Perceptron(6, Tower(hidden=()))
    x = torch.randn(3, 6)
    assert tower.width == 6
    assert torch.equal(tower(x), x)


def test_rates_of_the_layers():
    assert Tower().rates == (0.1, 0.3, 0.3)
    assert Tower((8, 8), (0.2,)).rates == (0.2, 0.2)
    assert Tower((), ()).rates == ()
    steps = Perceptron(4, Tower((3, 2), (0.1, 0.4))).steps
    assert [step.p for step in steps if isinstance(step, Dropout)] == [0.1, 0.4]


@pytest.mark.parametrize(
    ("hidden", "dropout", "message"),
    [
        ((8, 0), (0.1,), r"hidden widths are at least 1, got \[8, 0\]"),
        ((8,), (1.0,), r"dropout rates lie in \[0, 1\), got \[1.0\]"),
        ((8, 8), (0.1, 0.1, 0.1), "2 hidden layers but 3 dropout rates: give one rate a layer or one for all"),
        ((8, 8), (), "2 hidden layers but 0 dropout rates"),
    ],
)
def test_refuses_impossible_shapes(hidden, dropout, message):
    with pytest.raises(ValueError, match=message):
        Tower(hidden, dropout)


def test_tower_is_frozen_and_hashable_even_from_lists():
    tower = Tower([8, 4], [0.1])
    assert hash(tower) == hash(Tower((8, 4), (0.1,)))
    with pytest.raises(dataclasses.FrozenInstanceError):
        tower.hidden = (1,)
