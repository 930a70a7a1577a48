from dataclasses import fields

import pytest

from postclick.binding import parameters
from postclick.errors import ConfigError
from postclick.simulation.presets import PRESETS, Knobs, resolve

FAULTS = {
    "unobserved_confounder": 0.5,
    "thin_overlap": 0.1,
    "support_violation": 0.2,
    "logged_propensity": True,
    "propensity_misspecification": 0.3,
}


def test_the_presets_differ_in_selection_alone_but_for_the_one_with_actions():
    assert set(PRESETS) == {"selection", "no-bias", "behaviour", "reward"}
    assert [name for name, knobs in PRESETS.items() if knobs.action_rate] == ["behaviour"]
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


def test_knobs_of_actions_need_actions():
    with pytest.raises(ConfigError) as caught:
        resolve("selection", {"purchase_without_action": 0.3, "orphan_actions": 0.1})
    assert [finding.where for finding in caught.value.findings] == ["set.purchase_without_action", "set.orphan_actions"]
    assert "world behaviour" in str(caught.value)
    assert resolve("selection", {"purchase_without_action": 0.3, "action_rate": 0.4}).action_rate == 0.4


@pytest.mark.parametrize(
    ("knobs", "where"),
    [
        ({"action_rate": 0.05}, ["set.action_rate"]),
        ({"action_rate": 0.95, "purchase_without_action": 0.7}, ["set.purchase_without_action"]),
        ({"purchase_outside_window": 0.9}, ["set.action_rate"]),
        (
            {"purchase_outside_window": 0.96, "purchase_without_action": 0.5},
            ["set.action_rate", "set.purchase_without_action"],
        ),
    ],
)
def test_more_conversions_than_a_path_can_hold_are_refused(knobs, where):
    with pytest.raises(ConfigError) as caught:
        resolve("behaviour", knobs)
    assert [finding.where for finding in caught.value.findings] == where


def test_knobs_of_actions_are_stated_only_where_there_are_actions():
    assert not {name for name in PRESETS["selection"].to_dict() if "action" in name or "purchase" in name}
    stated = PRESETS["behaviour"].to_dict()
    assert set(stated) == {entry.name for entry in fields(Knobs)} - set(FAULTS)
    assert stated["action_rate"] == 0.4


def test_knobs_of_faults_are_stated_only_where_they_are_turned():
    assert not set(FAULTS) & set(PRESETS["selection"].to_dict())
    stated = resolve("selection", FAULTS).to_dict()
    assert {name: stated[name] for name in FAULTS} == FAULTS


@pytest.mark.parametrize(
    ("knobs", "where"),
    [
        ({"propensity_misspecification": 0.5}, ["set.propensity_misspecification"]),
        ({"support_violation": 0.6, "thin_overlap": 0.4}, ["set.thin_overlap"]),
        ({"support_violation": 0.6, "ctr": 0.4}, ["set.support_violation"]),
        ({"unobserved_confounder": -1.0, "thin_overlap": 1.0}, ["set.unobserved_confounder", "set.thin_overlap"]),
        (
            {"action_rate": 0.4, "support_violation": 0.1, "unobserved_confounder": 1.0},
            ["set.unobserved_confounder", "set.support_violation"],
        ),
    ],
)
def test_faults_that_do_not_go_together_are_refused(knobs, where):
    with pytest.raises(ConfigError) as caught:
        resolve("selection", knobs)
    assert [finding.where for finding in caught.value.findings] == where


def test_every_knob_is_documented():
    assert all(parameter.argument.doc for parameter in parameters(Knobs).values())
