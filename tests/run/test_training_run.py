"""One run: log and configuration to a RUN folder."""

from __future__ import annotations

import errno
import json
import os
import platform
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from postclick import files
from postclick.bundle import Bundle, Scorer
from postclick.data.prepare import PrepareOptions, prepare
from postclick.data.sources.opening import open_source
from postclick.errors import ConfigError, DataError, InputMissingError, LockedError, StorageError, TrainingError
from postclick.evaluation import EvaluationResult
from postclick.run import RunConfig, run
from postclick.training.config import TrainingConfig
from postclick.training.step import TrainingStep


@pytest.fixture(scope="module")
def quick(small_config):
    """Two short epochs."""
    return replace(small_config, training=replace(small_config.training, max_epochs=2))


def test_what_a_run_leaves(small_run, small_log):
    manifest = files.read_manifest(small_run.path, "run")
    names = {name.partition("/")[0] for name in manifest.files}
    assert names == {"bundle", "config.toml", "metrics.jsonl"}
    assert (small_run.path / "checkpoints").is_dir()
    assert small_run.bundle == files.read_manifest(small_run.path / "bundle").hash
    text = (small_run.path / "config.toml").read_text()
    assert small_log.hash in text
    assert str(small_run.path.parent) not in text
    assert RunConfig.from_toml(small_run.path / "config.toml").to_toml(small_log.hash) == text
    record = json.loads((small_run.path / "record.jsonl").read_text())
    assert {"seconds", "host", "versions", "threads"} <= record.keys()


def test_metrics_hold_no_clock_and_one_line_a_check(small_run):
    lines = [json.loads(line) for line in (small_run.path / "metrics.jsonl").read_text().splitlines()]
    assert lines == list(small_run.training.history)
    assert {"epoch", "step", "terms", "diagnostics", "valid", "best"} == lines[0].keys()


def test_it_learned_and_says_so_on_the_test_split(small_run):
    assert small_run.evaluation["ctr/auc@exposure"].low > 0.6
    assert small_run.evaluation["cvr/auc@click"].low > 0.6
    stored = EvaluationResult.from_dict(files.read_json(small_run.path / "evaluation.json"))
    assert stored["ctr/auc@exposure"] == small_run.evaluation["ctr/auc@exposure"]
    plain = small_run.to_dict()
    assert plain["metrics"]["ctr/auc@exposure"]["value"] == stored["ctr/auc@exposure"].value
    assert json.loads(json.dumps(plain)) == plain


def test_equal_inputs_give_equal_hashes_and_another_seed_does_not(tmp_path, small_log, quick):
    torch.manual_seed(1)
    one = run(small_log, quick, tmp_path / "one")
    torch.manual_seed(2)
    state = torch.get_rng_state()
    other = run(small_log.path, quick, tmp_path / "other")
    assert torch.equal(torch.get_rng_state(), state)  # the caller's random stream is left alone
    assert one.bundle == other.bundle
    assert files.read_manifest(one.path).hash == files.read_manifest(other.path).hash
    assert run(small_log, replace(quick, seed=9), tmp_path / "third").bundle != one.bundle


def test_stopped_and_resumed_gives_the_same_bundle(tmp_path, small_log, quick):
    steps = iter([False] * 5 + [True])
    with pytest.raises(TrainingError, match=r"train\.interrupted.*--resume") as caught:
        run(small_log, quick, tmp_path / "cut", should_stop=lambda: next(steps))
    assert caught.value.exit_code == 143
    assert not (tmp_path / "cut" / files.MANIFEST).exists()
    cut = run(small_log, quick, tmp_path / "cut", resume=True)
    whole = run(small_log, quick, tmp_path / "whole")
    assert cut.bundle == whole.bundle
    assert files.read_manifest(cut.path).hash == files.read_manifest(whole.path).hash


def test_a_complete_run_is_returned_on_resume(small_run, small_log, small_config):
    again = run(small_log, small_config, small_run.path, resume=True)
    assert again.bundle == small_run.bundle
    assert again.training is None
    assert again.notes[0].code == "run.complete"


def test_resume_with_another_configuration_names_the_fields(small_run, small_log, small_config):
    with pytest.raises(ConfigError) as caught:
        run(small_log, replace(small_config, seed=4), small_run.path, resume=True)
    assert caught.value.code == "ckpt.incompatible"
    assert caught.value.exit_code == 78
    assert "started with 3, this one asks for 4 | seed" in str(caught.value)


def test_a_safe_setting_may_change_when_named(tmp_path, small_log, quick):
    run(small_log, quick, tmp_path / "run")
    longer = replace(quick, training=replace(quick.training, max_epochs=3))
    with pytest.raises(ConfigError, match="--allow-config-change max_epochs"):
        run(small_log, longer, tmp_path / "run", resume=True)
    grown = run(small_log, longer, tmp_path / "run", resume=True, allow_config_change=["max_epochs"])
    assert grown.bundle == run(small_log, longer, tmp_path / "whole").bundle


def test_an_existing_run_is_refused_and_replaced_on_request(tmp_path, small_log, quick):
    first = run(small_log, quick, tmp_path / "run")
    with pytest.raises(StorageError) as caught:
        run(small_log, quick, tmp_path / "run")
    assert caught.value.exit_code == 73
    assert run(small_log, replace(quick, seed=8), tmp_path / "run", force=True).bundle != first.bundle


@pytest.mark.parametrize("option", ["force", "resume"])
def test_a_folder_that_is_no_run_is_never_touched(tmp_path, small_log, quick, option):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "one.jpg").write_text("x")
    with pytest.raises(StorageError, match="not a RUN folder"):
        run(small_log, quick, tmp_path / "photos", **{option: True})
    assert (tmp_path / "photos" / "one.jpg").exists()


def test_a_folder_that_cannot_be_made(tmp_path, small_log, quick):
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError) as caught:
        run(small_log, quick, tmp_path / "file" / "run")
    assert caught.value.exit_code == 73


@pytest.mark.parametrize("call", ["exists", "mkdir", "open"])
@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS])
def test_a_folder_that_cannot_be_written_is_found_before_the_first_step(
    tmp_path, small_log, quick, monkeypatch, call, number
):
    original = getattr(Path, call)

    def refuse(path, *arguments, **options):
        if path.is_relative_to(tmp_path / "run"):
            raise OSError(number, os.strerror(number))
        return original(path, *arguments, **options)

    monkeypatch.setattr(Path, call, refuse)
    monkeypatch.setattr("postclick.training.loop.TrainingStep", None)
    with pytest.raises(StorageError, match=r"io\.cannot_create .*/run.* can be written") as caught:
        run(small_log, quick, tmp_path / "run", resume=True)
    assert caught.value.exit_code == 73


def test_a_folder_that_vanishes_is_a_typed_error(tmp_path, small_log, quick):
    def vanish():
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
        return False

    with pytest.raises(StorageError, match=r"io\.cannot_create") as caught:
        run(small_log, quick, tmp_path / "run", should_stop=vanish)
    assert caught.value.exit_code == 73
    assert run(small_log, quick, tmp_path / "run", resume=True).training.steps == 2 * 15


def test_a_run_killed_in_its_first_moment_can_start_again(tmp_path, small_log, quick, small_run):
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "run" / "checkpoints").rmdir()
    (tmp_path / "run" / ".config.toml.123.tmp").write_text("half")
    stopped = iter([True])
    with pytest.raises(TrainingError):
        run(small_log, quick, tmp_path / "run", should_stop=lambda: next(stopped))
    assert files.leftovers(tmp_path / "run") == []


def test_a_replacement_that_is_cut_off_is_neither_complete_nor_somebody_elses(tmp_path, small_log, quick):
    run(small_log, quick, tmp_path / "run")
    names = [path.name for path in (tmp_path / "run").iterdir() if path.name != ".lock"]
    for cut in range(1, len(names) + 1):
        shutil.copytree(tmp_path / "run", tmp_path / f"cut{cut}")

        class Dying(files.Operations):
            left = cut

            def rename(self, source, target):
                self.left -= 1
                if self.left == 0:
                    raise KeyboardInterrupt
                super().rename(source, target)

        with files.swap_operations(Dying()), pytest.raises(KeyboardInterrupt):
            run(small_log, replace(quick, seed=8), tmp_path / f"cut{cut}", force=True)
        left = {path.name for path in (tmp_path / f"cut{cut}").iterdir()}
        assert "config.toml" in left
        assert ("manifest.json" in left) == (cut == 1)


@pytest.mark.parametrize("after", ["training", "bundle"])
def test_a_stop_after_training_ends_before_the_next_stage(tmp_path, small_log, quick, after):
    out = tmp_path / "run"
    reached = {"training": out / "checkpoints" / "step-00000030", "bundle": out / "manifest.json"}[after]
    asked = []

    def stop():
        asked.append(reached.exists())
        return asked[-1]

    with pytest.raises(TrainingError, match=r"train\.interrupted stopped: (training is saved|the bundle)") as caught:
        run(small_log, quick, out, should_stop=stop)
    assert caught.value.exit_code == 143
    assert (out / "bundle").exists() == (after == "bundle")
    assert not (out / "evaluation.json").exists()
    resumed = run(small_log, quick, out, resume=True)
    whole = run(small_log, quick, tmp_path / "whole")
    assert resumed.bundle == whole.bundle
    for name in ("manifest.json", "metrics.jsonl", "evaluation.json"):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_what_is_not_finite_stops_and_leaves_no_trace_once_it_is_finite(tmp_path, small_log, quick, monkeypatch):
    whole = run(small_log, quick, tmp_path / "whole")
    step, calls = TrainingStep.__call__, []

    def poisoned(self, batch, number):
        calls.append(number)
        if number == 20:
            batch = replace(batch, click=batch.click * float("nan"))
        return step(self, batch, number)

    monkeypatch.setattr(TrainingStep, "__call__", poisoned)
    with pytest.raises(
        TrainingError, match=r"train\.non_finite .* epoch 1, step 20 .* 256 times .* for example"
    ) as caught:
        run(small_log, quick, tmp_path / "run")
    assert caught.value.exit_code == 70
    assert calls == list(range(21))
    left = files.read_json(tmp_path / "run" / "non_finite.json")
    assert (left["step"], len(left["exposure_ids"]), left["batch"]["rows"]) == (20, 256, 256)
    monkeypatch.undo()
    healed = run(small_log, quick, tmp_path / "run", resume=True)
    assert healed.bundle == whole.bundle
    assert not (tmp_path / "run" / "non_finite.json").exists()
    assert files.read_manifest(healed.path).hash == files.read_manifest(whole.path).hash


def test_a_learning_rate_that_explodes_stops(tmp_path, small_log, quick):
    wild = replace(quick, training=replace(quick.training, learning_rate=1e30))
    with pytest.raises(TrainingError, match=r"train\.non_finite"):
        run(small_log, wild, tmp_path / "run")


def test_resume_on_another_log_is_refused(tmp_path, small_log, quick, raw_table, small_schema):
    run(small_log, quick, tmp_path / "run")
    source = open_source((), train=raw_table.slice(0, 4000), valid=raw_table.slice(4000), schema=small_schema)
    other = prepare(source, tmp_path / "other", PrepareOptions(min_count=1))
    with pytest.raises(ConfigError, match=r"ckpt\.incompatible .* \| log ") as caught:
        run(other, quick, tmp_path / "run", resume=True, allow_config_change=["log"])
    assert caught.value.exit_code == 78


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove"])
def test_a_damaged_checkpoint_is_passed_over_and_the_hash_is_the_same(tmp_path, small_log, quick, damage):
    whole = run(small_log, quick, tmp_path / "run")
    (whole.path / "manifest.json").unlink()  # as killed before the end
    damaged = whole.path / "checkpoints" / "step-00000030" / "tensors.safetensors"
    data = bytearray(damaged.read_bytes())
    data[len(data) // 2] ^= 1
    {
        "flip": lambda: damaged.write_bytes(data),
        "truncate": lambda: damaged.write_bytes(data[:-9]),
        "remove": damaged.unlink,
    }[damage]()
    resumed = run(small_log, quick, whole.path, resume=True)
    assert [(note.code, "step-00000030" in note.where) for note in resumed.notes] == [("ckpt.fell_back", True)]
    assert resumed.bundle == whole.bundle
    (whole.path / "manifest.json").unlink()
    for place in (whole.path / "checkpoints").iterdir():
        (place / "state.json").write_text("{}")
    with pytest.raises(DataError, match=r"ckpt\.corrupt .*\n.*step-00000030/state\.json") as caught:
        run(small_log, quick, whole.path, resume=True)
    assert caught.value.exit_code == 65


@pytest.mark.parametrize("option", ["resume", "force", "neither"])
def test_a_second_trainer_is_refused(tmp_path, small_log, quick, option):
    (tmp_path / "run").mkdir()
    options = {} if option == "neither" else {option: True}
    with files.lock(tmp_path / "run"), pytest.raises(LockedError) as caught:
        run(small_log, quick, tmp_path / "run", **options)
    assert caught.value.exit_code == 75
    assert re.search(
        rf"lock\.held .*pid {os.getpid()} on {re.escape(platform.node())} since \d{{4}}-", str(caught.value)
    )


def test_what_is_wrong_is_said_before_anything_is_written(tmp_path, small_log):
    with pytest.raises(InputMissingError):
        run(tmp_path / "absent", RunConfig(), tmp_path / "run")
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match=r"device\.unavailable"):
            run(small_log, RunConfig(device="cuda"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def barren_log(tmp_path_factory, raw_table, small_schema):
    """A log without a conversion."""
    import pyarrow as pa

    place = raw_table.schema.get_field_index("conversion")
    table = raw_table.set_column(place, "conversion", pa.array(np.zeros(len(raw_table), np.int8)))
    source = open_source(train=table.slice(0, 3000), test=table.slice(3000), schema=small_schema)
    return prepare(source, tmp_path_factory.mktemp("barren") / "log", PrepareOptions(min_count=1))


def test_a_head_of_one_class_is_refused_or_the_prior(tmp_path, barren_log, quick, raw_table):
    with pytest.raises(DataError, match=r"data\.single_class the cvr head") as caught:
        run(barren_log, quick, tmp_path / "run")
    assert caught.value.exit_code == 65
    assert not (tmp_path / "run").exists()
    result = run(barren_log, quick, tmp_path / "run", allow_degenerate=True)
    bundle = Bundle.load(result.path)
    clicks = bundle.header.constants["cvr"].rows
    assert clicks == barren_log.spec.clicks
    served = Scorer(bundle).score_table(raw_table.slice(0, 5)).scores
    assert served.probability("cvr") == pytest.approx([0.5 / (clicks + 1)] * 5)
    assert served.probability("ctcvr") == pytest.approx(served.probability("ctr") * 0.5 / (clicks + 1))
    assert result.evaluation["cvr/auc@click"].undefined == "no positives"
    assert any("constant prior" in note for note in result.evaluation.notes)


def test_a_ctcvr_headed_system_derives_its_cvr(tmp_path, small_log):
    training = TrainingConfig(batch_size=256, max_epochs=2, learning_rate=0.01)
    config = RunConfig("mlp", {"conversion": "exposure", "embedding_size": 4}, training, device="cpu")
    result = run(small_log, config, tmp_path / "run")
    assert set(Bundle.load(result.path).calibration.heads) == {"ctr", "ctcvr"}
    assert result.evaluation["cvr/auc@click"].derived
    assert any("derived as a quotient" in note for note in result.evaluation.notes)
