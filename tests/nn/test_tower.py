"""Towers against a hand-written forward pass; shapes are checked when they are declared."""

import dataclasses

import numpy as np
import pytest
import torch

from postclick.nn.dropout import Dropout, random_bits
from postclick.nn.tower import Head, Perceptron, Tower, side_by_side


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


@pytest.mark.parametrize("rates", [(0.0,), (0.1, 0.5, 0.3), (0.4, 0.0, 0.9)])
@pytest.mark.parametrize("width", [6, 16, 31])
def test_training_gives_the_values_and_gradients_of_its_layers_one_by_one(rates, width):
    tower = Perceptron(width, Tower((32, 4, 3), rates))
    pull = torch.randn(50, 3)

    def one_by_one(x):
        """The layers as they are written, with the same bits."""
        drops = [step for step in tower.steps if isinstance(step, Dropout)]
        sizes = [50 * hidden if drop.p else 0 for hidden, drop in zip((32, 4, 3), drops, strict=True)]
        for index, bits in enumerate(random_bits(sum(sizes)).split(sizes)):
            x = torch.relu(tower.steps[3 * index](x))
            if len(bits):
                x = x * torch.where(bits.view(x.shape) < drops[index].below, 0.0, drops[index].scale)
        return x

    found = []
    for forward in (tower, one_by_one):
        x = torch.randn(50, width, generator=torch.Generator().manual_seed(1)).requires_grad_()
        tower.zero_grad()
        torch.manual_seed(2)
        out = forward(x)
        (out * pull).sum().backward()
        found.append([out, x.grad, *(parameter.grad for parameter in tower.parameters())])
    assert (found[0][0] == 0).any()
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


def test_training_has_first_and_second_derivatives():
    torch.manual_seed(0)
    tower = Perceptron(4, Tower((5, 3), (0.3,))).double()

    def trained(x):
        torch.manual_seed(3)
        return tower(x)

    x = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(trained, (x,))
    # relu is piecewise linear, so its square is what has a second derivative
    assert torch.autograd.gradgradcheck(lambda x: trained(x) ** 2, (x,))


@pytest.mark.parametrize("layer", [0, 3])
def test_training_passes_on_what_is_not_finite(layer):
    tower = Perceptron(3, Tower((4, 2), (0.5,)))
    with torch.no_grad():
        tower.steps[layer].weight.fill_(float("nan"))
    assert tower(torch.randn(5, 3)).isnan().any()


def test_an_input_that_needs_no_gradient_gets_none_and_other_shapes_pass():
    tower = Perceptron(3, Tower((4, 2), (0.2,)))
    x = torch.randn(5, 3)
    tower(x).sum().backward()
    assert x.grad is None
    assert all(parameter.grad is not None for parameter in tower.parameters())
    assert tower(torch.randn(2, 5, 3)).shape == (2, 5, 2)


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


@pytest.mark.parametrize("hidden", [(), (5,), (8, 4, 3)])
@pytest.mark.parametrize("training", [False, True])
def test_side_by_side_gives_the_values_and_gradients_of_each_alone(hidden, training):
    torch.manual_seed(0)
    perceptrons = torch.nn.ModuleList(Perceptron(6, Tower(hidden, (0.0,))) for _ in range(3)).train(training)
    pull, found = torch.randn(20, 3, perceptrons[0].width), []
    for together in (True, False):
        x = torch.randn(20, 6, generator=torch.Generator().manual_seed(1)).requires_grad_()
        perceptrons.zero_grad()
        out = side_by_side(perceptrons, x) if together else torch.stack([each(x) for each in perceptrons], dim=1)
        (out * pull).sum().backward()
        found.append([out, x.grad, *(parameter.grad for parameter in perceptrons.parameters())])
    assert found[0][0].shape == pull.shape
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


def test_side_by_side_drops_out_each_by_itself_at_its_rate():
    torch.manual_seed(0)
    perceptrons = torch.nn.ModuleList(Perceptron(4, Tower((16, 16), (0.0, 0.25))) for _ in range(2))
    perceptrons[1].load_state_dict(perceptrons[0].state_dict())
    x = torch.randn(500, 4)
    kept = side_by_side(perceptrons.eval(), x)
    out = side_by_side(perceptrons.train(), x)
    alive = kept > 0
    dropped = (out == 0) & alive
    assert dropped[:, 0].sum() / alive[:, 0].sum() == pytest.approx(0.25, abs=0.03)
    assert (dropped[:, 0] != dropped[:, 1]).any()  # equal experts, other bits
    torch.testing.assert_close(out[alive & ~dropped], kept[alive & ~dropped] / 0.75)
