"""Experts one by one, gates by hand, and what is said of how a gate uses its experts."""

import math

import pytest
import torch

from postclick.nn.experts import ExpertBank, Experts, Gate, banks_on_one_input, gate_use, gates_of, mix
from postclick.nn.tower import Tower


def test_a_bank_gives_each_experts_output():
    torch.manual_seed(0)
    bank, x = ExpertBank(6, 3, Tower((5, 4), (0.3,))).eval(), torch.randn(7, 6)
    found = bank(x)
    assert found.shape == (7, len(bank), bank.width) == (7, 3, 4)
    for index, expert in enumerate(bank.experts):
        torch.testing.assert_close(found[:, index], expert(x))


def test_no_two_experts_start_equal():
    first = [expert.steps[0].weight for expert in ExpertBank(6, 3, Tower((5,), (0.0,))).experts]
    assert not any(torch.equal(first[i], first[j]) for i in range(3) for j in range(i))


def test_banks_on_one_input_keep_their_order_and_an_empty_one_gives_nothing():
    torch.manual_seed(0)
    shape, x = Tower((5, 4), (0.0,)), torch.randn(7, 6)
    one, none, two = (ExpertBank(6, count, shape) for count in (1, 0, 2))
    torch.testing.assert_close(banks_on_one_input([one, none, two], x), torch.cat([one(x), two(x)], dim=1))
    assert none(x).shape == (7, 0, 4)


def test_a_gate_is_a_softmax_without_bias():
    gate, x = Gate(3, 4), torch.randn(5, 3)
    weights = (x @ gate.linear.weight.T).exp()
    torch.testing.assert_close(gate(x), weights / weights.sum(dim=1, keepdim=True))
    assert [name for name, _ in gate.named_parameters()] == ["linear.weight"]
    torch.testing.assert_close(gate(torch.zeros(2, 3)), torch.full((2, 4), 0.25))


def test_mix_is_the_weighted_sum():
    weights, experts = torch.rand(5, 3), torch.randn(5, 3, 4)
    found = mix(weights, experts)
    for row in range(5):
        expected = sum(weights[row, k] * experts[row, k] for k in range(3))
        torch.testing.assert_close(found[row], expected)


def test_gates_are_told_from_other_extras():
    gate = torch.ones(2, 1)
    assert gates_of({"gate/ctr": gate, "attention/ctcvr": torch.ones(2, 2)}) == {"ctr": gate}


def test_gate_use_by_hand():
    one_each = torch.eye(4)  # each row another expert
    same = torch.eye(4)[[2, 2, 2, 2]]
    even = torch.full((4, 4), 0.25)
    found = gate_use({"a": one_each, "b": same, "c": even})
    assert found["gate_entropy/a"].item() == 0
    assert found["gate_largest/a"].item() == 0.25
    assert found["gate_entropy/b"].item() == 0
    assert found["gate_largest/b"].item() == 1
    assert found["gate_entropy/c"].item() == pytest.approx(1)
    assert found["gate_largest/c"].item() == 0.25


def test_gate_use_counts_rows_by_weight():
    gate = torch.tensor([[0.9, 0.1], [0.2, 0.8]], requires_grad=True)
    found = gate_use({"ctr": gate}, torch.tensor([3.0, 1.0]))
    entropies = [-sum(p * math.log(p) for p in row) / math.log(2) for row in ((0.9, 0.1), (0.2, 0.8))]
    assert found["gate_entropy/ctr"].item() == pytest.approx((3 * entropies[0] + entropies[1]) / 4)
    assert found["gate_largest/ctr"].item() == pytest.approx((3 * 0.9 + 0.2) / 4)
    assert not found["gate_entropy/ctr"].requires_grad


@pytest.mark.parametrize("weight", [None, torch.zeros(0), torch.zeros(3)])
def test_gate_use_of_no_row_and_of_one_expert_is_finite(weight):
    rows = 3 if weight is not None and len(weight) else 0
    found = gate_use({"ctr": torch.ones(rows, 1)}, weight)
    assert found["gate_entropy/ctr"].item() == 1
    assert found["gate_largest/ctr"].item() == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"count": 0}, "count and levels are at least 1"),
        ({"levels": 0}, "count and levels are at least 1"),
        ({"specific": 0, "shared": 0}, "a level needs an expert"),
        ({"specific": -1}, "a level needs an expert"),
        ({"hidden": ()}, "at least one layer"),
        ({"dropout": (1.0,)}, "dropout rates"),
    ],
)
def test_shapes_that_cannot_be_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        Experts(**change)
