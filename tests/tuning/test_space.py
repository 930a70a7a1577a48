from __future__ import annotations

import pytest

from postclick.models.systems import MODELS
from postclick.run import RunConfig
from postclick.tuning.space import Choice, Range, buildable, space, with_settings


def test_ranges_literals_and_flags_of_the_signature_and_three_settings_of_the_training():
    found = space("escm2-dr")
    assert found["training.learning_rate"] == Range(1e-4, 1e-2, log=True)
    assert found["training.batch_size"] == Range(256, 16384, whole=True, log=True)
    assert found["training.l2"] == Range(1e-8, 1e-4, log=True)
    assert found["risk.self_normalise"] == Choice((False, True))
    assert found["risk.lambda_g"] == Range(0.0, 5.0)
    assert "training.max_epochs" not in found


@pytest.mark.parametrize("key", MODELS)
def test_every_system_has_a_space(key):
    assert {"training.learning_rate", "embedding_size"} <= space(key).keys()


def test_what_the_user_set_is_not_searched():
    fixed = space("escm2-dr", ["risk", "training.l2"])
    assert not any(name.startswith("risk.") for name in fixed)
    assert "training.l2" not in fixed
    assert "training.learning_rate" in fixed


def test_what_cannot_be_built_on_this_log_is_left_out(log):
    config = RunConfig("escm2-dr")
    whole, found = space("escm2-dr"), buildable(space("escm2-dr"), config, log.spec)
    assert "logged" in whole["propensity"].values
    assert "logged" not in found["propensity"].values  # the log has no such column
    assert "training.l2" in found


def test_settings_reach_into_components_and_training():
    made = with_settings(RunConfig("escm2-dr"), {"risk.lambda_g": 2.5, "training.l2": 3e-5, "embedding_size": 5})
    assert (made.arguments["risk"]["lambda_g"], made.training.l2, made.arguments["embedding_size"]) == (2.5, 3e-5, 5)
