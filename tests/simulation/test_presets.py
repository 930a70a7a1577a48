from dataclasses import fields

import numpy as np
import pytest

from postclick.binding import parameters
from postclick.errors import ConfigError
from postclick.simulation.presets import _WHERE_TURNED, PRESETS, Knobs, resolve
from postclick.simulation.vocabularies import ALI_CCP_SIZES, sizes

FAULTS = {
    "unobserved_confounder": 0.5,
    "thin_overlap": 0.1,
    "support_violation": 0.2,
    "logged_propensity": True,
    "propensity_misspecification": 0.3,
}


TURNED = {
    "no-bias": {"selection"},
    "shop-path": {"action_rate", "purchase_without_action", "action_outside_window"},
    "structure": {"structure"},
    "contradiction": {"structure", "contradiction"},
    "hidden-confounder": {"unobserved_confounder"},
    "thin-overlap": {"selection", "thin_overlap"},
    "delayed": {"delay"},
    "ali-ccp-like": {"ctr", "cvr", "users", "items", "tail"},
    "livestream-like": {"ctr", "cvr", "items"},
}


def test_a_preset_differs_from_selection_in_what_it_is_named_after():
    assert set(PRESETS) == {"selection", *TURNED, "behaviour", "reward"}
    assert PRESETS["behaviour"] is PRESETS["shop-path"]
    base = PRESETS["selection"]
    assert base == Knobs()
    for name, turned in TURNED.items():
        knobs = PRESETS[name]
        assert {
            entry.name for entry in fields(Knobs) if getattr(knobs, entry.name) != getattr(base, entry.name)
        } == turned


def test_the_presets_that_are_like_a_data_set_have_its_rates_and_sizes():
    for name, ctr, ctcvr in (("ali-ccp-like", 0.0389, 0.0002), ("livestream-like", 0.0704, 0.0028)):
        knobs = PRESETS[name]
        assert knobs.ctr == ctr
        assert knobs.ctr * knobs.mean_cvr == pytest.approx(ctcvr, abs=0.00005)
    knobs = PRESETS["ali-ccp-like"]
    assert sizes(knobs, 1_000, full=False).fields == ALI_CCP_SIZES
    # the tail: the rarest item is expected 12 times in 38 M rows, the least that the published vocabulary keeps
    weight = (np.arange(knobs.items) + 10.0) ** -knobs.tail
    assert 38e6 * weight[-1] / weight.sum() == pytest.approx(12, abs=0.5)
    assert PRESETS["livestream-like"].items == 280_000


def test_conversions_are_lifted_by_their_scale():
    lifted = resolve("ali-ccp-like", {"conversion_scale": 30})
    assert lifted.mean_cvr == pytest.approx(0.165)
    assert lifted.to_dict()["conversion_scale"] == 30
    assert "conversion_scale" not in resolve("ali-ccp-like", {}).to_dict()


@pytest.mark.parametrize(
    ("knobs", "where"),
    [
        ({"structure": 1.01, "contradiction": -0.1}, ["set.structure", "set.contradiction"]),
        ({"structure": 0.5, "communities": 2}, ["set.communities"]),
        ({"conversion_scale": 0.0}, ["set.conversion_scale"]),
        ({"conversion_scale": 10.0}, ["set.conversion_scale"]),
        ({"communities": 20}, ["set.communities"]),
    ],
)
def test_knobs_of_communities_and_the_scale_have_their_ranges(knobs, where):
    with pytest.raises(ConfigError) as caught:
        resolve("selection", knobs)
    assert [finding.where for finding in caught.value.findings] == where


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
    assert "world shop-path" in str(caught.value)
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
    assert set(stated) == {entry.name for entry in fields(Knobs)} - set(_WHERE_TURNED)
    assert stated["action_rate"] == 0.4


def test_knobs_of_faults_are_stated_only_where_they_are_turned():
    assert not set(_WHERE_TURNED) & set(PRESETS["selection"].to_dict())
    assert set(FAULTS) < set(_WHERE_TURNED)
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
