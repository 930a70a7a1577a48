from __future__ import annotations

import pytest

from postclick.benchmark import Experiment
from postclick.errors import ConfigError


def test_settings_reach_arguments_training_and_calibration(small):
    small["run"][1]["set"] |= {"calibration.cvr": "none", "shared_embedding": False}
    experiment = Experiment.from_dict(small)
    config = experiment.config(experiment.runs[1], {"training.l2": 0.5, "embedding_size": 6}, seed=3)
    assert (config.system, config.seed) == ("esmm", 3)
    assert config.arguments["embedding_size"] == 6  # the grid wins over the run
    assert config.arguments["shared_embedding"] is False
    assert (config.training.learning_rate, config.training.l2, config.training.max_epochs) == (2e-3, 0.5, 1)
    assert config.calibration.cvr == "none"


def test_a_run_wins_over_the_shared_training_table(small):
    small["run"][0]["set"] = {"training.max_epochs": 7}
    experiment = Experiment.from_dict(small)
    assert experiment.config(experiment.runs[0], {}, seed=0).training.max_epochs == 7
    assert experiment.config(experiment.runs[1], {}, seed=0).training.max_epochs == 1


def test_arguments_and_calibrators_are_shared_and_a_run_wins_over_them(small):
    small |= {
        "arguments": {"tower": {"hidden": [7], "dropout": [0.0]}, "embedding_size": 12},
        "calibration": {"cvr": "none"},
    }
    experiment = Experiment.from_dict(small)
    plain, own = (experiment.config(run, {}, seed=0) for run in experiment.runs)
    assert (plain.arguments["embedding_size"], own.arguments["embedding_size"]) == (12, 4)
    assert plain.arguments["tower"]["hidden"] == own.arguments["tower"]["hidden"] == [7]
    assert plain.calibration.cvr == own.calibration.cvr == "none"
    with pytest.raises(ConfigError, match="expected a table, got 3"):
        Experiment.from_dict(small | {"arguments": 3})


def test_all_mistakes_are_told_together(small):
    small["runs"] = []
    small["data"]["small"]["exposurs"] = 3
    small["table"]["metrics"] = ["cvr auc"]
    small["grid"]["over"] = {"training.l2": 1e-6}
    small["seeds"]["count"] = 0
    with pytest.raises(ConfigError) as caught:
        Experiment.from_dict(small)
    places = [finding.where for finding in caught.value.findings]
    assert {"runs", "data.small.exposurs", "grid", "seeds"} <= set(places)
    assert len(places) == 5
    assert "did you mean 'run'?" in str(caught.value)


def test_a_setting_that_no_system_has_is_found_before_anything_runs(small):
    small["run"][1]["set"] = {"embeding_size": 4}
    small["table"]["baseline"] = "MLP on click"
    with pytest.raises(ConfigError) as caught:
        Experiment.from_dict(small)
    assert "did you mean 'embedding_size'?" in str(caught.value)
    assert "did you mean 'MLP on clicks'?" in str(caught.value)


def test_two_runs_may_not_share_a_label(small):
    small["run"].append({"system": "mlp", "label": "esmm"})
    with pytest.raises(ConfigError, match="two runs are called 'esmm'"):
        Experiment.from_dict(small)


def test_the_grid_is_every_combination_or_an_even_part_of_it(small):
    small["grid"] = {"over": {"training.l2": [1.0, 2.0, 3.0], "embedding_size": [4, 8]}}
    every = Experiment.from_dict(small).grid.settings(None)
    assert len(every) == 6
    assert every[0] == {"training.l2": 1.0, "embedding_size": 4}
    some = Experiment.from_dict(small | {"grid": small["grid"] | {"trials": 4}}).grid.settings(None)
    assert len(some) == 4
    assert all(setting in every for setting in some)
    own = Experiment.from_dict(small).grid.settings({"training.l2": [9.0]})
    assert own == [{"training.l2": 9.0, "embedding_size": 4}, {"training.l2": 9.0, "embedding_size": 8}]


def test_the_test_split_cannot_choose(small):
    small["grid"]["select_on"] = "test"
    with pytest.raises(ConfigError, match="select_on"):
        Experiment.from_dict(small)


@pytest.mark.parametrize("entry", [{}, {"world": "selection", "source": "coat"}])
def test_data_are_a_world_or_a_source(small, entry):
    small["data"] = {"it": entry}
    with pytest.raises(ConfigError, match="one of the two"):
        Experiment.from_dict(small)
