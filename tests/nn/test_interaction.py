"""Interactions against plain loops over pairs and layers, and their gradients."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from postclick.nn.interaction import CrossNetwork, Interaction, bi_interaction


@given(st.integers(1, 5), st.integers(1, 7), st.integers(1, 4))
@settings(max_examples=30, deadline=None)
def test_bi_interaction_is_the_sum_over_pairs(rows, fields, size):
    x = torch.randn(rows, fields, size, generator=torch.Generator().manual_seed(fields), dtype=torch.float64)
    expected = np.zeros((rows, size))
    for row in range(rows):
        for i in range(fields):
            for j in range(i + 1, fields):
                expected[row] += (x[row, i] * x[row, j]).numpy()
    np.testing.assert_allclose(bi_interaction(x).numpy(), expected, atol=1e-10)


def network(width, layers, rank=None, dtype=torch.float64):
    """Biases away from their 0."""
    torch.manual_seed(0)
    cross = CrossNetwork(width, layers, rank).to(dtype)
    for name, parameter in cross.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter)
    return cross


def by_loop(cross, x, rank):
    """x_{l+1} = x_0 * (W x_l + b) + x_l, one row and one output at a time."""
    out = np.zeros_like(x)
    for row, start in enumerate(x):
        now = start.copy()
        for layer in cross.layers:
            outer, inner = (layer, None) if rank is None else (layer[1], layer[0])
            weight, bias = outer.weight.detach().numpy(), outer.bias.detach().numpy()
            matrix = weight if inner is None else weight @ inner.weight.detach().numpy()
            assert np.linalg.matrix_rank(matrix) == (rank or len(start))
            now = np.array([start[i] * (matrix[i] @ now + bias[i]) + now[i] for i in range(len(start))])
        out[row] = now
    return out


@pytest.mark.parametrize("rank", [None, 2])
@pytest.mark.parametrize("layers", [1, 3])
def test_cross_network_equals_a_plain_loop(layers, rank):
    cross = network(5, layers, rank)
    x = torch.randn(4, 5, dtype=torch.float64)
    np.testing.assert_allclose(cross(x).detach().numpy(), by_loop(cross, x.numpy(), rank), rtol=1e-10)


@pytest.mark.parametrize("rank", [None, 2])
def test_gradients_by_finite_differences(rank):
    cross = network(3, 2, rank)
    x = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)

    def forward(x, *parameters):
        return torch.func.functional_call(cross, dict(zip(dict(cross.named_parameters()), parameters, strict=True)), x)

    assert torch.autograd.gradcheck(forward, (x, *cross.parameters()))
    fields = torch.randn(2, 3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(bi_interaction, (fields,))


def test_layers_form_products_of_one_more_factor():
    """Along a ray s x_0 an L-layer network without biases is a polynomial of degree L + 1 in s."""
    for layers in (1, 2, 3):
        torch.manual_seed(0)
        cross, x = CrossNetwork(4, layers).double(), torch.randn(1, 4, dtype=torch.float64)
        values = torch.cat([cross(scale * x) for scale in range(layers + 3)])[:, 0].detach().numpy()
        differences = [np.diff(values, n)[0] for n in (layers + 1, layers + 2)]
        assert abs(differences[0]) > 1e-6
        assert abs(differences[1]) < 1e-9 * max(1, np.abs(values).max())


def test_a_rank_has_fewer_parameters():
    full, low = (sum(p.numel() for p in network(40, 1, rank).parameters()) for rank in (None, 4))
    assert (full, low) == (40 * 40 + 40, 2 * 40 * 4 + 40)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layers": 0}, "a cross network has at least one layer, got 0"),
        ({"rank": 0}, "a rank is at least 1, got 0"),
        ({"kind": "fm", "rank": 4}, "rank is of kind = 'cross'; an fm interaction has none"),
    ],
)
def test_shapes_are_checked_when_declared(arguments, message):
    with pytest.raises(ValueError, match=message):
        Interaction(**arguments)
