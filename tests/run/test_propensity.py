"""A trained bundle in the place of a logged propensity."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch

from postclick import files
from postclick.bundle import Bundle, Scorer
from postclick.data.log import ExposureLog
from postclick.data.prepare import PrepareOptions, prepare
from postclick.data.sources.opening import open_source
from postclick.errors import ConfigError, DataError, InputMissingError, TrainingError
from postclick.models.base import Outputs
from postclick.models.batching import to_batch
from postclick.models.catalog import build
from postclick.models.debiasing import propensities
from postclick.run import RunConfig, run
from postclick.run.propensity import propensity_bundle
from postclick.training.loop import train

ARGUMENTS = {"embedding_size": 4, "tower": {"hidden": [8], "dropout": [0.1]}}
WEIGHING = ARGUMENTS | {"propensity": "logged"}
ROWS = {"train": (0, 1920), "valid": (1920, 480)}


def prepared(path, schema, table):
    parts = {name: table.slice(*place) for name, place in ROWS.items()}
    return prepare(open_source((), schema=schema, **parts), path, PrepareOptions(min_count=1))


@pytest.fixture(scope="module")
def log(tmp_path_factory, raw_table, small_schema):
    """Few rows, no logged propensity, no test split."""
    return prepared(tmp_path_factory.mktemp("propensity") / "log", small_schema, raw_table)


@pytest.fixture(scope="module")
def quick(small_config):
    return replace(small_config, arguments=ARGUMENTS, training=replace(small_config.training, max_epochs=1))


@pytest.fixture(scope="module")
def click_run(tmp_path_factory, log, quick):
    """The run whose CTR is the propensity."""
    return run(log, quick, tmp_path_factory.mktemp("propensity") / "ctr").path


@pytest.fixture(scope="module")
def weighing(quick, click_run):
    """Multi-IPW on the bundle's CTR."""
    training = replace(quick.training, propensity_bundle=str(click_run))
    return replace(quick, system="multi-ipw", arguments=WEIGHING, training=training)


@pytest.fixture(scope="module")
def weighed(tmp_path_factory, log, weighing):
    """A run with it; do not write into it."""
    return run(log, weighing, tmp_path_factory.mktemp("propensity") / "run")


def weights(path):
    return (path / "bundle" / "model.safetensors").read_bytes()


def test_it_is_the_column_with_the_same_values_bit_for_bit(
    tmp_path, raw_table, small_schema, log, click_run, weighing, weighed
):
    rows = raw_table.slice(0, 2400)
    click = Scorer(Bundle.load(click_run))
    scored = {}
    for name in ROWS:
        for block in log.split(name).blocks():
            values = click.score(block.without_labels()).probability("ctr")
            scored |= dict(zip(block.labels.exposure_id.tolist(), values.tolist(), strict=True))
    column = pa.array([scored[one] for one in rows.column("exposure_id").to_pylist()])
    schema = replace(small_schema, columns=replace(small_schema.columns, propensity="shown"))
    with_column = prepared(tmp_path / "log", schema, rows.append_column("shown", column))
    plain = replace(weighing, training=replace(weighing.training, propensity_bundle=None))
    other = run(with_column, plain, tmp_path / "run")
    assert weights(other.path) == weights(weighed.path)
    assert other.training.history == weighed.training.history
    constant = run(log, replace(plain, arguments=ARGUMENTS | {"propensity": "constant"}), tmp_path / "constant")
    assert weights(constant.path) != weights(weighed.path)


def test_config_records_the_hash_and_no_path(weighed, click_run, log, tmp_path):
    text = (weighed.path / "config.toml").read_text()
    bundle = Bundle.load(click_run).hash
    assert f'propensity_bundle = "{bundle}"' in text
    assert str(click_run) not in text
    held = RunConfig.from_toml(weighed.path / "config.toml")
    with pytest.raises(ConfigError, match=r"the hash of a bundle.*give the path of the RUN or BUNDLE"):
        run(log, held, tmp_path / "run")


def test_what_was_trained_scores_without_the_bundle_or_a_column(tmp_path, weighed, log):
    shutil.copytree(weighed.path / "bundle", tmp_path / "bundle")
    scores = Scorer(Bundle.load(tmp_path / "bundle")).score(log.split("valid").read().without_labels())
    assert np.isfinite(scores.odds["cvr"]).all()


@pytest.mark.parametrize("calls", [1, 4])
def test_cut_off_and_resumed_it_is_the_same_run(tmp_path, log, weighing, weighed, calls, monkeypatch):
    left = iter(range(1, 1000))
    with pytest.raises(TrainingError):
        run(log, weighing, tmp_path / "run", should_stop=lambda: next(left) == calls)
    scored = calls > 1
    assert bool(list((tmp_path / "run" / "stages").glob("propensity-*"))) == scored
    if scored:
        monkeypatch.setattr("postclick.run.stages.Scorer", None)  # the rows are not scored again
    resumed = run(log, weighing, tmp_path / "run", resume=True)
    assert files.read_manifest(resumed.path).hash == files.read_manifest(weighed.path).hash


def test_another_bundle_is_another_run(tmp_path, log, quick, weighing):
    with pytest.raises(TrainingError):
        run(log, weighing, tmp_path / "run", should_stop=iter([False, True]).__next__)
    other = run(log, replace(quick, seed=8), tmp_path / "other")
    changed = replace(weighing, training=replace(weighing.training, propensity_bundle=str(other.path / "bundle")))
    with pytest.raises(ConfigError, match=r"ckpt\.incompatible.*training\.propensity_bundle"):
        run(log, changed, tmp_path / "run", resume=True)


def test_the_rows_carry_it_and_no_gradient_goes_to_it(weighed, log):
    values = np.linspace(0.1, 0.9, len(log.split("train")), dtype=np.float32)
    given = log.with_propensity(values)
    batch = to_batch(given.split("train").block(0))
    assert batch.propensity.tolist() == values[: len(batch)].tolist()
    model = build("multi-ipw", given.spec, WEIGHING)
    outputs: Outputs = model(batch)
    used = propensities("logged", outputs.ctr, batch, given.spec.ctr)
    assert used is batch.propensity
    assert not used.requires_grad
    model.loss(outputs, batch).terms["cvr"].backward()
    head = [parameter.grad for name, parameter in model.named_parameters() if ".ctr." in f".{name}."]
    assert head
    assert all(grad is None or not grad.any() for grad in head)


def test_a_system_that_would_not_read_it_is_refused(tmp_path, log, quick, weighing):
    for config in (
        replace(quick, training=weighing.training),
        replace(weighing, arguments=ARGUMENTS | {"propensity": "ctr"}),
    ):
        with pytest.raises(
            ConfigError, match=r"config\.combination.*reads no logged propensity as it is set"
        ) as caught:
            run(log, config, tmp_path / "run")
        assert "--set propensity=logged" in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_bundle_of_other_features_or_another_vocabulary_is_refused(
    tmp_path, raw_table, small_schema, log, quick, weighing
):
    cut = prepared(tmp_path / "cut", small_schema, raw_table.filter(pa.compute.less(raw_table["user"], 50)))
    fewer = replace(small_schema, features=small_schema.features[:2])
    for name, other, code in (
        ("vocabulary", cut, "data.vocabulary_mismatch"),
        ("features", prepared(tmp_path / "fewer", fewer, raw_table), "data.schema_mismatch"),
    ):
        there = run(other, quick, tmp_path / name).path
        config = replace(weighing, training=replace(weighing.training, propensity_bundle=str(there)))
        with pytest.raises(DataError) as caught:
            run(log, config, tmp_path / "run")
        assert caught.value.code == code
    assert not (tmp_path / "run").exists()


def test_a_bundle_that_is_not_there_is_told(tmp_path, log, weighing):
    config = replace(weighing, training=replace(weighing.training, propensity_bundle=str(tmp_path / "none")))
    with pytest.raises(InputMissingError, match=r"input\.missing"):
        run(log, config, tmp_path / "run")


def test_the_loop_alone_does_not_pass_over_it(log, weighing):
    given = log.with_propensity(np.full(len(log.split("train")), 0.5, np.float32))
    torch.manual_seed(0)
    model = build("multi-ipw", given.spec, WEIGHING)
    with pytest.raises(ConfigError, match="come with the log"):
        train(model, log, weighing.training, seed=0)


def test_without_one_nothing_changes(quick, log):
    assert propensity_bundle(quick, log) == (quick, None)
    assert ExposureLog(log.path).spec == log.spec
