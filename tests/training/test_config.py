from __future__ import annotations

import pytest

from postclick.binding import bind, parameters, plain
from postclick.errors import ConfigError, ExitCode
from postclick.training.config import SAFE_TO_CHANGE, TrainingConfig


def test_all_mistakes_are_reported_together() -> None:
    with pytest.raises(ConfigError) as caught:
        TrainingConfig(batch_size=0, id_dropout=1.0, patience=0, l2_mode="coupled_dense", threads=0)
    where = {finding.where for finding in caught.value.findings}
    assert where == {
        "training.batch_size",
        "training.id_dropout",
        "training.patience",
        "training.l2_mode",
        "training.threads",
    }
    assert caught.value.exit_code is ExitCode.CONFIG
    assert "at least 1, got 0" in str(caught.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.0, -1.0])
@pytest.mark.parametrize("name", ["learning_rate", "table_learning_rate"])
def test_rates_are_positive_and_finite(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"training.{name}"):
        TrainingConfig(**{name: value})


@pytest.mark.parametrize(
    ("name", "value"), [("gradnorm_alpha", -0.1), ("gradnorm_alpha", float("nan")), ("gradnorm_learning_rate", 0.0)]
)
def test_gradnorm_settings_have_their_range(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"training.{name}"):
        TrainingConfig(**{name: value})


def test_the_terms_are_summed_by_default() -> None:
    assert TrainingConfig().balance == "fixed"


def test_coupled_dense_needs_exact_adam() -> None:
    with pytest.raises(ConfigError, match="exact_adam"):
        TrainingConfig(l2_mode="coupled_dense")
    config = TrainingConfig(l2_mode="coupled_dense", optimizer="exact_adam", l2=1e-5)
    assert (config.batch_l2, config.weight_decay) == (0.0, 1e-5)


def test_l2_mode_decides_where_l2_goes() -> None:
    assert TrainingConfig(l2=1e-5).batch_l2 == 1e-5
    assert TrainingConfig(l2=1e-5).weight_decay == 0.0
    none = TrainingConfig(l2=1e-5, l2_mode="none")
    assert (none.batch_l2, none.weight_decay) == (0.0, 0.0)


def test_table_rate_falls_back_to_the_rate() -> None:
    assert TrainingConfig(learning_rate=0.5).table_rate == 0.5
    assert TrainingConfig(learning_rate=0.5, table_learning_rate=0.1).table_rate == 0.1


def test_every_setting_is_documented_and_bound() -> None:
    known = parameters(TrainingConfig)
    assert all(parameter.argument.doc for parameter in known.values())
    assert set(known) >= SAFE_TO_CHANGE
    values = bind(TrainingConfig, {"patience": "off", "batch_size": 64, "optimizer": "rowwise_adagrad"}, where="")
    config = TrainingConfig(**values)
    assert (config.patience, config.batch_size, config.optimizer) == (None, 64, "rowwise_adagrad")
    assert TrainingConfig(**bind(TrainingConfig, plain(config), where="")) == config


def test_a_misspelt_setting_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'batch_size'"):
        bind(TrainingConfig, {"batchsize": 64}, where="training")
