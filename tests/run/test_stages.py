"""Stages: built once, kept, shared, resumed; the run is the same whichever of it happened."""

from __future__ import annotations

import shutil
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from postclick import files
from postclick.bundle import Bundle
from postclick.data.entities import entities
from postclick.data.prepare import PrepareOptions, prepare
from postclick.data.sources.opening import open_source
from postclick.errors import ConfigError, DataError, InputMissingError, LockedError, TrainingError
from postclick.models.base import NeighbourGraph, Pretraining
from postclick.models.esmm import ESMM
from postclick.models.systems import MODELS
from postclick.run import evaluate_bundle, run
from postclick.run import stages as module
from postclick.run.stages import STAGES, Stages, locate
from postclick.structure.storage import read_arrays
from postclick.training.checkpoint import CheckpointFolder
from postclick.training.step import TrainingStep

ARGUMENTS = {"embedding_size": 4, "tower": {"hidden": [8], "dropout": [0.1]}}
PRETRAINING = Pretraining("mlp", ARGUMENTS, {"max_epochs": 1})
STEPS, OWN_STEPS = 8, 16
"""Of the pre-training, and of the system on top of it: 1,920 rows, 256 a step."""


class Needy(ESMM):
    """An ESMM whose table starts from a pre-trained one."""

    wanted = (PRETRAINING,)

    def requires(self):
        return self.wanted

    def provide(self, requirement, arrays):
        assert requirement in self.wanted
        if isinstance(requirement, Pretraining):
            with torch.no_grad():
                next(self.tables()).copy_(torch.from_numpy(arrays["table"].copy()))


@pytest.fixture(scope="module")
def log(tmp_path_factory, raw_table, small_schema):
    """Few rows and no test split, so that a run takes a moment."""
    parts = {"train": raw_table.slice(0, 1920), "valid": raw_table.slice(1920, 480)}
    source = open_source((), schema=small_schema, **parts)
    return prepare(source, tmp_path_factory.mktemp("stages") / "log", PrepareOptions(min_count=1))


@pytest.fixture(autouse=True)
def needy(monkeypatch):
    """The system, under its key."""
    monkeypatch.setitem(MODELS, "needy", Needy)
    return Needy


@pytest.fixture
def config(small_config):
    training = replace(small_config.training, max_epochs=2)
    return replace(small_config, system="needy", arguments=ARGUMENTS, training=training)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, log, small_config):
    """An undisturbed run with its stages in it; do not write into it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(MODELS, "needy", Needy)
        training = replace(small_config.training, max_epochs=2)
        config = replace(small_config, system="needy", arguments=ARGUMENTS, training=training)
        return run(log, config, tmp_path_factory.mktemp("whole") / "run")


def stage(place, name="pretraining"):
    """The folder of the one stage of that name."""
    (found,) = [path for path in place.iterdir() if path.name.startswith(name)]
    return found


def stopping(calls):
    """Ask to stop at the call of that number."""
    left = iter(range(1, 10_000))
    return lambda: next(left) == calls


@pytest.fixture
def steps(monkeypatch):
    """The steps that are taken, by the system's class."""
    taken, original = [], TrainingStep.__call__

    def counted(self, *arguments, **options):
        taken.append(type(self.model).__name__)
        return original(self, *arguments, **options)

    monkeypatch.setattr(TrainingStep, "__call__", counted)
    return taken


def test_the_pre_training_is_a_run_of_its_own_bit_for_bit(tmp_path, whole, log, config):
    plain = replace(config, system="mlp", arguments=ARGUMENTS, training=replace(config.training, max_epochs=1))
    own = run(log, plain, tmp_path / "mlp")
    held = read_arrays(stage(whole.path / STAGES))
    assert held.arrays["table"].dtype == np.float32
    assert np.array_equal(held.arrays["table"], next(Bundle.load(own.path).model.tables()).numpy())
    assert held.about["steps"] == own.training.steps == STEPS
    assert held.about["best_loss"] == own.training.best_loss


def test_what_is_provided_reaches_the_system(tmp_path, whole, log, config, monkeypatch):
    monkeypatch.setattr(Needy, "wanted", ())
    without = run(log, config, tmp_path / "run")
    assert without.bundle != whole.bundle
    assert not (tmp_path / "run" / STAGES).exists()
    assert not (tmp_path / "run" / "stages.json").exists()


def test_the_run_vouches_for_what_it_used_and_not_for_the_folder(whole):
    names = files.read_manifest(whole.path, "run").files
    assert "stages.json" in names
    assert not any(name.startswith(f"{STAGES}/") for name in names)
    found = stage(whole.path / STAGES)
    (entry,) = files.read_json(whole.path / "stages.json")["stages"]
    assert entry == {"name": "pretraining", "folder": found.name, "hash": read_arrays(found).hash}
    assert str(whole.path.parent) not in (whole.path / "stages.json").read_text()
    assert not list((whole.path / STAGES / f".{found.name}").glob("checkpoints*"))


def test_equal_inputs_give_equal_runs_and_stages_and_leave_the_random_stream(tmp_path, whole, log, config):
    torch.manual_seed(5)
    state = torch.get_rng_state()
    again = run(log, config, tmp_path / "run", stages=tmp_path / "elsewhere")
    assert torch.equal(torch.get_rng_state(), state)
    assert again.bundle == whole.bundle
    assert files.read_manifest(again.path).hash == files.read_manifest(whole.path).hash
    assert not (tmp_path / "run" / STAGES).exists()


def test_a_second_run_shares_the_work(tmp_path, whole, log, config, steps):
    run(log, config, tmp_path / "first", stages=tmp_path / STAGES)
    assert steps.count("MLP") == STEPS
    steps.clear()
    other = replace(config, arguments=ARGUMENTS | {"tower": {"hidden": [6], "dropout": [0.1]}})
    run(log, other, tmp_path / "second", stages=tmp_path / STAGES)
    assert "MLP" not in steps
    assert "Needy" in steps
    run(log, replace(config, seed=9), tmp_path / "third", stages=tmp_path / STAGES)
    assert steps.count("MLP") == STEPS  # another seed, another pre-training
    assert len([path for path in (tmp_path / STAGES).iterdir() if not path.name.startswith(".")]) == 2


@pytest.mark.parametrize("calls", [1, 5, STEPS])
def test_cut_off_in_the_pre_training_it_goes_on_from_there(tmp_path, whole, log, config, steps, calls):
    quick = replace(config, training=replace(config.training, checkpoint_steps=1))
    with pytest.raises(TrainingError, match=rf"the pre-training is saved after {calls} steps") as caught:
        run(log, quick, tmp_path / "run", should_stop=stopping(calls))
    assert (caught.value.code, caught.value.exit_code) == ("train.interrupted", 143)
    assert not (tmp_path / "run" / "stages.json").exists()
    resumed = run(log, quick, tmp_path / "run", resume=True)
    assert steps.count("MLP") == STEPS
    assert resumed.bundle == whole.bundle
    held = read_arrays(stage(tmp_path / "run" / STAGES)).arrays["table"]
    assert np.array_equal(held, read_arrays(stage(whole.path / STAGES)).arrays["table"])


def test_killed_in_the_pre_training_it_goes_on_from_the_last_check(tmp_path, whole, log, config, monkeypatch):
    class Killed(BaseException):
        pass

    original, saved = CheckpointFolder.save, []

    def dying(self, *arguments):
        saved.append(original(self, *arguments))
        if len(saved) == 3:
            raise Killed
        return saved[-1]

    monkeypatch.setattr(CheckpointFolder, "save", dying)
    quick = replace(config, training=replace(config.training, checkpoint_steps=4))
    with pytest.raises(Killed):
        run(log, quick, tmp_path / "run")
    resumed = run(log, quick, tmp_path / "run", resume=True)
    assert resumed.bundle == whole.bundle


def test_cut_off_later_the_stage_is_provided_again_and_not_trained_again(tmp_path, whole, log, config, steps):
    with pytest.raises(TrainingError, match="training is saved after 5 steps"):
        run(log, config, tmp_path / "run", should_stop=stopping(STEPS + 5))
    before = steps.count("MLP")
    resumed = run(log, config, tmp_path / "run", resume=True)
    assert steps.count("MLP") == before == STEPS
    assert resumed.bundle == whole.bundle
    assert files.read_manifest(resumed.path).hash == files.read_manifest(whole.path).hash


def test_checkpoints_of_which_none_is_whole_are_begun_anew(tmp_path, whole, log, config):
    with pytest.raises(TrainingError):
        run(log, config, tmp_path / "run", should_stop=stopping(5))
    (tensors,) = (tmp_path / "run" / STAGES).glob(".*/checkpoints/*/tensors.safetensors")
    tensors.write_bytes(b"x")
    assert run(log, config, tmp_path / "run", resume=True).bundle == whole.bundle


def test_a_safe_setting_that_changes_leaves_the_stage_as_it_was(tmp_path, log, config, monkeypatch):
    monkeypatch.setattr(Needy, "wanted", (replace(PRETRAINING, training={}),))
    stop = stopping(OWN_STEPS + 5)
    with pytest.raises(TrainingError):
        run(log, config, tmp_path / "run", should_stop=stop)
    shutil.copytree(tmp_path / "run", tmp_path / "copy")
    longer = replace(config, training=replace(config.training, max_epochs=3))
    recorded = (tmp_path / "run" / "stages.json").read_bytes()
    run(log, longer, tmp_path / "run", resume=True, allow_config_change=["max_epochs"])
    assert (tmp_path / "run" / "stages.json").read_bytes() == recorded
    shutil.rmtree(tmp_path / "copy" / STAGES)
    with pytest.raises(ConfigError, match="are gone, and are built otherwise now") as caught:
        run(log, longer, tmp_path / "copy", resume=True, allow_config_change=["max_epochs"])
    assert caught.value.code == "ckpt.incompatible"


def test_a_stage_that_is_gone_is_built_again_alike(tmp_path, whole, log, config):
    with pytest.raises(TrainingError):
        run(log, config, tmp_path / "run", should_stop=stopping(STEPS + 5))
    shutil.rmtree(tmp_path / "run" / STAGES)
    assert run(log, config, tmp_path / "run", resume=True).bundle == whole.bundle


def test_a_damaged_stage_is_never_used(tmp_path, whole, log, config):
    shutil.copytree(whole.path / STAGES, tmp_path / STAGES)
    path = stage(tmp_path / STAGES) / "table.npy"
    path.write_bytes(path.read_bytes()[:-4] + b"\0\0\0\0")
    with pytest.raises(DataError, match=r"data\.corrupt_file.*table\.npy.*built again"):
        run(log, config, tmp_path / "run", stages=tmp_path / STAGES)


def test_scores_and_metrics_need_no_stage(tmp_path, whole, log):
    shutil.copytree(whole.path, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / STAGES)
    metrics = ["ctr/auc@exposure"]
    found = [evaluate_bundle(place, log, split="valid", metrics=metrics) for place in (tmp_path / "run", whole.path)]
    assert found[0]["ctr/auc@exposure"] == found[1]["ctr/auc@exposure"]


# --- one process at a time ------------------------------------------------------------------------------------------


def test_a_second_process_waits_and_then_finds_it_done(tmp_path, whole, log, config, steps, capsys):
    name = stage(whole.path / STAGES).name
    work = tmp_path / STAGES / f".{name}"
    work.mkdir(parents=True)
    holding, done = threading.Event(), []

    def other_process():
        with files.lock(work):
            holding.set()
            time.sleep(0.6)
            shutil.copytree(whole.path / STAGES / name, tmp_path / STAGES / name)
            done.append(len(steps))

    holder = threading.Thread(target=other_process)
    holder.start()
    holding.wait()
    again = run(log, config, tmp_path / "run", stages=tmp_path / STAGES)
    holder.join()
    assert done == [0]
    assert "MLP" not in steps
    assert again.bundle == whole.bundle
    assert "waiting: another process works on this folder" in capsys.readouterr().err


def test_waiting_ends_when_asked_to(tmp_path, whole, log, config):
    work = tmp_path / STAGES / f".{stage(whole.path / STAGES).name}"
    work.mkdir(parents=True)
    with files.lock(work), pytest.raises(TrainingError, match="waiting for another process"):
        run(log, config, tmp_path / "run", stages=tmp_path / STAGES, should_stop=lambda: True)


def test_the_work_is_locked_while_it_is_done(tmp_path, log, config):
    refused = []

    def try_lock():
        work = next((tmp_path / "run" / STAGES).glob(".pretraining-*"))
        try:
            with files.lock(work):
                pass
        except LockedError:
            refused.append(True)
        return True

    with pytest.raises(TrainingError):
        run(log, config, tmp_path / "run", should_stop=try_lock)
    assert refused[0]


# --- what is refused before anything is written -----------------------------------------------------------------------


def test_what_cannot_be_prepared_is_found_before_anything_is_written(tmp_path, log, config, monkeypatch):
    broken = replace(log.schema, columns=replace(log.schema.columns, user_id=None))
    monkeypatch.setattr(log, "schema", broken)
    bad = Pretraining("mpl", {}, {})
    monkeypatch.setattr(Needy, "wanted", (NeighbourGraph("user", PRETRAINING), NeighbourGraph("item", bad)))
    with pytest.raises(ConfigError) as caught:
        run(log, config, tmp_path / "run")
    assert "the schema names no user_id" in str(caught.value)
    assert "there is no system 'mpl'" in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_settings_of_the_runs_own_terms_stay_out_of_the_pre_training(tmp_path, log, config):
    training = replace(config.training, stop_on="ctcvr/logloss@exposure", balance="uncertainty", learning_rate=0.02)
    kept = Stages(tmp_path, log, replace(config, training=training), torch.device("cpu"))
    found = kept._training(PRETRAINING)
    assert (found.stop_on, found.balance) == ("logloss", "fixed")
    assert (found.learning_rate, found.max_epochs) == (0.02, 1)


def test_names_follow_all_that_decides(tmp_path, log, config):
    def name(requirement=PRETRAINING, device="cpu", **changes):
        return Stages(tmp_path, log, replace(config, **changes), torch.device(device)).place(requirement)

    graph = NeighbourGraph("item", PRETRAINING)
    others = [
        name(),
        name(seed=4),
        name(device="cuda"),
        name(training=replace(config.training, batch_size=128)),
        name(replace(PRETRAINING, arguments=ARGUMENTS | {"embedding_size": 5})),
        name(graph),
        name(graph, seed=4),
        name(replace(graph, side="user")),
        name(replace(graph, neighbours=3)),
        name(replace(graph, include_self=True)),
        name(replace(graph, symmetrise=True)),
        name(replace(graph, search="exact")),
        name(replace(graph, pretraining=replace(PRETRAINING, system="esmm"))),
    ]
    assert len(set(others)) == len(others)
    assert name() == name(arguments={}) == others[0]  # the system on top does not count
    assert others[5].startswith("item-graph-")


# --- where it is ------------------------------------------------------------------------------------------------------


def test_an_artefact_is_found_again_from_its_run(tmp_path, whole, log, config):
    assert locate(whole.path, "pretraining") == stage(whole.path / STAGES)
    (tmp_path / "bench" / "runs").mkdir(parents=True)
    run(log, config, tmp_path / "bench" / "runs" / "one", stages=tmp_path / "bench" / STAGES)
    (tmp_path / "bench").rename(tmp_path / "moved")
    found = locate(tmp_path / "moved" / "runs" / "one", "pretraining")
    assert found == stage(tmp_path / "moved" / STAGES)
    (tmp_path / "moved" / STAGES).rename(tmp_path / "away")
    with pytest.raises(InputMissingError, match="is gone"):
        locate(tmp_path / "moved" / "runs" / "one", "pretraining")
    assert locate(tmp_path / "moved" / "runs" / "one", "pretraining", tmp_path / "away") == stage(tmp_path / "away")


def test_a_run_without_the_artefact_says_which_it_has(tmp_path, whole):
    with pytest.raises(InputMissingError, match=r"trained without the stage 'item-graph'.*its stages: pretraining"):
        locate(whole.path, "item-graph")
    shutil.copytree(whole.path, tmp_path / "run")
    (tmp_path / "run" / "stages.json").unlink()
    with pytest.raises(InputMissingError, match="its stages: none"):
        locate(tmp_path / "run", "pretraining")


# --- graphs -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def both_graphs(needy, monkeypatch):
    """The system asks for both graphs and keeps what it is given."""
    given = {}
    wanted = tuple(NeighbourGraph(side, PRETRAINING, neighbours=3) for side in ("user", "item"))
    monkeypatch.setattr(needy, "wanted", wanted)
    monkeypatch.setattr(needy, "provide", lambda self, requirement, arrays: given.setdefault(requirement.name, arrays))
    return given


def by_hand(table, features, k):
    """Equations 2 to 5, densely."""
    vectors = np.concatenate([table[features[:, column]] for column in range(features.shape[1])], axis=1)
    vectors = vectors.astype(np.float64)
    cosines = vectors @ vectors.T / np.outer(*(2 * [np.linalg.norm(vectors, axis=1)]))
    np.fill_diagonal(cosines, -1.0)
    kept = np.zeros_like(cosines)
    for row, values in enumerate(cosines):
        best = np.argsort(-values, kind="stable")[:k]
        kept[row, best] = np.maximum(values[best], 0.0)
    degrees = kept.sum(axis=1)
    inverse = np.divide(1.0, np.sqrt(degrees), out=np.zeros_like(degrees), where=degrees > 0)
    return inverse[:, None] * kept * inverse


def test_a_graph_is_equations_two_to_five_on_the_pre_trained_table(tmp_path, log, config, both_graphs, steps):
    result = run(log, config, tmp_path / "run")
    assert steps.count("MLP") == STEPS  # one pre-training serves both sides
    table = read_arrays(stage(tmp_path / "run" / STAGES)).arrays["table"]
    for side in ("user", "item"):
        held, own = both_graphs[f"{side}-graph"], entities(log, side)
        assert np.array_equal(held["entity"], own.entity)
        assert np.array_equal(held["features"], own.features)
        size = len(own)
        dense = np.zeros((size, size))
        rows = np.repeat(np.arange(size), np.diff(held["indptr"]))
        dense[rows, held["indices"]] = held["values"]
        assert np.allclose(dense, by_hand(table, own.features, 3), atol=1e-5)
        kinds = {name: array.dtype for name, array in held.items() if name in ("indptr", "indices", "values")}
        assert kinds == {"indptr": np.int64, "indices": np.int32, "values": np.float32}
        assert held["neighbours"].shape == held["similarities"].shape == (size, 3)
    assert [note.code for note in result.notes if note.code.startswith("graph.")] == ["graph.excluded"]


def test_what_is_to_be_said_of_a_graph_is_said_when_it_is_found_done_too(tmp_path, log, config, both_graphs, capsys):
    first = run(log, config, tmp_path / "first", stages=tmp_path / STAGES)
    assert "item-graph: exact search of 3 neighbours among" in capsys.readouterr().err
    second = run(log, config, tmp_path / "second", stages=tmp_path / STAGES)
    assert "exact search" not in capsys.readouterr().err
    assert first.notes == second.notes
    excluded = next(note for note in first.notes if note.code == "graph.excluded")
    assert (excluded.where, excluded.count) == ("item graph", 1)
    assert "price" in excluded.what
    assert files.read_manifest(first.path).hash == files.read_manifest(second.path).hash


def test_a_log_that_knows_no_entity_is_told(tmp_path, raw_table, small_schema, config, both_graphs):
    features = (replace(small_schema.features[0], min_count=10_000), *small_schema.features[1:])
    source = open_source((), schema=replace(small_schema, features=features), train=raw_table.slice(0, 1920))
    rare = prepare(source, tmp_path / "log", PrepareOptions(min_count=1))
    with pytest.raises(DataError, match=r"data\.empty no user of the training rows is known by its id"):
        run(rare, config, tmp_path / "run")


def test_large_graphs_are_mined_in_half_precision(tmp_path, log, config, both_graphs, monkeypatch):
    run(log, config, tmp_path / "full")
    full = dict(both_graphs)
    both_graphs.clear()
    monkeypatch.setattr(module, "_HALF_OVER", 100)
    run(log, config, tmp_path / "half")
    difference = full["user-graph"]["similarities"] - both_graphs["user-graph"]["similarities"]
    assert 0.0 < np.abs(difference).max() < 2e-3
