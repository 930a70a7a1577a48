"""The distance of two towers against a sum written out; the calibrator of two heads by hand."""

import pytest
import torch

from postclick.losses.constraints import expectation_calibrator, tower_distance
from postclick.losses.probability import LogProbability
from postclick.losses.reduce import mean_over_exposures


def test_distance_is_the_sum_of_all_squared_differences():
    torch.manual_seed(0)
    a, b = (torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.ReLU(), torch.nn.Linear(2, 4)) for _ in range(2))
    expected = 0.0
    for one, other in zip(a.parameters(), b.parameters(), strict=True):
        for x, y in zip(one.flatten().tolist(), other.flatten().tolist(), strict=True):
            expected += (x - y) ** 2
    distance = tower_distance(a, b)
    assert distance.item() == pytest.approx(expected, rel=1e-6)
    assert tower_distance(b, a).item() == distance.item()
    assert tower_distance(a, a).item() == 0.0
    distance.backward()
    for one, other in zip(a.parameters(), b.parameters(), strict=True):
        torch.testing.assert_close(one.grad, 2 * (one - other).detach())
        torch.testing.assert_close(other.grad, -one.grad)


def test_towers_of_other_depth_are_refused_and_empty_ones_are_equal():
    with pytest.raises(ValueError, match="zip"):
        tower_distance(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2, bias=False))
    assert tower_distance(torch.nn.ReLU(), torch.nn.ReLU()).item() == 0.0


def probabilities(values):
    """Heads of these probabilities in float64, and the leaf log p they hang on."""
    log_p = torch.tensor(values, dtype=torch.float64).log().requires_grad_()
    return LogProbability(log_p, torch.log1p(-log_p.exp())), log_p


def test_calibrator_is_the_excess_and_zero_in_order():
    ctcvr, ctr = probabilities([0.1, 0.5, 0.3, 0.8])[0], probabilities([0.3, 0.2, 0.3, 0.05])[0]
    expected = torch.tensor([0.0, 0.3, 0.0, 0.75], dtype=torch.float64)
    torch.testing.assert_close(expectation_calibrator(ctcvr, ctr), expected)
    assert not expectation_calibrator(ctr, ctr).any()


def test_gradient_of_the_calibrator_is_one_nth_a_row_out_of_order():
    (ctcvr, top), (ctr, below) = probabilities([0.1, 0.5, 0.3, 0.8]), probabilities([0.3, 0.2, 0.4, 0.05])
    mean_over_exposures(expectation_calibrator(ctcvr, ctr), None).backward()
    quarter = torch.tensor([0.0, 0.25, 0.0, 0.25], dtype=torch.float64)
    torch.testing.assert_close(top.grad / top.exp().detach(), quarter)  # by s itself: d log s = ds / s
    torch.testing.assert_close(below.grad / below.exp().detach(), -quarter)


@pytest.mark.parametrize("logit", [-1e4, 1e4])
def test_calibrator_is_finite_at_extreme_logits(logit):
    a, b = torch.tensor([logit], requires_grad=True), torch.tensor([-logit], requires_grad=True)
    value = expectation_calibrator(LogProbability.from_logit(a), LogProbability.from_logit(b))
    value.sum().backward()
    assert value.item() == float(logit > 0)
    assert torch.isfinite(a.grad).all()
    assert torch.isfinite(b.grad).all()
