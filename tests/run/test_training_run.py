"""One run: log and configuration to a RUN folder."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from postclick import files
from postclick.bundle import Bundle, Scorer
from postclick.errors import ConfigError, DataError, InputMissingError, LockedError, StorageError, TrainingError
from postclick.evaluation import EvaluationResult
from postclick.run import RunConfig, run
from postclick.training.config import TrainingConfig


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


@pytest.mark.parametrize("option", ["resume", "force", "neither"])
def test_a_second_trainer_is_refused(tmp_path, small_log, quick, option):
    (tmp_path / "run").mkdir()
    options = {} if option == "neither" else {option: True}
    with files.lock(tmp_path / "run"), pytest.raises(LockedError) as caught:
        run(small_log, quick, tmp_path / "run", **options)
    assert caught.value.exit_code == 75


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

    from postclick.data.prepare import PrepareOptions, prepare
    from postclick.data.sources.opening import open_source

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
