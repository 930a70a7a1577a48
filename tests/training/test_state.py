from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from postclick.errors import ConfigError
from postclick.training.config import TrainingConfig
from postclick.training.rows import TouchedRows
from postclick.training.state import Counters, TrainingState, check_compatible, identity
from postclick.training.step import TrainingStep
from postclick.training.stopping import EarlyStopping

Build = Callable[..., Any]
CONFIG = TrainingConfig()


def make(model: Any) -> TrainingState:
    rows = TouchedRows(model.spec.table_rows)
    return TrainingState(model, TrainingStep(model, CONFIG), EarlyStopping(2, 0.0), rows)


def test_everything_travels(build: Build) -> None:
    first = make(build(0))
    first.counters = Counters(1, 2, 3)
    first.history.append({"epoch": 0})
    first.touched.mask[4] = True
    first.step.sums["term.ctr"] = torch.tensor(2.0, dtype=torch.float64)
    first.step.steps_summed = 2
    first.remember_best()
    with torch.no_grad():
        first.model.ctr.weight += 1.0
    torch.manual_seed(7)
    tensors = {name: tensor.clone() for name, tensor in first.tensors().items()}
    counts = first.counts()
    drawn = torch.rand(2)

    second = make(build(1))
    second.load(tensors, counts)
    assert torch.equal(torch.rand(2), drawn)
    assert second.counts() == counts
    torch.manual_seed(7)
    now = second.tensors()
    assert set(now) == set(tensors)
    assert all(torch.equal(now[name], tensor) for name, tensor in tensors.items())
    second.restore_best()
    assert torch.equal(second.model.ctr.weight, tensors["best.ctr.weight"])


def test_the_best_is_a_copy(build: Build) -> None:
    state = make(build())
    state.remember_best()
    before = state.model.ctr.weight.detach().clone()
    with torch.no_grad():
        state.model.ctr.weight += 1.0
    state.restore_best()
    assert torch.equal(state.model.ctr.weight, before)


def test_another_training_is_refused_field_by_field(build: Build) -> None:
    model = build()
    then = identity(model, "aaa", CONFIG, 0)
    check_compatible(identity(model, "aaa", CONFIG, 0), then)
    now = identity(model, "bbb", replace(CONFIG, batch_size=64, max_epochs=3), 1)
    with pytest.raises(ConfigError) as caught:
        check_compatible(now, then)
    assert caught.value.code == "ckpt.incompatible"
    where = [finding.where for finding in caught.value.findings]
    assert where == ["log", "seed", "training.batch_size", "training.max_epochs"]
    assert "--allow-config-change max_epochs" in str(caught.value)


@pytest.mark.parametrize(
    ("release", "other", "fits"),
    [("1.4.2", "1.9", True), ("1.9", "2.0", False), ("0.3.1", "0.3.2", True), ("0.3", "0.4", False)],
)
def test_code_that_may_give_other_numbers_is_refused(
    build: Build, monkeypatch: pytest.MonkeyPatch, release: str, other: str, fits: bool
) -> None:
    model = build()
    monkeypatch.setattr("postclick.training.state.version", lambda _: release)
    then = identity(model, "aaa", CONFIG, 0)
    monkeypatch.setattr("postclick.training.state.version", lambda _: other)
    now = identity(model, "aaa", CONFIG, 0)
    if fits:
        check_compatible(now, then)
        return
    with pytest.raises(ConfigError) as caught:
        check_compatible(now, then)
    assert [finding.where for finding in caught.value.findings] == ["code"]


@pytest.mark.parametrize("name", ["max_epochs", "training.max_epochs"])
def test_safe_settings_may_change_where_named(build: Build, name: str) -> None:
    model = build()
    then = identity(model, "aaa", CONFIG, 0)
    check_compatible(identity(model, "aaa", replace(CONFIG, max_epochs=3), 0), then, (name,))
    changed = identity(model, "aaa", replace(CONFIG, learning_rate=0.1), 0)
    with pytest.raises(ConfigError, match="learning_rate"):
        check_compatible(changed, then, ("learning_rate",))
