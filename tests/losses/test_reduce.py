"""Means over exposures and over clicks: the divisor is the sum of weights, whatever is 0."""

import pytest
import torch

from postclick.losses.reduce import mean_over_clicks, mean_over_exposures

PER_ROW = torch.tensor([1.0, 0.0, 4.0, 2.0])


def test_hand_computed():
    assert mean_over_exposures(PER_ROW, None).item() == 7 / 4
    assert mean_over_exposures(PER_ROW, torch.tensor([1.0, 2.0, 0.5, 0.0])).item() == pytest.approx(3 / 3.5)


def test_a_weight_of_two_is_a_duplicate():
    doubled = mean_over_exposures(PER_ROW, torch.tensor([1.0, 1.0, 2.0, 1.0]))
    assert doubled.item() == pytest.approx(mean_over_exposures(torch.tensor([1.0, 0.0, 4.0, 4.0, 2.0]), None).item())


def test_scale_of_the_weights_does_not_matter():
    weight = torch.tensor([0.3, 2.0, 0.5, 1.0])
    one, other = mean_over_exposures(PER_ROW, weight), mean_over_exposures(PER_ROW, 1000 * weight)
    assert one.item() == pytest.approx(other.item())


@pytest.mark.parametrize("weight", [None, torch.zeros(0)])
def test_an_empty_batch_is_zero(weight):
    assert mean_over_exposures(torch.zeros(0), weight).item() == 0.0


def test_all_zero_weights_are_finite_with_zero_gradient():
    x = torch.ones(3, requires_grad=True)
    loss = mean_over_exposures(x**2, torch.zeros(3))
    loss.backward()
    assert loss.item() == 0.0
    assert torch.equal(x.grad, torch.zeros(3))


def test_the_mean_over_clicks_by_hand():
    click = torch.tensor([1.0, 1.0, 0.0, 1.0])
    assert mean_over_clicks(PER_ROW, click, None).item() == pytest.approx(3 / 3)
    assert mean_over_clicks(PER_ROW, click, torch.tensor([1.0, 2.0, 9.0, 0.5])).item() == pytest.approx(2 / 3.5)


@pytest.mark.parametrize("weight", [None, torch.ones(4)])
def test_a_batch_without_a_click_is_zero_with_zero_gradient(weight):
    x = torch.ones(4, requires_grad=True)
    loss = mean_over_clicks(x**2, torch.zeros(4), weight)
    loss.backward()
    assert loss.item() == 0.0
    assert torch.equal(x.grad, torch.zeros(4))
