"""The bits are fair, the expectation is exact, the gradient is the mask."""

import pytest
import torch

from postclick.nn.dropout import Dropout, random_bits


@pytest.mark.parametrize("p", [0.1, 0.3, 0.5, 0.9])
def test_drops_at_its_rate_in_every_lane_of_the_64_bit_draws(p):
    torch.manual_seed(0)
    dropped = (Dropout(p)(torch.ones(100_000, 4)) == 0).double().mean(0)  # column j is lane j of every draw
    five_sigma = 5 * (p * (1 - p) / 100_000) ** 0.5
    assert torch.all((dropped - p).abs() < five_sigma), dropped


def test_the_lane_check_sees_a_generator_that_never_sets_the_top_bit():
    torch.manual_seed(0)
    draws = torch.empty(100_000, dtype=torch.int64).random_()  # [0, 2^63): what Tensor.random_() gives without a range
    lanes = draws.view(torch.int16).view(-1, 4)
    dropped = (lanes < round(0.3 * 65_536) - 32_768).double().mean(0)
    assert (dropped - 0.3).abs().max() > 0.25


@pytest.mark.parametrize("p", [0.1, 1 / 3, 0.999])
def test_survivors_are_divided_by_the_keep_probability(p):
    out = Dropout(p)(torch.ones(20_000, dtype=torch.float64))
    survivors = out[out != 0].unique()
    assert len(survivors) == 1
    assert survivors.item() == pytest.approx(1 / (1 - p), rel=2**-16 / (1 - p))


def test_a_rate_nearest_to_one_stays_finite():
    assert torch.isfinite(Dropout(0.9999999)(torch.ones(1000))).all()


@pytest.mark.parametrize("shape", [(0,), (1,), (3,), (7, 5), (2, 3, 5)])
def test_any_shape(shape):
    x = torch.randn(shape)
    out = Dropout(0.5)(x)
    assert out.shape == x.shape
    assert torch.all((out == 0) | torch.isclose(out, 2 * x))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_keeps_the_type(dtype):
    assert Dropout(0.5)(torch.ones(9, dtype=dtype)).dtype == dtype


def test_equal_seeds_give_equal_masks_and_the_next_draw_differs():
    drop, x = Dropout(0.3), torch.ones(1000)
    torch.manual_seed(7)
    first, second = drop(x), drop(x)
    torch.manual_seed(7)
    assert torch.equal(drop(x), first)
    assert not torch.equal(first, second)


def test_evaluation_and_rate_zero_are_the_identity():
    x = torch.randn(10)
    assert Dropout(0.5).eval()(x) is x
    assert Dropout(0.0)(x) is x


def test_a_number_is_dropped_where_its_bits_lie_below():
    drop, x = Dropout(0.3), torch.randn(400, 3)
    torch.manual_seed(7)
    bits = random_bits(1200).view(400, 3)
    torch.manual_seed(7)
    torch.testing.assert_close(drop(x), torch.where(bits < drop.below, 0.0, x / (1 - 19_661 / 65_536)))
    assert drop.active
    assert not Dropout(0.0).active
    assert not Dropout(0.3).eval().active


def test_bits_are_uniform_and_draws_in_turn_independent():
    torch.manual_seed(0)
    draws = torch.stack([random_bits(100_000) for _ in range(4)]).double()
    assert draws.min() == -32_768
    assert draws.max() == 32_767
    ones = ((draws.long().unsqueeze(-1) >> torch.arange(16)) & 1).double().mean(dim=(0, 1))
    assert (ones - 0.5).abs().max() < 5 * 0.5 / 400_000**0.5
    off_diagonal = torch.corrcoef(draws) - torch.eye(4)
    assert off_diagonal.abs().max() < 5 / 100_000**0.5
    assert [len(random_bits(count)) for count in (0, 1, 5)] == [0, 1, 5]


def test_the_gradient_is_the_mask():
    x = torch.randn(500, requires_grad=True)
    out = Dropout(0.3)(x)
    out.sum().backward()
    torch.testing.assert_close(x.grad * x.detach(), out.detach())


@pytest.mark.parametrize("p", [-0.1, 1.0, 2.0, float("nan")])
def test_refuses_a_rate_outside_its_range(p):
    with pytest.raises(ValueError, match=r"a dropout rate lies in \[0, 1\), got"):
        Dropout(p)
