"""Systems by name: described from their signatures, built from plain values, refused with the likely spelling."""

import dataclasses
import json

import pytest
import torch

from postclick.binding import parameters, parse_assignments
from postclick.errors import ConfigError
from postclick.models.catalog import build, describe, resolve_arguments
from postclick.models.systems import MODELS
from postclick.nn.interaction import Interaction


def test_describe_has_the_declared_shape_and_survives_json():
    entries = json.loads(json.dumps(describe()))
    assert [entry["key"] for entry in entries] == list(MODELS)
    for entry in entries:
        assert list(entry) == ["key", "title", "paper", "year", "heads", "arguments"]
        assert set(entry["heads"].values()) <= {"head", "derived"}
        assert entry["title"]
        assert str(entry["year"]) in entry["paper"]
        for argument in entry["arguments"]:
            assert list(argument) == ["name", "type", "default", "paper_value", "doc"]
            assert argument["doc"]
        names = [argument["name"] for argument in entry["arguments"]]
        assert [name for name in names if "." not in name] == list(parameters(MODELS[entry["key"]]))


def test_describe_says_where_the_paper_differs_also_inside_a_component():
    (entry,) = (entry for entry in describe() if entry["key"] == "esmm")
    esmm = {argument["name"]: argument for argument in entry["arguments"]}
    assert (esmm["embedding_size"]["default"], esmm["embedding_size"]["paper_value"]) == (8, 18)
    assert esmm["tower.hidden"]["default"] == [128, 64, 32]
    assert esmm["tower.hidden"]["paper_value"] == [360, 200, 80]
    assert esmm["tower.dropout"]["paper_value"] is None
    assert esmm["shared_embedding"]["type"] == "bool"


def test_describe_lists_the_parts_of_a_component_that_is_absent():
    (entry,) = (entry for entry in describe() if entry["key"] == "mlp")
    mlp = {argument["name"]: argument for argument in entry["arguments"]}
    assert (mlp["interaction"]["type"], mlp["interaction"]["default"]) == ("Interaction | None", "off")
    assert mlp["interaction.kind"]["type"] == "'fm' | 'cross'"
    assert (mlp["interaction.layers"]["default"], mlp["interaction.rank"]["default"]) == (2, "off")


def test_an_interaction_is_set_by_its_parts_on_and_off(spec):
    def bound(*texts):
        return build("mlp", spec, parse_assignments(list(texts))).ctr_network.encoder.interaction

    assert bound("interaction=off") is bound() is None
    assert bound("interaction=on") == bound("interaction.kind=cross") == Interaction("cross")
    assert bound("interaction.kind=fm") == Interaction("fm")
    assert bound("interaction.rank=4", "interaction.layers=3") == Interaction("cross", 3, 4)
    resolved = resolve_arguments("mlp", {"interaction": {"kind": "fm"}})
    assert resolved["interaction"] == {"kind": "fm", "layers": 2, "rank": "off"}
    assert resolve_arguments("mlp", resolved) == resolved


def test_describe_draws_nothing_from_the_generator():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    describe()
    assert torch.equal(torch.rand(3), expected)


def test_build_binds_plain_values(spec):
    model = build("mlp", spec, {"conversion": "exposure", "tower": {"hidden": [4], "dropout": [0.5]}})
    assert isinstance(model, MODELS["mlp"])
    assert model.conversion == "exposure"
    assert model.ctr_network.towers["ctr"].width == 4
    assert model.ctr_network.encoder.table.weight.shape == (spec.table_rows, 8)


def test_dotted_names_of_describe_are_names_that_build_takes(spec):
    spec = dataclasses.replace(spec, actions=8.0)
    for entry in describe():
        for argument in entry["arguments"]:
            *parents, leaf = argument["name"].split(".")
            nested = {leaf: argument["default"]}
            for parent in reversed(parents):
                nested = {parent: nested}
            build(entry["key"], spec, nested)


def test_resolved_arguments_are_plain_complete_and_stable(spec):
    resolved = resolve_arguments("esmm", {"tower": {"dropout": [0.2]}})
    assert resolved == {
        "embedding_size": 8,
        "tower": {"hidden": [128, 64, 32], "dropout": [0.2]},
        "trunk": "shared",
        "experts": {
            "count": 4,
            "specific": 1,
            "shared": 2,
            "levels": 2,
            "hidden": [64, 32, 16],
            "dropout": [0.1, 0.3, 0.3],
        },
        "shared_embedding": True,
        "interaction": "off",
        "biases": True,
    }
    assert resolve_arguments("esmm", resolved) == resolved
    for key in MODELS:
        build(key, dataclasses.replace(spec, actions=8.0), resolve_arguments(key, {}))


@pytest.mark.parametrize(
    ("key", "arguments", "message"),
    [
        ("esmmm", {}, "there is no system 'esmmm' | system | did you mean 'esmm'?"),
        ("xyz", {}, f"there is no system 'xyz' | system | systems: {', '.join(MODELS)}"),
        ("esmm", {"embeding_size": 4}, "'embeding_size' | arguments.embeding_size | did you mean 'embedding_size'?"),
        ("esmm", {"tower": {"hiden": [4]}}, "arguments.tower.hiden | did you mean 'hidden'?"),
        ("mlp", {"conversion": "clicks"}, "arguments.conversion"),
        ("mlp", {"tower": {"hidden": [4, 4]}}, "2 hidden layers but 3 dropout rates"),
        ("mlp", {"interaction": "fm"}, "got str 'fm' | arguments.interaction | did you mean interaction.kind = 'fm'?"),
        ("mlp", {"interaction": {"rank": 0}}, "a rank is at least 1, got 0 | arguments.interaction"),
        ("mlp", {"embedding_size": 0}, "an embedding size is at least 1, got 0 | arguments"),
    ],
)
def test_mistakes_are_refused_with_the_way_out(spec, key, arguments, message):
    with pytest.raises(ConfigError) as caught:
        build(key, spec, arguments)
    assert message in str(caught.value)


def test_all_mistakes_come_together(spec):
    wrong = {"embeding_size": 4, "tower": {"hiden": [4]}, "shared_embedding": "yes"}
    for call in (lambda: build("esmm", spec, wrong), lambda: resolve_arguments("esmm", wrong)):
        with pytest.raises(ConfigError) as caught:
            call()
        assert len(caught.value.findings) == 3
