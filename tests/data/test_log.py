"""The encoded log on disk."""

from __future__ import annotations

import dataclasses

import numpy as np
import pyarrow as pa
import pytest

from postclick import files
from postclick.data.arrays import CENSORED, Exposures, Labels, Ragged
from postclick.data.clock import NO_TIME
from postclick.data.ipc import BlockWriter, write_table
from postclick.data.log import ExposureLog, LogSplit, from_arrow, to_arrow
from postclick.errors import DataError, InputMissingError
from postclick.schema import Columns, DenseFeature, EmbeddingFeature, Schema, SequenceFeature, SparseFeature

SCHEMA = Schema(
    (
        SparseFeature("f"),
        DenseFeature("x"),
        SequenceFeature("s", weights="w"),
        SequenceFeature("t"),
        EmbeddingFeature("v", 2),
    ),
    Columns(exposure_id="id"),
)


def exposures(rows: int, first: int = 0, **labels) -> Exposures:
    rng = np.random.default_rng(first)
    offsets = np.concatenate([[0], np.cumsum(rng.integers(0, 3, rows))])
    values = rng.integers(0, 9, offsets[-1]).astype(np.int32)
    ids = np.arange(first, first + rows)
    click = (ids % 2).astype(np.int8)
    conversion = (ids % 4 == 1).astype(np.int8)
    return Exposures(
        rng.integers(0, 9, (rows, 1)).astype(np.int32),
        rng.normal(size=(rows, 1)).astype(np.float32),
        rng.normal(size=(rows, 2)).astype(np.float32),
        (Ragged(values, offsets, values.astype(np.float32)), Ragged(values, offsets)),
        Labels(click, conversion, **{"exposure_id": ids, **labels}),
    )


def check(found: Exposures, wanted: Exposures) -> None:
    for name in ("rows", "dense", "embeddings"):
        np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name))
    for one, other in zip(found.sequences, wanted.sequences, strict=True):
        np.testing.assert_array_equal(one.values, other.values)
        np.testing.assert_array_equal(one.offsets, other.offsets)
        assert (one.weights is None) == (other.weights is None)
    for name in ("click", "conversion", "exposure_id", "user_id"):
        np.testing.assert_array_equal(getattr(found.labels, name), getattr(wanted.labels, name))


@pytest.mark.parametrize("rows", [0, 1, 7])
def test_arrow_holds_everything(rows):
    ours = exposures(rows, user_id=np.array([f"ü{i}" for i in range(rows)], object))
    check(from_arrow(to_arrow(ours, SCHEMA), SCHEMA), ours)


def test_a_slice_of_a_block_is_read_right():
    ours = exposures(10)
    check(from_arrow(to_arrow(ours, SCHEMA).slice(3, 4), SCHEMA), ours.take(np.arange(3, 7)))


def test_without_labels_or_columns():
    ours = exposures(3).without_labels()
    assert from_arrow(to_arrow(ours, SCHEMA), SCHEMA).labels is None
    none = Exposures(np.zeros((2, 0), np.int32), np.zeros((2, 0), np.float32), np.zeros((2, 0), np.float32))
    with pytest.raises(DataError, match=r"data\.empty"):
        to_arrow(none, Schema((SparseFeature("f"),)))


VOCABULARY = {"table_rows": 9, "fields": [{"size": 3}, {"size": 2}, {"size": 1}]}


def write_log(path, parts, **extra):
    with files.new_folder(path, "log") as folder:
        for split, blocks in parts.items():
            (folder / split).mkdir()
            with BlockWriter(folder / split / "part-00000.arrow") as writer:
                for block in blocks:
                    writer.write(to_arrow(block, SCHEMA))
        (folder / "vocabulary").mkdir()
        files.write_json(folder / "vocabulary" / "vocabulary.json", VOCABULARY)
        files.write_json(folder / "ledger.json", {})
        files.write_text(folder / "schema.toml", SCHEMA.to_toml())
        for name, table in extra.items():
            write_table(folder / f"{name}.arrow", table)
    return ExposureLog(path)


def test_a_log_gives_splits_blocks_and_halves(tmp_path):
    log = write_log(tmp_path / "log", {"train": [exposures(5), exposures(6, 5)], "valid": [exposures(400, 11)]})
    assert log.splits == ("train", "valid")
    train = log.split("train")
    assert (len(train), train.num_blocks, train.block_rows) == (11, 2, [5, 6])
    check(train.block(1), exposures(6, 5))
    assert train.read().labels.exposure_id.tolist() == list(range(11))
    assert train.labels().click.tolist() == [i % 2 for i in range(11)]
    stop, calibrate = (log.split("valid").read(role).labels.exposure_id.tolist() for role in ("stop", "calibrate"))
    assert sorted(stop + calibrate) == list(range(11, 411))
    assert 150 < len(stop) < 250
    assert train.nbytes >= train.read().rows.nbytes
    with pytest.raises(InputMissingError, match="'test' has no rows"):
        log.split("test").read()


def test_spec_counts_weighted_training_rows(tmp_path):
    weights = np.array([1.0, 2.0, 4.0, 8.0])
    block = exposures(4, sample_weight=weights, action=np.array([1, 0, 0, 1], np.int8))
    spec = write_log(tmp_path / "log", {"train": [block]}).spec
    # row 0 has an action and no click: it is no action of a click
    assert (spec.rows, spec.clicks, spec.conversions, spec.actions) == (15.0, 10.0, 2.0, 8.0)
    assert (spec.ctr, spec.cvr, spec.ctcvr, spec.action) == (10 / 15, 2 / 10, 2 / 15, 8 / 10)
    assert (spec.table_rows, spec.embedding_width) == (9, 2)
    assert [spec.values_of(field) for field in range(3)] == list(spec.field_rows) == [3, 2, 1]
    assert dataclasses.replace(spec, field_rows=None).values_of(0) == 6  # at most: what no field's unknown row is


def test_a_spec_without_the_action_label_has_no_action_rate(tmp_path):
    spec = write_log(tmp_path / "log", {"train": [exposures(4)]}).spec
    with pytest.raises(ValueError, match=r"in-shop action.*name its column in the schema"):
        _ = spec.action
    assert dataclasses.replace(spec, actions=3.0, clicks=0.0).action == 0.0


def test_censored_conversions_are_no_rows_of_the_rate(tmp_path):
    block = exposures(4)
    block.labels.conversion[0] = CENSORED
    assert write_log(tmp_path / "log", {"train": [block]}).spec.rows == 3.0


def test_rates_are_of_final_rows_and_days_reach_back_to_the_first_click(tmp_path):
    day = 86_400_000_000
    times = {"click_time": np.array([-9, -6, -5, -2]) * day, "observed_until": np.zeros(4, np.int64)}
    block = exposures(4, immature=np.array([0, 0, 1, 1], np.int8), **times)
    spec, labels = write_log(tmp_path / "log", {"train": [block]}).spec, block.labels
    assert (spec.rows, spec.clicks) == (2.0, float((labels.click[:2] == 1).sum()))
    assert spec.conversions == float((labels.conversion[:2] == 1).sum())
    assert spec.days == -float(times["click_time"][labels.click == 1].min()) / day
    young = dataclasses.replace(block, labels=dataclasses.replace(labels, immature=np.ones(4, np.int8)))
    assert write_log(tmp_path / "young", {"train": [young]}).spec.rows == 4.0  # no row is final: all are counted
    none = dataclasses.replace(block, labels=dataclasses.replace(labels, immature=None))
    assert write_log(tmp_path / "none", {"train": [none]}).spec.days is None
    timed = {"time": np.array([-9, -8, -7, -6]) * day, "click_time": np.full(4, NO_TIME)}  # the exposure's stands in
    untold = dataclasses.replace(block, labels=dataclasses.replace(labels, **timed))
    days = write_log(tmp_path / "untold", {"train": [untold]}).spec.days
    assert days == -float(timed["time"][labels.click == 1].min()) / day


@pytest.mark.parametrize("text", [False, True])
def test_truth_is_found_by_exposure_id_in_any_order(tmp_path, text):
    ids = np.array([f"e{i}" for i in range(6)], object) if text else np.arange(6)
    order = np.array([3, 0, 5, 1, 4, 2])
    p = np.linspace(0, 1, 6)
    truth = pa.table({"exposure_id": ids[order], **dict.fromkeys(("ctr", "cvr_do", "cvr_click", "ctcvr"), p[order])})
    block = exposures(4, exposure_id=ids[2:])
    log = write_log(tmp_path / "log", {"train": [block]}, truth=truth)
    np.testing.assert_array_equal(log.truth("train").ctr, p[2:])
    short = write_log(tmp_path / "short", {"train": [block]}, truth=truth.slice(0, 3))
    with pytest.raises(DataError, match=r"truth\.arrow lacks exposures"):
        short.truth("train")
    assert write_log(tmp_path / "none", {"train": [block]}).truth("train") is None


def test_a_damaged_block_is_named(tmp_path):
    log = write_log(tmp_path / "log", {"train": [exposures(4)]})
    path = log.path / "train" / "part-00000.arrow"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError, match=r"data\.corrupt_file.*part-00000"):
        len(LogSplit(log.path / "train", SCHEMA))


def test_given_propensities_take_the_place_of_the_column_in_train_alone(small_log):
    values = np.linspace(0.1, 0.9, len(small_log.split("train")), dtype=np.float32)
    given = small_log.with_propensity(values)
    assert small_log.split("train").block(0).labels.propensity is None
    split = given.split("train")
    assert np.array_equal(np.concatenate([block.labels.propensity for block in split.blocks()]), values)
    assert np.array_equal(split.labels().propensity, values)
    assert np.array_equal(split.read().labels.propensity, values)
    assert given.split("valid").labels().propensity is None
    assert given.spec.given_propensity
    assert not small_log.spec.given_propensity
    assert given.spec == small_log.spec
    assert given.hash == small_log.hash
    with pytest.raises(ValueError, match=r"3 propensities for 3600 training rows"):
        small_log.with_propensity(values[:3])


def test_given_propensities_follow_the_rows_over_blocks(tmp_path):
    (tmp_path / "train").mkdir()
    with BlockWriter(tmp_path / "train" / "0.arrow") as writer:
        for first, rows in ((0, 5), (5, 4), (9, 3)):
            writer.write(to_arrow(exposures(rows, first), SCHEMA))
    split = LogSplit(tmp_path / "train", SCHEMA, propensity=np.arange(12, dtype=np.float32) / 16)
    for block in split.blocks():
        assert np.array_equal(block.labels.propensity, block.labels.exposure_id / 16)


def test_rows_and_times_are_read_without_the_other_labels(tmp_path):
    (tmp_path / "train").mkdir()
    parts = [exposures(5), exposures(4, 5)]
    timed = [dataclasses.replace(part.labels, time=np.arange(len(part)) + 7) for part in parts]
    with BlockWriter(tmp_path / "train" / "0.arrow") as writer:
        for part, labels in zip(parts, timed, strict=True):
            writer.write(to_arrow(dataclasses.replace(part, labels=labels), SCHEMA))
    with BlockWriter(tmp_path / "train" / "1.arrow") as writer:
        writer.write(to_arrow(exposures(3, 9), SCHEMA))
    found = list(LogSplit(tmp_path / "train", SCHEMA).rows_and_times())
    assert [rows.tolist() for rows, _ in found] == [part.rows.tolist() for part in (*parts, exposures(3, 9))]
    assert [None if time is None else time.tolist() for _, time in found] == [[7, 8, 9, 10, 11], [7, 8, 9, 10], None]
