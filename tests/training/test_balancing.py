from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from postclick.data.arrays import Exposures
from postclick.data.log import ExposureLog
from postclick.errors import ConfigError
from postclick.models.base import Losses, Phase
from postclick.models.batching import to_batch
from postclick.nn.embedding import use_sparse_gradients
from postclick.training.balancing import GradNorm, PCGrad, Uncertainty, project_conflicts, shared_gradients
from postclick.training.config import TrainingConfig
from postclick.training.loop import train
from postclick.training.seeding import generator
from postclick.training.step import TrainingStep

Make = Callable[[int, int], Exposures]
Build = Callable[..., Any]
CONFIG = TrainingConfig(l2_mode="none", optimizer="exact_adam", learning_rate=0.01)
LEARNED = ("uncertainty", "gradnorm", "pcgrad")


def at_conflict(model: Any) -> Any:
    """Give the model terms that pull against each other: the second is the first's opposite, plus its own."""
    inner = model.loss

    def loss(outputs: Any, batch: Any) -> Losses:
        terms = inner(outputs, batch).terms
        return Losses({"ctr": terms["ctr"], "cvr": 2.0 + terms["cvr"] - 0.7 * terms["ctr"]})

    model.loss = loss
    return model


def ready(model: Any) -> Any:
    model.eval()  # without dropout, so that a second forward pass is the same
    use_sparse_gradients(model, True)
    return model


def run(model: Any, exposures: Make, steps: int, **settings: Any) -> TrainingStep:
    step = TrainingStep(ready(model), replace(CONFIG, **settings), seed=5)
    for index in range(steps):
        assert step(to_batch(exposures(50, index)), index)
    return step


def table_gradient(model: Any) -> Tensor:
    gradient: Tensor = model.table.weight.grad.to_dense()
    return gradient


def same(first: Any, second: Any, *, exactly: bool = False) -> None:
    for (name, one), (_, two) in zip(first.state_dict().items(), second.state_dict().items(), strict=True):
        if exactly:
            assert torch.equal(one, two), name
        else:
            torch.testing.assert_close(one, two, msg=name)


# --- which parameters -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("balance", ["gradnorm", "pcgrad"])
def test_a_system_without_shared_dense_parameters_is_refused_with_a_fix(build: Build, balance: Any) -> None:
    with pytest.raises(ConfigError, match="trunk with shared dense parameters") as caught:
        TrainingStep(build(), replace(CONFIG, balance=balance))
    assert caught.value.code == "config.combination"
    assert caught.value.findings[0].where == "training.balance"


def test_uncertainty_needs_no_shared_parameters(build: Build, exposures: Make) -> None:
    assert set(run(build(), exposures, 1, balance="uncertainty").means()[1]) >= {"balance/weight/ctr"}


def test_theta_is_what_two_terms_reach_and_never_the_table(build_shared: Build, exposures: Make) -> None:
    model = ready(build_shared())
    model.shared_parameters = lambda: tuple(model.parameters())
    step = TrainingStep(model, replace(CONFIG, balance="gradnorm"))
    (balancer,) = step.balancers
    assert isinstance(balancer, GradNorm)
    assert id(model.table.weight) not in {id(each) for each in balancer.shared}
    batch = to_batch(exposures(50, 1))
    gradients, theta = shared_gradients([*model.loss(model(batch), batch).terms.values()], balancer.shared)
    assert [id(each) for each in theta] == [id(each) for each in model.shared.parameters()]
    assert gradients.shape == (2, sum(each.numel() for each in theta))


def test_terms_that_share_nothing_have_nothing_to_compare(build_shared: Build) -> None:
    model = build_shared()
    terms = [model.ctr.weight.sum(), model.cvr.weight.sum(), torch.tensor(1.0)]
    gradients, theta = shared_gradients(terms, [model.ctr.weight, model.cvr.weight])
    assert gradients.shape == (3, 0)
    assert theta == []


def test_fixed_has_no_balancer(build_shared: Build) -> None:
    assert TrainingStep(build_shared(), CONFIG).balancers == [None]


# --- uncertainty ----------------------------------------------------------------------------------------------------


def test_uncertainty_equals_autograd_of_its_equation(build_shared: Build, exposures: Make) -> None:
    ours, plain = build_shared(), ready(build_shared())
    step = run(ours, exposures, 5, balance="uncertainty")
    s = [torch.nn.Parameter(torch.zeros(())) for _ in range(2)]
    use_sparse_gradients(plain, False)
    adam = torch.optim.Adam([*plain.parameters(), *s], lr=CONFIG.learning_rate)
    weights = []
    for index in range(5):
        batch = to_batch(exposures(50, index))
        terms = plain.loss(plain(batch), batch).terms.values()
        weights.append([math.exp(-each.item()) for each in s])
        adam.zero_grad()
        sum(torch.exp(-each) * term + each for each, term in zip(s, terms, strict=True)).backward()  # type: ignore[union-attr]
        adam.step()
    same(ours, plain)
    found = step.means()[1]
    assert weights[-1][0] != pytest.approx(weights[-1][1])
    for index, name in enumerate(("ctr", "cvr")):
        assert found[f"balance/weight/{name}"] == pytest.approx(np.mean(weights, axis=0)[index])


def test_uncertainty_comes_to_rest_where_a_weight_is_one_over_its_loss() -> None:
    parameter = torch.nn.Parameter(torch.zeros(1))
    model = _Still(parameter)
    balancer = Uncertainty(0.05, torch.device("cpu"))
    for index in range(2000):
        balancer.backward({"a": model.term(0.25), "b": model.term(4.0)}, model, index)  # type: ignore[arg-type]
        balancer.step()
    weights = balancer.diagnostics()
    assert float(weights["weight/a"]) == pytest.approx(4.0, rel=1e-2)
    assert float(weights["weight/b"]) == pytest.approx(0.25, rel=1e-2)


class _Still:
    """A model and optimiser that never move: only the weights learn."""

    def __init__(self, parameter: torch.nn.Parameter) -> None:
        self.parameter = parameter

    def term(self, loss: float, slope: float = 1.0) -> Tensor:
        return loss + slope * (self.parameter - self.parameter.detach()).sum()

    def backward(self, total: Tensor) -> Tensor:
        return torch.zeros(())


# --- GradNorm -------------------------------------------------------------------------------------------------------


def plain_gradnorm(model: Any, batches: list[Any], alpha: float, rate: float) -> list[list[float]]:
    """Chen et al.'s algorithm by autograd through the weights; returns the weights used at each step."""
    w = torch.nn.Parameter(torch.ones(2))
    of_model = torch.optim.Adam(model.parameters(), lr=CONFIG.learning_rate)
    of_w = torch.optim.Adam([w], lr=rate)
    first: list[float] = []
    used = []
    for batch in batches:
        terms = list(model.loss(model(batch), batch).terms.values())
        used.append(w.tolist())
        first = first or [term.item() for term in terms]
        norms = []
        for weight, term in zip(w, terms, strict=True):
            parts = torch.autograd.grad(weight * term, [*model.shared.parameters()], create_graph=True)
            norms.append(torch.sqrt(sum((part**2).sum() for part in parts)))  # type: ignore[arg-type]
        ratios = [term.item() / start for term, start in zip(terms, first, strict=True)]
        mean_norm = sum(norm.item() for norm in norms) / 2
        distance = sum(
            (norm - mean_norm * (ratio / (sum(ratios) / 2)) ** alpha).abs()
            for norm, ratio in zip(norms, ratios, strict=True)
        )
        of_w.zero_grad()
        of_w_gradient = torch.autograd.grad(distance, w, retain_graph=True)[0]  # type: ignore[arg-type]
        of_model.zero_grad()
        sum(weight.item() * term for weight, term in zip(w, terms, strict=True)).backward()  # type: ignore[union-attr]
        of_model.step()
        w.grad = of_w_gradient
        of_w.step()
        with torch.no_grad():
            w.clamp_(min=1e-3)
            w.mul_(2 / w.sum())
    return used


@pytest.mark.parametrize("alpha", [0.0, 1.5])
def test_gradnorm_equals_a_plain_loop(build_shared: Build, exposures: Make, alpha: float) -> None:
    ours, plain = build_shared(), ready(build_shared())
    use_sparse_gradients(plain, False)
    used = plain_gradnorm(plain, [to_batch(exposures(50, index)) for index in range(6)], alpha, 0.1)
    step = run(ours, exposures, 6, balance="gradnorm", gradnorm_alpha=alpha, gradnorm_learning_rate=0.1)
    same(ours, plain)
    found = step.means()[1]
    assert abs(used[-1][0] - 1.0) > 0.1
    for index, name in enumerate(("ctr", "cvr")):
        assert found[f"balance/weight/{name}"] == pytest.approx(np.mean(used, axis=0)[index], rel=1e-4)
        assert found[f"balance/gradient_norm/{name}"] is not None


def gradnorm_at_rest(alpha: float, losses: Callable[[int], dict[str, float]], slopes: dict[str, float]) -> GradNorm:
    model = _Still(torch.nn.Parameter(torch.zeros(1)))
    balancer = GradNorm([model.parameter], alpha, 0.01)
    for index in range(1500):
        terms = {name: model.term(loss, slopes[name]) for name, loss in losses(index).items()}
        balancer.backward(terms, model, index)  # type: ignore[arg-type]
        balancer.step()
    return balancer


def test_gradnorm_with_alpha_0_makes_norms_equal() -> None:
    found = gradnorm_at_rest(0.0, lambda _: {"a": 1.0, "b": 1.0}, {"a": 1.0, "b": 9.0}).diagnostics()
    assert float(found["weight/a"]) == pytest.approx(1.8, abs=0.03)  # w_a = 9 w_b, and their sum is 2
    assert float(found["weight/b"]) == pytest.approx(0.2, abs=0.03)


def test_gradnorm_pulls_harder_at_the_term_that_lags() -> None:
    # after the first step a has come down to a third of its loss, b not at all: r = 1/2 and 3/2, G_a / G_b = 1/3
    found = gradnorm_at_rest(
        1.0, lambda index: {"a": 1.0 / 3.0 if index else 1.0, "b": 1.0}, {"a": 1.0, "b": 1.0}
    ).diagnostics()
    assert float(found["weight/a"]) == pytest.approx(0.5, abs=0.03)
    assert float(found["weight/b"]) == pytest.approx(1.5, abs=0.03)


def test_gradnorm_waits_for_a_first_loss_that_is_not_zero() -> None:
    found = gradnorm_at_rest(1.0, lambda index: {"a": 2.0, "b": 0.0 if index < 3 else 1.0}, {"a": 1.0, "b": 1.0})
    assert {name: float(start) for name, start in found.starts.items()} == {"a": 2.0, "b": 1.0}
    assert float(found.diagnostics()["weight/a"]) == pytest.approx(1.0, abs=0.03)


def test_weights_stay_positive_and_sum_to_the_number_of_terms() -> None:
    found = gradnorm_at_rest(0.0, lambda _: {"a": 1.0, "b": 1.0, "c": 1.0}, {"a": 1.0, "b": 1e6, "c": 1.0})
    weights = [float(value) for name, value in found.diagnostics().items() if name.startswith("weight/")]
    assert min(weights) > 0.0
    assert sum(weights) == pytest.approx(3.0)


# --- PCGrad ---------------------------------------------------------------------------------------------------------


def plain_pcgrad(gradients: list[Any], orders: list[list[int]]) -> Any:
    """Algorithm 1 of Yu et al., line by line, on vectors."""
    total = np.zeros_like(gradients[0])
    for i, order in enumerate(orders):
        projected = gradients[i].copy()
        for j in order:
            if j != i and projected @ gradients[j] < 0:
                projected = projected - (projected @ gradients[j]) / (gradients[j] @ gradients[j]) * gradients[j]
        total += projected
    return total


@given(st.integers(0, 10_000), st.integers(2, 5), st.integers(1, 6))
def test_projection_equals_algorithm_1(seed: int, count: int, size: int) -> None:
    random = np.random.default_rng(seed)
    gradients = random.normal(size=(count, size))
    orders = [random.permutation(count).tolist() for _ in range(count)]
    factors, conflicts = project_conflicts(torch.from_numpy(gradients @ gradients.T), orders)
    total = gradients.sum(axis=0) + factors.numpy().sum(axis=0) @ gradients
    np.testing.assert_allclose(total, plain_pcgrad(list(gradients), orders), atol=1e-8 * np.abs(gradients).max())
    pairs = [(i, j) for i in range(count) for j in range(count) if i != j]
    assert float(conflicts) == pytest.approx(np.mean([gradients[i] @ gradients[j] < 0 for i, j in pairs]))


def test_two_gradients_by_hand() -> None:
    # g1 = (1, 0), g2 = (-1, 1): g1 loses its part along g2, (1/2, 1/2) is left; g2 loses its part along g1, (0, 1)
    gradients = torch.tensor([[1.0, 0.0], [-1.0, 1.0]], dtype=torch.float64)
    factors, conflicts = project_conflicts(gradients @ gradients.T, [[0, 1], [1, 0]])
    assert (gradients + factors @ gradients).tolist() == [[0.5, 0.5], [0.0, 1.0]]
    assert float(conflicts) == 1.0


def test_a_gradient_of_zero_conflicts_with_nothing() -> None:
    gradients = torch.tensor([[0.0, 0.0], [-1.0, 1.0]], dtype=torch.float64)
    factors, conflicts = project_conflicts(gradients @ gradients.T, [[0, 1], [1, 0]])
    assert factors.tolist() == [[0.0, 0.0], [0.0, 0.0]]
    assert float(conflicts) == 0.0


def test_pcgrad_changes_the_shared_gradient_alone_and_as_the_algorithm_says(
    build_shared: Build, exposures: Make
) -> None:
    model, fixed = at_conflict(ready(build_shared())), at_conflict(ready(build_shared()))
    model.shared_parameters = lambda: tuple(model.shared.parameters())  # both terms reach the head of ctr here
    batch = to_batch(exposures(50, 1))
    step = TrainingStep(model, replace(CONFIG, balance="pcgrad"), seed=5)
    (balancer,) = step.balancers
    assert isinstance(balancer, PCGrad)
    balancer.backward(model.loss(model(batch), batch).terms, step.optimisers[0], 7)
    plain = TrainingStep(fixed, CONFIG)
    terms = fixed.loss(fixed(batch), batch).terms
    apart = [
        torch.cat(
            [part.reshape(-1) for part in torch.autograd.grad(term, [*fixed.shared.parameters()], retain_graph=True)]
        )
        for term in terms.values()
    ]
    plain.optimisers[0].backward(torch.stack([*terms.values()]).sum())

    random = generator(5, "pcgrad", 7, 0)
    orders = [random.permutation(2).tolist() for _ in range(2)]
    wanted = plain_pcgrad([each.double().numpy() for each in apart], orders)
    found = torch.cat([each.grad.reshape(-1) for each in model.shared.parameters()])
    np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-4, atol=1e-7)
    assert not torch.equal(found, torch.cat([each.grad.reshape(-1) for each in fixed.shared.parameters()]))
    assert float(balancer.diagnostics()["conflicts"]) == 1.0
    assert torch.equal(table_gradient(model), table_gradient(fixed))
    for head in ("ctr", "cvr"):
        assert torch.equal(getattr(model, head).weight.grad, getattr(fixed, head).weight.grad)


def test_without_a_conflict_pcgrad_is_the_plain_sum_bit_for_bit(build_shared: Build, exposures: Make) -> None:
    def twice(model: Any) -> Any:
        inner = model.loss
        model.loss = lambda outputs, batch: Losses(
            {"one": (term := inner(outputs, batch).terms["ctr"]), "two": 2.0 * term}
        )
        return model

    ours, plain = twice(build_shared()), twice(build_shared())
    assert run(ours, exposures, 4, balance="pcgrad").means()[1]["balance/conflicts"] == 0.0
    run(plain, exposures, 4)
    same(ours, plain, exactly=True)


# --- all of them ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("balance", LEARNED)
def test_the_table_has_the_gradient_of_the_weighted_sum(build_shared: Build, exposures: Make, balance: Any) -> None:
    model = build_shared()
    step = run(model, exposures, 3, balance=balance, gradnorm_learning_rate=0.1)
    (balancer,) = step.balancers
    assert balancer is not None
    by_hand = copy.deepcopy(model)
    batch = to_batch(exposures(50, 9))
    balancer.backward(model.loss(model(batch), batch).terms, step.optimisers[0], 3)
    found = balancer.diagnostics()
    weights = [float(found.get(f"weight/{name}", 1.0)) for name in ("ctr", "cvr")]
    terms = by_hand.loss(by_hand(batch), batch).terms.values()
    sum(weight * term for weight, term in zip(weights, terms, strict=True)).backward()  # type: ignore[union-attr]
    torch.testing.assert_close(table_gradient(model), table_gradient(by_hand))


@pytest.mark.parametrize("balance", LEARNED)
def test_resume_is_bit_equal(build_shared: Build, log: ExposureLog, tmp_path: Path, balance: Any) -> None:
    config = TrainingConfig(
        batch_size=100, max_epochs=2, learning_rate=0.02, checks_per_epoch=2, patience=None, balance=balance
    )
    whole = at_conflict(build_shared())
    seen: list[Any] = []
    train(whole, log, config, seed=0, on_check=seen.append)
    asked = iter([False] * 6 + [True])
    cut = train(at_conflict(build_shared()), log, config, seed=0, folder=tmp_path, should_stop=lambda: next(asked))
    assert cut.interrupted
    resumed, again = at_conflict(build_shared(seed=3)), list[Any]()
    train(resumed, log, config, seed=0, folder=tmp_path, resume=True, on_check=again.append)
    same(resumed, whole, exactly=True)
    assert again == seen
    assert any(name.startswith("balance/") for name in seen[0]["diagnostics"])
    with pytest.raises(ConfigError, match=r"training\.balance"):
        train(build_shared(), log, replace(config, balance="fixed"), seed=0, folder=tmp_path, resume=True)


@pytest.mark.parametrize("balance", LEARNED)
def test_a_step_that_is_not_finite_moves_nothing(build_shared: Build, exposures: Make, balance: Any) -> None:
    model = build_shared()
    step = run(model, exposures, 2, balance=balance)
    (balancer,) = step.balancers
    assert balancer is not None
    before = {name: value.clone() for name, value in model.state_dict().items()}
    learned = {name: value.clone() for name, value in balancer.state().items()}
    assert bool(learned) == (balance != "pcgrad")
    model.poison_at = model.forwards
    assert not step(to_batch(exposures(50, 2)), 2)
    assert step.first_bad == 2
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(torch.equal(value, learned[name]) for name, value in balancer.state().items())


@pytest.mark.parametrize("balance", LEARNED)
def test_one_term_is_left_as_it_is(build_shared: Build, exposures: Make, balance: Any) -> None:
    def alone(model: Any) -> Any:
        inner = model.loss
        model.loss = lambda outputs, batch: Losses({"ctr": inner(outputs, batch).terms["ctr"]})
        return model

    ours, plain = alone(build_shared()), alone(build_shared())
    assert run(ours, exposures, 3, balance=balance).means()[1] == {}
    run(plain, exposures, 3)
    same(ours, plain, exactly=True)


def test_a_phase_balances_its_own_terms(build_shared: Build, exposures: Make) -> None:
    model = build_shared()
    inner = model.loss

    def loss(outputs: Any, batch: Any) -> Losses:
        terms = inner(outputs, batch).terms
        return Losses({**terms, "other": 0.5 * terms["ctr"]})

    model.loss = loss
    model.phases = lambda: (
        Phase("first", (model.table.weight, *model.shared.parameters()), ("ctr", "cvr")),
        Phase("second", tuple(model.ctr.parameters()), ("ctr", "other")),
        Phase("third", tuple(model.cvr.parameters()), ("cvr", "other")),
    )
    step = run(model, exposures, 2, balance="gradnorm")
    assert [balancer is None for balancer in step.balancers] == [False, False, True]  # cvr's head is not shared
    found = step.means()[1]
    weights = {name: value for name, value in found.items() if "/weight/" in name}
    first = {"balance/first/weight/ctr", "balance/first/weight/cvr"}
    assert set(weights) == first | {"balance/second/weight/ctr", "balance/second/weight/other"}
    assert sum(weights[name] for name in first) == pytest.approx(2.0)  # type: ignore[misc]


@pytest.mark.parametrize("balance", ["uncertainty", "gradnorm"])
def test_state_travels_with_names_that_have_dots(build_shared: Build, exposures: Make, balance: Any) -> None:
    def renamed(model: Any) -> Any:
        inner = model.loss
        model.loss = lambda outputs, batch: Losses(
            {f"value.{name}.x": term for name, term in inner(outputs, batch).terms.items()}
        )
        return model

    step = run(renamed(build_shared()), exposures, 3, balance=balance)
    other = TrainingStep(renamed(build_shared(1)), replace(CONFIG, balance=balance))
    (ours,), (theirs,) = step.balancers, other.balancers
    assert ours is not None
    assert theirs is not None
    theirs.load({name: value.clone() for name, value in ours.state().items()})
    assert set(theirs.state()) == set(ours.state())
    assert len(ours.state()) == 2 * (4 if balance == "uncertainty" else 5)
    assert all(torch.equal(value, ours.state()[name]) for name, value in theirs.state().items())
