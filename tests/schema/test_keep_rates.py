"""Keep rates in the schema."""

from __future__ import annotations

import pytest

from postclick.errors import SchemaError
from postclick.schema import KeepRates, Schema, SparseFeature


def test_a_rate_lies_above_zero_and_at_most_at_one():
    assert KeepRates().whole
    assert not KeepRates(0.5).whole
    for wrong in (0.0, 1.5, -0.1, float("nan")):
        with pytest.raises(ValueError, match=r"unclicked = .*clicked ="):
            KeepRates(wrong, wrong)


def test_toml_and_back(tmp_path):
    schema = Schema((SparseFeature("user", "user"),), keep_rates=KeepRates(0.1, 0.5))
    path = tmp_path / "schema.toml"
    path.write_text(schema.to_toml())
    assert "[keep_rates]" in path.read_text()
    assert Schema.from_toml(path) == schema
    assert "keep_rates" not in Schema((SparseFeature("user", "user"),)).to_toml()


def test_mistakes_are_named():
    feature = [{"name": "user", "kind": "sparse", "side": "user"}]
    with pytest.raises(SchemaError, match=r"above 0.*keep_rates"):
        Schema.from_dict({"feature": feature, "keep_rates": {"unclicked": 2.0}})
    with pytest.raises(SchemaError, match="did you mean 'unclicked'"):
        Schema.from_dict({"feature": feature, "keep_rates": {"unclickd": 0.2}})
    with pytest.raises(SchemaError, match="log of clicks"):
        Schema.from_dict({"feature": feature, "population": "click", "keep_rates": {"unclicked": 0.2}})
