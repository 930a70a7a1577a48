from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from postclick.data.log import ExposureLog
from postclick.errors import ConfigError, TrainingError
from postclick.models.scoring import score
from postclick.training.config import TrainingConfig
from postclick.training.loop import check_points, train
from postclick.training.step import TrainingStep
from postclick.training.stopping import validation_losses

Build = Callable[..., Any]
CONFIG = TrainingConfig(batch_size=100, max_epochs=3, learning_rate=0.02, checks_per_epoch=2, patience=None)


class _Cut(Exception):
    """Stands for a kill."""


def weights(model: Any) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_training_learns_and_restores_the_best(build: Build, log: ExposureLog) -> None:
    model = build()
    seen: list[dict[str, Any]] = []
    result = train(model, log, CONFIG, seed=0, on_check=seen.append)
    assert result.steps == 30
    assert [entry["step"] for entry in seen] == [5, 10, 15, 20, 25, 30]
    assert [entry["epoch"] for entry in seen] == [0, 0, 1, 1, 2, 2]
    assert tuple(seen) == result.history
    assert json.loads(json.dumps(seen, allow_nan=False)) == seen
    losses = [entry["valid"]["logloss"] for entry in seen]
    assert losses[-1] < losses[0] - 0.02
    assert result.best_loss == min(losses)
    assert result.best_step == seen[int(np.argmin(losses))]["step"]
    assert [entry["best"] for entry in seen] == [loss < min([9.0, *losses[:i]]) for i, loss in enumerate(losses)]
    valid = log.split("valid").read("stop")
    again = validation_losses(score(model, valid), valid.labels, model.observed)  # type: ignore[arg-type]
    assert again["logloss"] == result.best_loss
    assert not model.training
    assert not model.table.sparse
    assert all(parameter.grad is None for parameter in model.parameters())


def test_equal_seeds_give_equal_bits_and_others_do_not(build: Build, log: ExposureLog) -> None:
    models = [build(), build(), build()]
    results = [train(model, log, CONFIG, seed=seed) for model, seed in zip(models, (0, 0, 1), strict=True)]
    assert equal(weights(models[0]), weights(models[1]))
    assert results[0].history == results[1].history
    assert not equal(weights(models[0]), weights(models[2]))


def test_train_mode_is_back_after_a_check(build: Build, log: ExposureLog) -> None:
    model = build()
    modes: list[bool] = []
    forward = model.forward
    model.forward = lambda batch: (
        (modes.append(model.training) or forward(batch)) if batch.click is not None else forward(batch)
    )
    train(model, log, replace(CONFIG, max_epochs=1), seed=0)
    assert modes == [True] * 10


def test_patience_stops_early(build: Build, log: ExposureLog) -> None:
    result = train(build(), log, replace(CONFIG, patience=2, min_delta=10.0), seed=0)
    assert result.stopped_early
    assert result.steps == 15
    assert result.best_step == 5


def test_without_validation_rows_all_epochs_run(build: Build, log_without_valid: ExposureLog) -> None:
    result = train(build(), log_without_valid, CONFIG, seed=0)
    assert (result.steps, result.best_step, result.best_loss) == (30, None, None)
    assert [note.code for note in result.notes] == ["train.no_validation"]
    assert all(entry["valid"] == {} and entry["terms"]["ctr"] > 0 for entry in result.history)


def test_touched_rows_tell_untrained_unknown_rows(build: Build, log: ExposureLog) -> None:
    without = train(build(), log, replace(CONFIG, id_dropout=0.0), seed=0)
    assert not without.touched_rows[:3].any()
    assert without.touched_rows[3:].all()
    assert train(build(), log, replace(CONFIG, id_dropout=0.1), seed=0).touched_rows.all()


def test_on_epoch_start_runs_once_an_epoch(build: Build, log: ExposureLog, tmp_path: Path) -> None:
    model = build()
    train(model, log, replace(CONFIG, stop_on="ctr/logloss@exposure"), seed=0)
    best = int(model.epochs_started)
    assert 1 <= best <= 3
    with pytest.raises(ConfigError, match="logloss"):
        train(build(), log, replace(CONFIG, stop_on="ctcvr/logloss@exposure"), seed=0)


@pytest.mark.parametrize("optimizer", ["lazy_rmsprop", "lazy_adam", "rowwise_adagrad", "exact_adam"])
@pytest.mark.parametrize("two_phases", [False, True])
def test_resume_is_bit_equal(build: Build, log: ExposureLog, tmp_path: Path, optimizer: Any, two_phases: bool) -> None:
    config = replace(CONFIG, optimizer=optimizer, checkpoint_steps=3)

    def cut_at(step: int) -> Callable[[], bool]:
        asked = iter(range(1, 1000))

        def ask() -> bool:
            if next(asked) == step:
                raise _Cut
            return False

        return ask

    # in the middle of an epoch, between checkpoints, at the end of an epoch, after the last check
    for attempt, step in enumerate((4, 3, 4, 11, 9)):
        with pytest.raises(_Cut):
            train(
                build(9, two_phases=two_phases),
                log,
                config,
                seed=0,
                folder=tmp_path,
                resume=attempt > 0,
                should_stop=cut_at(step),
            )
    # other initial weights: everything must come from the checkpoint
    model = build(8, two_phases=two_phases)
    seen: list[dict[str, Any]] = []
    result = train(model, log, config, seed=0, folder=tmp_path, resume=True, on_check=seen.append)
    twin = build(9, two_phases=two_phases)
    expected = train(twin, log, config, seed=0)
    assert equal(weights(model), weights(twin))
    assert result.history == expected.history == tuple(seen)
    assert np.array_equal(result.touched_rows, expected.touched_rows)
    assert (result.best_step, result.steps) == (expected.best_step, expected.steps)


def test_a_finished_training_resumes_to_its_result(build: Build, log: ExposureLog, tmp_path: Path) -> None:
    config = replace(CONFIG, patience=1, min_delta=10.0)
    first = build()
    done = train(first, log, config, seed=0, folder=tmp_path)
    model = build(5)
    again = train(model, log, config, seed=0, folder=tmp_path, resume=True)
    assert (again.steps, again.best_step, again.stopped_early) == (done.steps, done.best_step, True)
    assert equal(weights(first), weights(model))


def test_resume_without_a_checkpoint_starts_anew(build: Build, log: ExposureLog, tmp_path: Path) -> None:
    first, second = build(), build()
    train(first, log, CONFIG, seed=0)
    result = train(second, log, CONFIG, seed=0, folder=tmp_path, resume=True)
    assert [note.code for note in result.notes] == ["ckpt.none"]
    assert equal(weights(first), weights(second))


def test_a_fresh_training_removes_old_checkpoints(build: Build, log: ExposureLog, tmp_path: Path) -> None:
    train(build(), log, CONFIG, seed=0, folder=tmp_path)
    train(build(), log, replace(CONFIG, max_epochs=1), seed=0, folder=tmp_path)
    names = sorted(place.name for place in (tmp_path / "checkpoints").iterdir())
    assert names == ["step-00000005", "step-00000010"]


def test_resume_with_other_settings_is_refused(build: Build, log: ExposureLog, tmp_path: Path) -> None:
    train(build(), log, replace(CONFIG, max_epochs=1), seed=0, folder=tmp_path)
    with pytest.raises(ConfigError, match=r"ckpt\.incompatible.*\n.*max_epochs"):
        train(build(), log, replace(CONFIG, batch_size=50), seed=0, folder=tmp_path, resume=True)
    model, whole = build(3), build()
    result = train(model, log, CONFIG, seed=0, folder=tmp_path, resume=True, allow_change=("max_epochs",))
    train(whole, log, CONFIG, seed=0)
    assert result.steps == 30
    assert equal(weights(model), weights(whole))


def test_should_stop_saves_and_returns(build: Build, log: ExposureLog, tmp_path: Path) -> None:
    asked = iter([False] * 6 + [True])
    result = train(build(), log, CONFIG, seed=0, folder=tmp_path, should_stop=lambda: next(asked))
    assert result.interrupted
    assert result.steps == 7
    model, whole = build(4), build()
    train(model, log, CONFIG, seed=0, folder=tmp_path, resume=True)
    train(whole, log, CONFIG, seed=0)
    assert equal(weights(model), weights(whole))


def test_a_loss_that_is_not_finite_names_step_and_ids(build: Build, log: ExposureLog, tmp_path: Path) -> None:
    model = build()
    model.poison_at = 13
    with pytest.raises(TrainingError) as caught:
        train(model, log, CONFIG, seed=0, folder=tmp_path)
    (finding,) = caught.value.findings
    assert finding.code == "train.non_finite"
    assert "epoch 1, step 13" in finding.what
    assert finding.count == 100
    left = json.loads((tmp_path / "non_finite.json").read_text())
    assert (left["epoch"], left["step"], len(left["exposure_ids"])) == (1, 13, 100)
    assert [str(identifier) for identifier in left["exposure_ids"][:5]] == list(finding.examples)
    assert set(left["exposure_ids"]) <= set(range(100_000, 101_000))
    # the last finite checkpoint is there to go on from
    healthy, whole = build(2), build()
    train(healthy, log, CONFIG, seed=0, folder=tmp_path, resume=True)
    train(whole, log, CONFIG, seed=0)
    assert equal(weights(healthy), weights(whole))


def test_a_validation_loss_that_is_not_finite_stops_too(
    build: Build, log: ExposureLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checks = iter([1.0, 0.9, 0.8, float("nan")])
    monkeypatch.setattr("postclick.training.loop.validation_losses", lambda *_: {"logloss": next(checks)})
    with pytest.raises(TrainingError, match=r"train\.non_finite the validation loss .* epoch 1, step 19") as caught:
        train(build(), log, CONFIG, seed=0, folder=tmp_path)
    assert caught.value.exit_code == 70
    assert sorted(place.name for place in (tmp_path / "checkpoints").iterdir()) == ["step-00000010", "step-00000015"]


def test_what_an_accelerator_finds_late_is_found_before_it_is_saved(
    build: Build, log: ExposureLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TrainingStep, "_finite", late_finite)
    model = build()
    model.poison_at = 6
    with pytest.raises(TrainingError, match="epoch 0, step 6"):
        train(model, log, replace(CONFIG, checkpoint_steps=4), seed=0, folder=tmp_path)
    assert sorted(place.name for place in (tmp_path / "checkpoints").iterdir()) == ["step-00000004", "step-00000005"]
    assert json.loads((tmp_path / "non_finite.json").read_text())["terms"]["ctr"] is None


def late_finite(step: TrainingStep, value: torch.Tensor, number: int) -> bool:
    """As on CUDA: note it, go on, ask later."""
    if not torch.isfinite(value):
        step._first_bad.fill_(min(int(step._first_bad), number))
    return True


@pytest.mark.parametrize(
    ("batches", "checks", "wanted"),
    [(10, 2, {5, 10}), (10, 4, {3, 5, 8, 10}), (3, 4, {1, 2, 3}), (1, 4, {1}), (7, 1, {7})],
)
def test_checks_are_even_and_end_the_epoch(batches: int, checks: int, wanted: set[int]) -> None:
    assert check_points(batches, checks) == wanted
