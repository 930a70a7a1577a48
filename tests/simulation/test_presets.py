from dataclasses import fields

import pytest

from postclick.binding import parameters
from postclick.errors import ConfigError
from postclick.simulation.presets import PRESETS, Knobs, resolve


def test_the_presets_differ_in_selection_alone():
    assert set(PRESETS) == {"selection", "no-bias"}
    selection, no_bias = PRESETS["selection"], PRESETS["no-bias"]
    assert selection.selection > 0
    assert no_bias.selection == 0
    differing = [f.name for f in fields(Knobs) if getattr(selection, f.name) != getattr(no_bias, f.name)]
    assert differing == ["selection"]


def test_knobs_are_turned():
    knobs = resolve("no-bias", {"cvr": 0.2, "users": 70, "user_effect": 1})
    assert (knobs.cvr, knobs.users, knobs.user_effect, knobs.selection) == (0.2, 70, 1.0, 0.0)


def test_a_misspelt_knob_names_its_likely_spelling_with_all_other_mistakes():
    with pytest.raises(ConfigError) as caught:
        resolve("selection", {"selektion": 1.0, "groups": "many"})
    assert [finding.code for finding in caught.value.findings] == ["config.unknown_key", "config.value"]
    assert "did you mean 'selection'?" in str(caught.value)


def test_a_misspelt_world_names_its_likely_spelling():
    with pytest.raises(ConfigError, match="did you mean 'no-bias'"):
        resolve("no_bias", {})


def test_values_out_of_range_are_reported_together():
    with pytest.raises(ConfigError) as caught:
        resolve("selection", {"ctr": 1.0, "correlation": -1.5, "groups": 2, "orphan_conversions": 1.0})
    assert [finding.where for finding in caught.value.findings] == [
        "set.ctr",
        "set.correlation",
        "set.groups",
        "set.orphan_conversions",
    ]


def test_every_knob_is_documented():
    assert all(parameter.argument.doc for parameter in parameters(Knobs).values())
