"""The configuration of calibration."""

from __future__ import annotations

import pytest

from postclick.binding import bind, parameters, parse_assignments, plain
from postclick.calibration import CalibrationConfig
from postclick.errors import ConfigError
from postclick.schema import Columns, Schema, SparseFeature


def test_platt_is_the_default_of_every_head():
    assert CalibrationConfig() == CalibrationConfig("platt", "platt", "platt")


def test_every_field_is_documented():
    assert all(parameter.argument.doc for parameter in parameters(CalibrationConfig).values())


def test_mistakes_are_reported_together():
    with pytest.raises(ConfigError) as caught:
        bind(CalibrationConfig, {"cvr": "plat", "ctrr": "none"}, where="calibration")
    assert "calibration.cvr" in str(caught.value)
    assert "did you mean 'ctr'" in str(caught.value)


@pytest.mark.parametrize("method", ["platt", "temperature", "beta", "isotonic", "field-aware", "none"])
def test_every_method_by_its_word(method):
    texts = [f"calibration.cvr={method}"] + (["calibration.fields=['shop']"] if method == "field-aware" else [])
    table = parse_assignments(texts)["calibration"]
    assert CalibrationConfig(**bind(CalibrationConfig, table, where="calibration")).cvr == method


def test_off_is_none_and_the_plain_form_comes_back():
    table = parse_assignments(["calibration.cvr=off", "calibration.weights=ips"])["calibration"]
    config = CalibrationConfig(**bind(CalibrationConfig, table, where="calibration"))
    assert (config.cvr, config.weights) == ("none", "ips")
    for each in (config, CalibrationConfig(), CalibrationConfig(cvr="field-aware", fields=("a", "b"))):
        assert CalibrationConfig(**bind(CalibrationConfig, plain(each), where="calibration")) == each


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"cvr": "field-aware", "ctr": "field-aware"}, "ctr and cvr shall be field-aware"),
        ({"fields": ("shop",)}, "no head is field-aware"),
        ({"cvr": "field-aware", "fields": ("shop", "shop")}, "named twice: shop"),
    ],
)
def test_combinations_that_make_no_sense(settings, words):
    with pytest.raises(ConfigError, match=words):
        CalibrationConfig(**settings)


def test_what_the_schema_must_have():
    schema = Schema((SparseFeature("shop", "item"),), Columns(propensity="shown"))
    fine = CalibrationConfig(cvr="field-aware", fields=("shop",), weights="ips", propensity="logged")
    fine.require(schema)
    with pytest.raises(ConfigError, match="did you mean 'shop'"):
        CalibrationConfig(cvr="field-aware", fields=("shpo",)).require(schema)
    with pytest.raises(ConfigError, match="no logged propensity"):
        fine.require(Schema(schema.features))
