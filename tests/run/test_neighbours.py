"""The neighbours of one entity: raw ids and features of the graph that a run was trained with."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from postclick.bundle import Bundle
from postclick.cli.main import call
from postclick.data.prepare import PrepareOptions, prepare
from postclick.data.sources.opening import open_source
from postclick.errors import ConfigError, InputMissingError
from postclick.models.base import NeighbourGraph, Pretraining
from postclick.models.esmm import ESMM
from postclick.models.systems import MODELS
from postclick.run import run
from postclick.run.neighbours import entity_neighbours
from postclick.run.stages import STAGES, locate
from postclick.structure.storage import read_arrays

ARGUMENTS = {"embedding_size": 4, "tower": {"hidden": [8], "dropout": [0.1]}}


class Graphed(ESMM):
    """An ESMM that asks for the graph of items and does nothing with it."""

    def requires(self):
        return (NeighbourGraph("item", Pretraining("mlp", ARGUMENTS, {"max_epochs": 1}), neighbours=5),)

    def provide(self, requirement, arrays):
        pass


@pytest.fixture(scope="module")
def trained(tmp_path_factory, raw_table, small_schema, small_config):
    folder = tmp_path_factory.mktemp("neighbours")
    parts = {"train": raw_table.slice(0, 1920), "valid": raw_table.slice(1920, 480)}
    log = prepare(open_source((), schema=small_schema, **parts), folder / "log", PrepareOptions(min_count=1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(MODELS, "graphed", Graphed)
        training = replace(small_config.training, max_epochs=1)
        config = replace(small_config, system="graphed", arguments=ARGUMENTS, training=training)
        yield run(log, config, folder / "run").path


@pytest.fixture(scope="module")
def graph(trained):
    return read_arrays(locate(trained, "item-graph"))


@pytest.fixture(scope="module")
def some_item(trained, graph):
    """The raw id of the entity at position 3."""
    vocabulary = Bundle.load(trained).encoder.vocabulary
    return vocabulary.decode(graph.about["names"][0], graph.arrays["entity"][3:4])[0].as_py()


def test_neighbours_carry_their_raw_ids_features_and_cosines(trained, graph, some_item):
    found = entity_neighbours(trained, "item", str(some_item), k=4)
    vocabulary = Bundle.load(trained).encoder.vocabulary
    names = graph.about["names"]
    assert (found.side, found.entity.id, found.held) == ("item", some_item, 5)
    assert list(found.entity.features) == names[1:]
    assert found.entity.similarity is None
    assert len(found.neighbours) == 4
    for place, one in enumerate(found.neighbours):
        position = graph.arrays["neighbours"][3, place]
        rows = graph.arrays["features"][position]
        raw = [vocabulary.decode(name, rows[at : at + 1])[0].as_py() for at, name in enumerate(names)]
        assert [one.id, *one.features.values()] == raw
        assert one.similarity == pytest.approx(float(graph.arrays["similarities"][3, place]))
    (pretraining,) = (trained / STAGES).glob("pretraining-*")
    entities = graph.arrays["features"]
    vectors = read_arrays(pretraining).arrays["table"][entities].reshape(len(entities), -1)
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    expected = np.sort(np.delete(vectors @ vectors[3], 3))[::-1][:4]
    assert [one.similarity for one in found.neighbours] == pytest.approx(expected, abs=1e-5)


def test_the_bundle_inside_its_run_is_as_good_as_the_run(trained, some_item):
    assert entity_neighbours(trained / "bundle", "item", str(some_item)) == entity_neighbours(
        trained, "item", str(some_item)
    )


def test_what_is_not_there_is_named(trained, some_item, tmp_path):
    with pytest.raises(InputMissingError, match=r"no item 'nothing-like-it' .* in the training rows.*for example"):
        entity_neighbours(trained, "item", "nothing-like-it")
    with pytest.raises(InputMissingError, match="trained without the stage 'user-graph'"):
        entity_neighbours(trained, "user", "1")
    with pytest.raises(ConfigError, match="k is 0"):
        entity_neighbours(trained, "item", str(some_item), k=0)
    alone = tmp_path / "alone"
    shutil.copytree(trained / "bundle", alone)
    with pytest.raises(InputMissingError, match="a bundle carries no graph"):
        entity_neighbours(alone, "item", str(some_item))


def test_the_command_prints_json_or_a_table(trained, some_item, monkeypatch, capsys):
    monkeypatch.setitem(MODELS, "graphed", Graphed)
    assert call(["neighbours", str(trained), "--item", str(some_item), "--k", "2", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads(json.dumps(entity_neighbours(trained, "item", str(some_item), k=2).to_dict()))
    assert call(["neighbours", str(trained), "--item", str(some_item), "--k", "9"]) == 0
    shown = capsys.readouterr()
    assert f"item {some_item} and its 5 nearest items" in shown.out
    assert "the graph holds 5 neighbours each" in shown.err


@pytest.mark.parametrize("sides", [[], ["--item", "1", "--user", "2"]])
def test_the_command_wants_one_side(trained, sides, capsys):
    assert call(["neighbours", str(trained), *sides]) == 64
    assert "either --item ID or --user ID" in capsys.readouterr().err
