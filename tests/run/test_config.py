"""What decides a run."""

from __future__ import annotations

import pytest

from postclick.calibration import CalibrationConfig
from postclick.errors import ConfigError, InputMissingError
from postclick.run.config import RunConfig, differences
from postclick.training.config import TrainingConfig


def test_toml_and_back(tmp_path):
    config = RunConfig(
        "mlp", {"conversion": "exposure"}, TrainingConfig(batch_size=64, patience=None), CalibrationConfig("none"), 7
    )
    (tmp_path / "config.toml").write_text(config.to_toml("hash of a log"))
    assert RunConfig.from_toml(tmp_path / "config.toml") == config
    assert config.to_dict("x")["log"] == "x"


def test_arguments_are_resolved_so_equal_runs_are_equal_texts():
    assert RunConfig().to_toml() == RunConfig("esmm", {"embedding_size": 8}).to_toml()


def test_components_are_bound_by_name():
    config = RunConfig.from_dict({"arguments": {"tower": {"hidden": [16], "dropout": [0.0]}}, "seed": 3})
    assert config.arguments["tower"] == {"hidden": [16], "dropout": [0.0]}
    assert config.seed == 3


def test_all_mistakes_at_once_with_the_likely_spelling():
    with pytest.raises(ConfigError) as caught:
        RunConfig.from_dict(
            {
                "sistem": 1,
                "seed": -1,
                "device": "tpu",
                "arguments": {"embeding_size": 4},
                "training": {"batchsize": 3},
                "calibration": {"cvr": "plat"},
            }
        )
    text = str(caught.value)
    for part in ("'system'", "seed", "tpu", "'embedding_size'", "'batch_size'", "calibration.cvr"):
        assert part in text


@pytest.mark.parametrize("values", [{"training": 3}, {"format": 9}, {"system": 3}, {"system": "esm"}])
def test_single_mistakes(values):
    with pytest.raises(ConfigError):
        RunConfig.from_dict(values)


def test_files_that_are_none(tmp_path):
    with pytest.raises(InputMissingError):
        RunConfig.from_toml(tmp_path / "absent.toml")
    (tmp_path / "bad.toml").write_text("[[[")
    with pytest.raises(ConfigError, match=r"config\.toml"):
        RunConfig.from_toml(tmp_path / "bad.toml")


def test_differences_name_each_field_and_what_may_change():
    before = RunConfig(training=TrainingConfig(max_epochs=2)).to_dict("log a")
    after = RunConfig(seed=1, training=TrainingConfig(max_epochs=5)).to_dict("log b")
    problems, changed = differences(before, after)
    assert [problem.where for problem in problems] == ["log", "seed", "training.max_epochs"]
    assert all(problem.code == "ckpt.incompatible" for problem in problems)
    assert problems[2].fix == "--allow-config-change max_epochs"
    problems, changed = differences(before, after, ["max_epochs", "seed"])
    assert [problem.where for problem in problems] == ["log", "seed"]
    assert changed == ["training.max_epochs"]
