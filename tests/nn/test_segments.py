"""Segment sums and their adjoint against plain loops, and their derivatives of both orders."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from postclick.nn.segments import Segments


def segments(*lengths):
    return Segments(torch.tensor(np.r_[0, np.cumsum(lengths)].astype(np.int64)), sum(lengths))


@given(st.lists(st.integers(0, 4), max_size=6))
@settings(max_examples=40, deadline=None)
def test_sums_and_spread_equal_a_plain_loop(lengths):
    cut, total = segments(*lengths), sum(lengths)
    generator = torch.Generator().manual_seed(len(lengths))
    x, weights = torch.randn(total, 3, generator=generator), torch.randn(total, generator=generator)
    of_rows = torch.randn(len(lengths), 3, generator=generator)
    sums, weighted, place = np.zeros((len(lengths), 3)), np.zeros((len(lengths), 3)), 0
    for row, length in enumerate(lengths):
        for _ in range(length):
            sums[row] += x[place].double().numpy()
            weighted[row] += weights[place].item() * x[place].double().numpy()
            assert torch.equal(cut.spread(of_rows)[place], of_rows[row])
            place += 1
    np.testing.assert_allclose(cut.sum(x).numpy(), sums, atol=1e-5)
    np.testing.assert_allclose(cut.weighted_sum(weights, x).numpy(), weighted, atol=1e-5)
    assert cut.spread(of_rows).shape == (total, 3)


@pytest.mark.parametrize("lengths", [(2, 0, 3, 1), (0, 0), ()])
def test_derivatives_of_both_orders_by_finite_differences(lengths):
    cut, total = segments(*lengths), sum(lengths)
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(*shape, dtype=torch.float64, generator=generator).requires_grad_()

    checks = (
        (cut.spread, (draw(len(lengths), 2),)),
        (cut.sum, (draw(total, 2),)),
        (cut.weighted_sum, (draw(total), draw(total, 2))),
    )
    for function, inputs in checks:
        assert torch.autograd.gradcheck(function, inputs)
        assert torch.autograd.gradgradcheck(function, inputs)
