from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from postclick.data.arrays import Exposures
from postclick.models.batching import to_batch
from postclick.nn.embedding import use_sparse_gradients
from postclick.training.config import TrainingConfig
from postclick.training.step import TrainingStep

Make = Callable[[int, int], Exposures]
Build = Callable[..., Any]


def test_sums_become_means(build: Build, exposures: Make) -> None:
    model = build()
    use_sparse_gradients(model, True)
    model.eval()
    step = TrainingStep(model, TrainingConfig())
    wanted = []
    for index in range(3):
        batch = to_batch(exposures(50, index))
        wanted.append((model.loss(model(batch), batch).terms["ctr"].item(), batch.click.sum().item()))
        assert step(batch, index)
    terms, diagnostics = step.means()
    assert terms["ctr"] == pytest.approx(sum(loss for loss, _ in wanted) / 3)
    assert diagnostics == {"clicks": sum(clicks for _, clicks in wanted) / 3, "never": None}
    step.reset()
    assert step.means() == ({}, {})


def test_a_phase_sees_what_the_phase_before_moved(build: Build, exposures: Make) -> None:
    alternating, by_hand = build(two_phases=True), build(two_phases=True)
    for model in (alternating, by_hand):
        use_sparse_gradients(model, True)
        model.eval()
    batch = to_batch(exposures(50, 1))
    step = TrainingStep(alternating, TrainingConfig(l2_mode="none"))
    assert step(batch, 0)
    optimiser = torch.optim.Adam(by_hand.cvr.parameters(), lr=1e-3)
    with torch.no_grad():
        by_hand.table.weight.copy_(alternating.table.weight)
    by_hand.loss(by_hand(batch), batch).terms["cvr"].backward()
    optimiser.step()
    torch.testing.assert_close(alternating.cvr.weight, by_hand.cvr.weight)
    assert set(step.means()[0]) == {"ctr", "cvr"}


def test_a_step_that_is_not_finite_moves_nothing(build: Build, exposures: Make) -> None:
    model = build()
    use_sparse_gradients(model, True)
    step = TrainingStep(model, TrainingConfig())
    assert step(to_batch(exposures(50, 1)), 0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.poison_at = model.forwards
    assert step.first_bad is None
    assert not step(to_batch(exposures(50, 2)), 1)
    assert step.first_bad == 1
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
