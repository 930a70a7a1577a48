from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from postclick.data.arrays import Exposures
from postclick.models.batching import to_batch
from postclick.nn.embedding import use_sparse_gradients
from postclick.training.config import TrainingConfig
from postclick.training.optimisers import PhaseOptimiser, phase_optimisers

Make = Callable[[int, int], Exposures]
Build = Callable[..., Any]


def test_one_phase_moves_everything_dense_and_tables_apart(build: Build) -> None:
    model = build()
    (optimiser,) = phase_optimisers(model, TrainingConfig())
    assert [id(table) for table in optimiser.tables] == [id(model.table.weight)]
    assert len(optimiser.dense) == 4
    assert optimiser.inputs is None


def test_a_phase_leaves_the_parameters_of_others_alone(build: Build, exposures: Make) -> None:
    model = build(two_phases=True)
    use_sparse_gradients(model, True)
    first, second = phase_optimisers(model, TrainingConfig())
    batch = to_batch(exposures(50, 3))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    first.backward(model.loss(model(batch), batch).terms["ctr"])
    first.step()
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {"table.weight", "ctr.weight", "ctr.bias"}
    assert model.cvr.weight.grad is None
    assert second.tables == []


@pytest.mark.parametrize("name", ["lazy_rmsprop", "lazy_adam", "rowwise_adagrad", "exact_adam"])
def test_state_travels(build: Build, exposures: Make, name: Any) -> None:
    config = TrainingConfig(optimizer=name)

    def move(model: Any, optimiser: PhaseOptimiser, seed: int) -> None:
        model.eval()
        use_sparse_gradients(model, True)
        batch = to_batch(exposures(50, seed))
        optimiser.backward(sum(model.loss(model(batch), batch).terms.values()))
        optimiser.step()

    first, second = build(), build()
    (one,) = phase_optimisers(first, config)
    (two,) = phase_optimisers(second, config)
    for seed in range(2):
        move(first, one, seed)
    second.load_state_dict(first.state_dict())
    two.load({key: value.clone() for key, value in one.state().items()})
    for model, optimiser in ((first, one), (second, two)):
        for seed in range(2, 4):
            move(model, optimiser, seed)
    assert all(torch.equal(first.state_dict()[key], value) for key, value in second.state_dict().items())


def test_the_norm_tells_a_gradient_that_is_not_finite(build: Build, exposures: Make) -> None:
    model = build()
    use_sparse_gradients(model, True)
    (optimiser,) = phase_optimisers(model, TrainingConfig())
    batch = to_batch(exposures(50, 3))
    norm = optimiser.backward(model.loss(model(batch), batch).terms["ctr"])
    assert torch.isfinite(norm)
    # sqrt at 0: the loss is finite, its gradient is not
    outputs = model(batch)
    norm = optimiser.backward((outputs.ctr.log_p * 0.0).abs().sqrt().sum())
    assert not torch.isfinite(norm)


@pytest.mark.parametrize(("mode", "l2"), [("batch_rows", 0.1), ("none", 0.0)])
def test_l2_of_batch_rows_reaches_what_the_system_names_besides(
    build: Build, exposures: Make, monkeypatch: pytest.MonkeyPatch, mode: Any, l2: float
) -> None:
    model = build()
    monkeypatch.setattr(type(model), "regularised_parameters", lambda self: (self.cvr.weight,))
    use_sparse_gradients(model, True)
    (optimiser,) = phase_optimisers(model, TrainingConfig(l2=0.1, l2_mode=mode))
    batch = to_batch(exposures(50, 3))
    optimiser.backward(sum(model.loss(model(batch), batch).terms.values()))
    before = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    weight = model.cvr.weight.detach().clone()
    optimiser.step()
    torch.testing.assert_close(model.cvr.weight.grad, before["cvr.weight"] + l2 * weight)
    for name in ("ctr.weight", "ctr.bias", "cvr.bias"):
        assert torch.equal(model.get_parameter(name).grad, before[name])
