"""Trunks against their equations, and the identities between them (SYSTEMS, section 15)."""

import pytest
import torch

from postclick.nn.experts import Experts
from postclick.nn.features import Features
from postclick.nn.interaction import Interaction
from postclick.nn.tower import Tower
from postclick.nn.trunk import MMoETrunk, PLETrunk, SharedTrunk, TaskNetwork, build_trunk
from postclick.schema import Schema, SparseFeature

SMALL = {"hidden": (5, 4), "dropout": (0.0,)}
V = torch.randn(7, 6, generator=torch.Generator().manual_seed(0))


def test_the_shared_trunk_hands_on_its_input():
    inputs, gates = SharedTrunk(6, 3)(V)
    assert [x is V for x in inputs] == [True, True, True]
    assert gates == []


def test_mmoe_is_a_mixture_a_task():
    trunk = MMoETrunk(6, 2, Experts(count=3, **SMALL))
    inputs, gates = trunk(V)
    outputs = [expert(V) for expert in trunk.bank.experts]
    for task in range(2):
        weights = torch.softmax(V @ trunk.gates[task].linear.weight.T, dim=1)
        torch.testing.assert_close(gates[task], weights)
        torch.testing.assert_close(inputs[task], sum(weights[:, [k]] * outputs[k] for k in range(3)))
    assert not torch.allclose(inputs[0], inputs[1])


def test_omoe_is_mmoe_with_tied_gates():
    experts = Experts(count=3, **SMALL)
    one, many = build_trunk("omoe", 6, 2, experts), build_trunk("mmoe", 6, 2, experts)
    many.load_state_dict(one.state_dict() | {"gates.1.linear.weight": one.gates[0].linear.weight})
    assert len(one.gates) == 1
    for single, several in zip(one(V), many(V), strict=True):
        assert len(single) == len(several) == 2
        for a, b in zip(single, several, strict=True):
            assert torch.equal(a, b)


def banks_of(trunk, level):
    level = trunk.levels[level]
    return [list(bank.experts) for bank in level.own], list(level.shared.experts), level


def gated(gate, x, outputs):
    """softmax(W x) . outputs, one expert after the other."""
    weights = torch.softmax(x @ gate.linear.weight.T, dim=1)
    assert weights.shape[1] == len(outputs)
    return sum(weights[:, [k]] * output for k, output in enumerate(outputs))


def test_ple_with_one_level_is_cgc():
    trunk = PLETrunk(6, 2, Experts(levels=1, specific=2, shared=3, **SMALL))
    own, shared, level = banks_of(trunk, 0)
    assert level.shared_gate is None
    inputs, gates = trunk(V)
    for task in range(2):
        outputs = [expert(V) for expert in [*own[task], *shared]]
        torch.testing.assert_close(inputs[task], gated(level.gates[task], V, outputs))
        assert gates[task].shape == (7, 5)


@pytest.mark.parametrize("tasks", [2, 3])
def test_ple_levels_follow_the_equations(tasks):
    trunk = PLETrunk(6, tasks, Experts(levels=3, specific=2, shared=1, **SMALL))
    states, common = [V] * tasks, V
    for number in range(3):
        own, shared, level = banks_of(trunk, number)
        specific = [[expert(states[task]) for expert in own[task]] for task in range(tasks)]
        together = [expert(common) for expert in shared]
        every = [output for bank in specific for output in bank] + together
        following = [gated(level.gates[task], states[task], specific[task] + together) for task in range(tasks)]
        common = common if number == 2 else gated(level.shared_gate, common, every)
        states = following
    assert level.shared_gate is None
    inputs, gates = trunk(V)
    for found, expected in zip(inputs, states, strict=True):
        torch.testing.assert_close(found, expected)
    assert all(gate.shape == (7, 3) for gate in gates)


@pytest.mark.parametrize("levels", [1, 2])
def test_ple_without_specific_experts_is_mmoe(levels):
    trunk = PLETrunk(6, 2, Experts(levels=levels, specific=0, shared=3, **SMALL))
    last = trunk.levels[-1]
    twin = MMoETrunk(last.shared.experts[0].steps[0].in_features, 2, Experts(count=3, **SMALL))
    twin.bank.load_state_dict(last.shared.state_dict())
    twin.gates.load_state_dict(last.gates.state_dict())
    inputs, gates = trunk(V)
    if levels == 1:
        expected, wanted = twin(V)
    else:  # the level below hands the shared mixture to the experts, each task's own mixture to its gate
        first = trunk.levels[0]
        common = gated(first.shared_gate, V, [expert(V) for expert in first.shared.experts])
        tasks = [gated(gate, V, [expert(V) for expert in first.shared.experts]) for gate in first.gates]
        outputs = [expert(common) for expert in twin.bank.experts]
        wanted = [gate(task) for gate, task in zip(twin.gates, tasks, strict=True)]
        expected = [gated(gate, task, outputs) for gate, task in zip(twin.gates, tasks, strict=True)]
    for found, right in zip([*inputs, *gates], [*expected, *wanted], strict=True):
        torch.testing.assert_close(found, right)


def test_every_expert_of_a_level_is_used_by_its_own_task_alone():
    """The public bug: an index stride of the number of tasks lets two tasks share an expert and idles another."""
    trunk = PLETrunk(6, 2, Experts(levels=1, specific=3, shared=1, **SMALL))
    (first, second), _ = trunk(V)
    names = [name for name, _ in trunk.named_parameters()]
    for task, total in enumerate((first.sum(), second.sum())):
        gradients = torch.autograd.grad(total, list(trunk.parameters()), allow_unused=True, retain_graph=True)
        moved = {
            name for name, gradient in zip(names, gradients, strict=True) if gradient is not None and gradient.any()
        }
        assert {name.split(".")[3] for name in moved if ".own." in name} == {str(task)}
        assert {name.split(".")[5] for name in moved if ".own." in name} == {"0", "1", "2"}


@pytest.mark.parametrize(
    ("trunk", "change"),
    [("shared", {"count": 2}), ("mmoe", {"levels": 1}), ("omoe", {"specific": 2}), ("ple", {"count": 8})],
)
def test_a_number_of_experts_that_nothing_reads_is_refused(trunk, change):
    with pytest.raises(ValueError, match=rf"trunk '{trunk}' does not read experts\.{next(iter(change))}"):
        build_trunk(trunk, 6, 2, Experts(**change))


def network(**arguments):
    torch.manual_seed(0)
    schema = Schema((SparseFeature("user"), SparseFeature("item")))
    rates = {"ctr": 0.2, "ctcvr": 0.05}
    shape = {"tower": Tower((4,), (0.0,)), "embedding_size": 3}
    return TaskNetwork(schema, 20, rates, **{**shape, **arguments})


def features(rows=7):
    ids = torch.randint(0, 20, (rows, 2), dtype=torch.int32, generator=torch.Generator().manual_seed(0))
    return Features(ids, torch.zeros(rows, 0), torch.zeros(rows, 0))


@pytest.mark.parametrize("trunk", ["shared", "omoe", "mmoe", "ple"])
def test_a_task_network_is_encoder_trunk_tower_and_head(trunk):
    model = network(trunk=trunk).eval()
    found = model(features())
    inputs, gates = model.trunk(model.encoder(features()))
    assert list(found.logits) == ["ctr", "ctcvr"]
    for x, (task, logit) in zip(inputs, found.logits.items(), strict=True):
        assert torch.equal(logit, model.heads[task](model.towers[task](x)))
    assert set(found.gate_extras()) == ({"gate/ctr", "gate/ctcvr"} if gates else set())
    assert torch.sigmoid(model.heads["ctcvr"].linear.bias).item() == pytest.approx(0.05)


def test_shared_parameters_are_what_stands_between_table_and_towers():
    model = network(trunk="ple")
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    shared = {names[id(parameter)] for parameter in model.shared_parameters()}
    assert shared == {name for name in names.values() if name.startswith("trunk.")}
    assert network().shared_parameters() == ()
    crossed = network(interaction=Interaction("cross"))
    assert {id(p) for p in crossed.shared_parameters()} == {id(p) for p in crossed.encoder.cross.parameters()}


def test_tables_of_their_own_feed_one_task_each():
    model = network(shared_embedding=False)
    model(features()).logits["ctcvr"].sum().backward()
    assert model.encoder.table.weight.grad is None
    assert model.own_encoders[0].table.weight.grad is not None
    assert model.shared_parameters() == ()
    with pytest.raises(ValueError, match="experts read one table"):
        network(shared_embedding=False, trunk="ple")


@pytest.mark.parametrize("trunk", ["shared", "mmoe", "ple", "own"])
def test_own_parameters_are_those_that_one_task_alone_reaches(trunk):
    """Against autograd: every parameter belongs to one task, or to several."""
    arguments = {"shared_embedding": False} if trunk == "own" else {"trunk": trunk}
    model = network(**arguments).train()
    names = dict(model.named_parameters())
    logits = model(features()).logits
    reached = {}
    for task, logit in logits.items():
        found = torch.autograd.grad(logit.sum(), list(names.values()), retain_graph=True, allow_unused=True)
        for name, gradient in zip(names, found, strict=True):
            if gradient is not None:
                reached.setdefault(name, set()).add(task)
    for task in logits:
        own = {id(parameter) for parameter in model.own_parameters(task)}
        assert own == {id(names[name]) for name, tasks in reached.items() if tasks == {task}}


def test_towers_may_exchange_what_they_say_below_their_heads():
    schema = Schema((SparseFeature("user"), SparseFeature("item")))
    network = TaskNetwork(schema, 10, {"ctr": 0.1, "cvr": 0.2}).eval()
    features = Features(torch.randint(0, 10, (6, 2), dtype=torch.int32), torch.zeros(6, 0), torch.zeros(6, 0))
    plain, given = network(features).logits, {}

    def exchange(hidden):
        given.update(hidden)
        return {**hidden, "cvr": hidden["ctr"]}

    found = network(features, exchange).logits
    assert {task: tuple(each.shape) for task, each in given.items()} == {"ctr": (6, 32), "cvr": (6, 32)}
    torch.testing.assert_close(found["ctr"], plain["ctr"])
    torch.testing.assert_close(found["cvr"], network.heads["cvr"](given["ctr"]))
    assert not torch.allclose(found["cvr"], plain["cvr"])
