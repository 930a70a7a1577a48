"""The configuration of calibration."""

from __future__ import annotations

import pytest

from postclick.binding import bind, parameters
from postclick.calibration import CalibrationConfig
from postclick.errors import ConfigError


def test_platt_is_the_default_of_every_head():
    assert CalibrationConfig() == CalibrationConfig("platt", "platt", "platt")


def test_every_field_is_documented():
    assert all(parameter.argument.doc for parameter in parameters(CalibrationConfig).values())


def test_mistakes_are_reported_together():
    with pytest.raises(ConfigError) as caught:
        bind(CalibrationConfig, {"cvr": "plat", "ctrr": "none"}, where="calibration")
    assert "calibration.cvr" in str(caught.value)
    assert "did you mean 'ctr'" in str(caught.value)
