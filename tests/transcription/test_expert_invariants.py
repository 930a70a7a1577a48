"""What must hold of experts and gates (SYSTEMS section 15, 2 and 3), and twins with the bugs of public code."""

import itertools

import numpy as np
import pytest
import torch

from postclick.nn.experts import mix
from postclick.nn.trunk import PLELevel

SMALL = {"hidden": [4], "dropout": [0.0]}
MIXED = {"experts": {**SMALL, "count": 4}}
WIDE = {"hidden": [16], "dropout": [0.0]}
NEW = {
    "omoe": {"experts": {**WIDE, "count": 4}},
    "mmoe": {"experts": {**WIDE, "count": 4}},
    "ple": {"experts": {**WIDE, "specific": 3, "shared": 2}},
}


def three_and_two(levels):
    return {"experts": {**SMALL, "specific": 3, "shared": 2, "levels": levels}}


def nothing(model):
    """Plant no bug."""


def slopes(model, given, task, parameters):
    """Return d sum of a task's logits / d parameters, as arrays."""
    total = model.network(given.batch.features).logits[task].sum()
    found = torch.autograd.grad(total, list(parameters), allow_unused=True, materialize_grads=True)
    return [gradient.numpy() for gradient in found]


def moves(model, given, task, parameters):
    return any(np.abs(gradient).max() > 0 for gradient in slopes(model, given, task, parameters))


# --- OMoE is MMoE with tied gates ------------------------------------------------------------------------------------


def tie(mmoe, omoe):
    """Give `mmoe` the weights of `omoe`, the one gate twice."""
    gate = {"network.trunk.gates.1.linear.weight": omoe.network.trunk.gates[0].linear.weight}
    mmoe.load_state_dict({**omoe.state_dict(), **gate})


def check_tied(harness, plant):
    omoe, mmoe = (harness.system(key, MIXED, seed) for seed, key in enumerate(("omoe", "mmoe")))
    tie(mmoe, omoe)
    plant(omoe)
    given = harness.instance(3)
    found = [model(given.batch) for model in (omoe, mmoe)]
    for name in ("ctr", "cvr", "ctcvr"):
        one, other = (getattr(outputs, name).log_p for outputs in found)
        torch.testing.assert_close(one, other, rtol=1e-12, atol=0)
    for model, outputs in zip((omoe, mmoe), found, strict=True):
        sum(model.loss(outputs, given.batch).terms.values()).backward()
    both = sum(gate.linear.weight.grad for gate in mmoe.network.trunk.gates)
    torch.testing.assert_close(omoe.network.trunk.gates[0].linear.weight.grad, both, rtol=1e-9, atol=1e-15)


def check_free(harness, plant):
    """A gate moves its own task and no other."""
    model, given = harness.system("mmoe", MIXED, 1), harness.instance(3)
    plant(model)
    for (number, gate), task in itertools.product(enumerate(model.network.trunk.gates), model.network.tasks):
        assert moves(model, given, task, gate.parameters()) == (model.network.tasks[number] == task)


def biased_gate(model):
    """A gate with a bias (torch-rechub)."""
    linear = model.network.trunk.gates[0].linear
    linear.bias = torch.nn.Parameter(torch.linspace(-1, 1, linear.out_features).double())


def one_gate(model):
    gates = model.network.trunk.gates
    gates[1] = gates[0]


def test_omoe_is_mmoe_with_tied_gates(harness):
    check_tied(harness, nothing)
    check_free(harness, nothing)


def test_a_biased_or_a_common_gate_is_told(harness):
    with pytest.raises(AssertionError):
        check_tied(harness, biased_gate)
    with pytest.raises(AssertionError):
        check_free(harness, one_gate)


# --- PLE with one level is CGC; without specific experts it is MMoE --------------------------------------------------


def check_cgc(harness, equations, state, plant):
    model, given = harness.system("ple", three_and_two(1), 2), harness.instance(4)
    plant(model)
    logits = equations.cgc(given.x, state.network_weights("ple", harness.arrays(model)))
    for task, found in model.network(given.batch.features).logits.items():
        np.testing.assert_allclose(found.detach().numpy(), logits[task], rtol=1e-9, atol=1e-12)


def check_own_experts(harness, plant):
    """On the last level an expert moves its own task and no other, and every one of them moves it."""
    model, given = harness.system("ple", three_and_two(1), 2), harness.instance(4)
    plant(model)
    tasks, own = model.network.tasks, model.network.trunk.levels[0].own
    for (number, bank), task in itertools.product(enumerate(own), tasks):
        for expert in bank.experts:
            assert moves(model, given, task, expert.parameters()) == (tasks[number] == task)


def check_shared_gate(harness, plant):
    """Below the last level every expert moves every task, through the shared gate (eq. 6)."""
    model, given = harness.system("ple", three_and_two(2), 2), harness.instance(4)
    plant(model)
    for bank, task in itertools.product(model.network.trunk.levels[0].own, model.network.tasks):
        assert all(moves(model, given, task, expert.parameters()) for expert in bank.experts)


def check_without_specific_experts(harness, plant):
    arguments = {"experts": {**SMALL, "specific": 0, "shared": 4, "levels": 1}}
    ple, mmoe = harness.system("ple", arguments, 0), harness.system("mmoe", MIXED, 1)
    renamed = {"trunk.levels.0.shared.": "trunk.bank.", "trunk.levels.0.gates.": "trunk.gates."}
    weights = ple.state_dict()
    for old, new in renamed.items():
        weights = {name.replace(old, new): value for name, value in weights.items()}
    mmoe.load_state_dict(weights)
    plant(ple)
    given = harness.instance(4)
    for name in ("ctr", "cvr", "ctcvr"):
        one, other = (getattr(model(given.batch), name).log_p for model in (ple, mmoe))
        torch.testing.assert_close(one, other, rtol=1e-12, atol=0)


class WrongIndex(PLELevel):
    """Task i's expert j is number i * tasks + j of all (PaddleRec), not i * specific + j."""

    def _outputs(self, inputs, common):
        *own, shared = super()._outputs(inputs, common)
        tasks, every = len(own), torch.cat(own, dim=1)
        return [*(every[:, i * tasks : i * tasks + bank.shape[1]] for i, bank in enumerate(own)), shared]


class SharedOnly(PLELevel):
    """The shared gate weighs the shared experts alone."""

    def forward(self, inputs, common):
        mixed, mixture, weights = super().forward(inputs, common)
        if self.shared_gate is not None:
            logits = self.shared_gate.linear(common)[:, -len(self.shared) :]
            mixture = mix(logits.softmax(1), self.shared(common))
        return mixed, mixture, weights


def wrong_index(model):
    for level in model.network.trunk.levels:
        level.__class__ = WrongIndex


def shared_only(model):
    for level in model.network.trunk.levels:
        level.__class__ = SharedOnly


def level_gate(model):
    """One gate for all tasks of a level."""
    for level in model.network.trunk.levels:
        level.gates[1] = level.gates[0]


def test_one_level_is_cgc(harness, equations, state):
    check_cgc(harness, equations, state, nothing)
    check_own_experts(harness, nothing)


def test_the_wrong_expert_index_is_told(harness, equations, state, parity):
    with pytest.raises(AssertionError):
        check_cgc(harness, equations, state, wrong_index)
    with pytest.raises(AssertionError):
        check_own_experts(harness, wrong_index)
    for levels in (1, 2):
        with pytest.raises(AssertionError):
            parity.everywhere(harness.Case("ple", "ple", "heads_objective", three_and_two(levels)), wrong_index)


def test_the_wrong_index_is_the_right_one_where_experts_are_as_many_as_tasks(harness, parity):
    """Why the checks take three experts a task: with two, the public code is right."""
    arguments = {"experts": {**SMALL, "specific": 2, "shared": 1, "levels": 2}}
    parity.everywhere(harness.Case("ple", "ple", "heads_objective", arguments), wrong_index)


def test_the_shared_gate_sees_every_expert(harness):
    check_shared_gate(harness, nothing)


def test_a_shared_gate_over_shared_experts_is_told(harness, parity):
    with pytest.raises(AssertionError):
        check_shared_gate(harness, shared_only)
    with pytest.raises(AssertionError):
        parity.everywhere(harness.Case("ple", "ple", "heads_objective", three_and_two(2)), shared_only)


def test_without_specific_experts_it_is_mmoe(harness):
    check_without_specific_experts(harness, nothing)
    with pytest.raises(AssertionError):
        check_without_specific_experts(harness, level_gate)


# --- experts and gates draw their own weights ------------------------------------------------------------------------


def new_pairs(harness, key, plant):
    """Yield (name, name, values apart, gradients apart) of every two weights of one shape in a new trunk."""
    torch.manual_seed(0)
    model = harness.build_new(key, NEW[key])
    plant(model)
    given = harness.instance(5, rows=200)
    sum(model.loss(model(given.batch), given.batch).terms.values()).backward()
    weights = [(name, value) for name, value in model.network.trunk.named_parameters() if value.dim() == 2]
    for (one, a), (other, b) in itertools.combinations(weights, 2):
        if a.shape == b.shape:
            yield one, other, (a - b).abs().max().item(), (a.grad - b.grad).abs().max().item()


def check_start(harness, key, plant):
    pairs = list(new_pairs(harness, key, plant))
    assert len(pairs) >= 6
    assert all(values > 1e-2 for *_, values, _ in pairs), "two start alike"


def check_move(harness, key, plant):
    """Gradients differ, or nothing would ever part the two."""
    assert all(gradients > 1e-6 for *_, gradients in new_pairs(harness, key, plant)), "two move alike"


def constant(model):
    """Constant initialisers 10^-i a layer (PaddleRec's mmoe and ple)."""
    with torch.no_grad():
        for parameter in model.network.trunk.parameters():
            parameter.fill_(0.1)


@pytest.mark.parametrize("key", NEW)
def test_experts_and_gates_start_and_move_apart(harness, key):
    check_start(harness, key, nothing)
    check_move(harness, key, nothing)


@pytest.mark.parametrize("key", NEW)
def test_a_constant_start_is_told(harness, key):
    with pytest.raises(AssertionError, match="start alike"):
        check_start(harness, key, constant)
    with pytest.raises(AssertionError, match="move alike"):
        check_move(harness, key, constant)
