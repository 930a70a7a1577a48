"""Scored files."""

from __future__ import annotations

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import roc_auc_score

from postclick import files
from postclick.batch_scoring import UNSEEN_ALERT, score_log, score_source
from postclick.bundle import Bundle, Scorer
from postclick.errors import ConfigError, DataError, InputMissingError, StorageError
from postclick.run import evaluate_bundle


@pytest.fixture(scope="module")
def bundle(small_run):
    return Bundle.load(small_run.path)


def test_a_log_split_with_its_labels(small_run, small_log, bundle, tmp_path):
    summary = score_log(bundle, small_log, "test", tmp_path / "scores.parquet", keep=["click", "conversion", "shop"])
    scored = pl.read_parquet(tmp_path / "scores.parquet")
    assert scored.columns == ["exposure_id", "ctr", "cvr", "ctcvr", "click", "conversion", "shop"]
    assert len(scored) == summary.rows == len(small_log.split("test"))
    assert all(scored[head].dtype == pl.Float64 for head in ("ctr", "cvr", "ctcvr"))
    assert scored["exposure_id"].to_list() == small_log.split("test").labels().exposure_id.tolist()
    assert set(scored["shop"]) == {"a", "b"}
    # P9: the AUC of the file is the AUC of `evaluate` is scikit-learn's
    result = evaluate_bundle(small_run.path, small_log)
    clicked = scored.filter(pl.col("click") == 1)
    assert result["ctr/auc@exposure"].value == pytest.approx(roc_auc_score(scored["click"], scored["ctr"]), abs=1e-12)
    expected = roc_auc_score(clicked["conversion"], clicked["cvr"])
    assert result["cvr/auc@click"].value == pytest.approx(expected, abs=1e-12)
    expected = roc_auc_score(scored["conversion"], scored["ctcvr"])
    assert result["ctcvr/auc@exposure"].value == pytest.approx(expected, abs=1e-12)


def test_all_splits_in_order(small_log, bundle, tmp_path):
    summary = score_log(bundle, small_log.path, None, tmp_path / "scores.parquet")
    assert summary.rows == sum(len(small_log.split(name)) for name in small_log.splits)


def test_raw_files_are_scored_row_for_row(bundle, raw_table, tmp_path):
    for index in range(3):
        part = raw_table.slice(index * 700, 700)
        pq.write_table(part.drop_columns(["click", "conversion"]), tmp_path / f"{index}.parquet")
    summary = score_source(bundle, str(tmp_path / "*.parquet"), tmp_path / "scores.parquet")
    scored = pl.read_parquet(tmp_path / "scores.parquet")
    assert summary.rows == 2_100
    assert scored["exposure_id"].to_list() == list(range(2_100))
    expected = Scorer(bundle).score_table(raw_table.slice(0, 2_100)).scores
    assert scored["cvr"].to_numpy() == pytest.approx(expected.probability("cvr"), abs=1e-6)


def test_duplicated_keys_keep_their_order_and_number(bundle, raw_table, tmp_path):
    order = np.array([5, 3, 5, 5, 0])
    score_source(bundle, raw_table.take(order), tmp_path / "scores.parquet")
    scored = pl.read_parquet(tmp_path / "scores.parquet")
    assert scored["exposure_id"].to_list() == order.tolist()
    assert scored["ctr"][0] == scored["ctr"][2]


def test_without_exposure_ids_the_row_numbers_serve(bundle, raw_table, tmp_path):
    score_source(bundle, raw_table.slice(0, 5).drop_columns("exposure_id"), tmp_path / "scores.parquet")
    assert pl.read_parquet(tmp_path / "scores.parquet")["exposure_id"].to_list() == [0, 1, 2, 3, 4]


def test_kept_columns_need_not_be_in_the_schema(bundle, raw_table, tmp_path):
    table = raw_table.slice(0, 5).append_column("note", pa.array(["a", "b", None, "d", "e"]))
    pq.write_table(table, tmp_path / "raw.parquet")
    score_source(bundle, tmp_path / "raw.parquet", tmp_path / "scores.parquet", keep=["note", "price", "click"])
    scored = pl.read_parquet(tmp_path / "scores.parquet")
    assert scored["note"].to_list() == ["a", "b", None, "d", "e"]
    assert scored["price"].to_list() == raw_table.column("price").to_pylist()[:5]


def test_csv(bundle, raw_table, tmp_path):
    frame = pl.from_arrow(raw_table.slice(0, 50))
    frame.write_csv(tmp_path / "raw.csv")
    score_source(bundle, tmp_path / "raw.csv", tmp_path / "scores.parquet", keep=["shop"])
    expected = Scorer(bundle).score_table(raw_table.slice(0, 50)).scores.probability("cvr")
    assert pl.read_parquet(tmp_path / "scores.parquet")["cvr"].to_numpy() == pytest.approx(expected, abs=1e-6)


def test_unseen_values_are_counted_and_warned_of(bundle, raw_table, tmp_path):
    table = raw_table.slice(0, 10).to_pydict()
    table["user"] = [10_000 + value if place < 2 else value for place, value in enumerate(table["user"])]
    summary = score_source(bundle, table, tmp_path / "scores.parquet")
    assert summary.counts.fields["user"].unseen == 2
    assert UNSEEN_ALERT < 0.2
    assert [warning.code for warning in summary.warnings] == ["data.unseen"]
    assert "20.0% of the values of 'user'" in summary.to_dict()["warnings"][0]


def test_a_column_that_is_null_at_first_is_kept(bundle, raw_table, tmp_path):
    for name, note in (("a", pa.nulls(5)), ("b", pa.array([1, 2, None, 4, 5]))):
        pq.write_table(raw_table.slice(0, 5).append_column("note", note), tmp_path / f"{name}.parquet")
    score_source(bundle, [tmp_path / "a.parquet", tmp_path / "b.parquet"], tmp_path / "scores.parquet", keep=["note"])
    assert pl.read_parquet(tmp_path / "scores.parquet")["note"].to_list() == [None] * 5 + ["1", "2", None, "4", "5"]


def test_a_log_does_not_tell_missing_from_unseen(bundle, small_run, small_schema, raw_table, tmp_path):
    from postclick.data.prepare import PrepareOptions, prepare
    from postclick.data.sources.opening import open_source

    rows = raw_table.slice(0, 10).to_pydict()
    rows["user"] = [None, 99_999] * 5
    source = open_source(test=rows, schema=small_schema)
    log = prepare(source, tmp_path / "log", PrepareOptions(vocabulary=small_run.path))
    summary = score_log(bundle, log, "test", tmp_path / "scores.parquet")
    assert "100.0% of the values of 'user' are missing or were not seen in training" in str(summary.warnings[0])


def test_equal_inputs_give_equal_bytes(bundle, raw_table, tmp_path):
    for name in ("one", "other"):
        score_source(bundle, raw_table, tmp_path / name)
    assert files.sha256(tmp_path / "one") == files.sha256(tmp_path / "other")


def test_an_existing_file_is_refused(bundle, raw_table, tmp_path):
    (tmp_path / "scores.parquet").write_text("mine")
    with pytest.raises(StorageError) as caught:
        score_source(bundle, raw_table, tmp_path / "scores.parquet")
    assert caught.value.exit_code == 73
    score_source(bundle, raw_table, tmp_path / "scores.parquet", force=True)
    assert pq.read_metadata(tmp_path / "scores.parquet").num_rows == len(raw_table)


def test_a_failure_half_way_leaves_no_file(bundle, raw_table, tmp_path):
    pq.write_table(raw_table.slice(0, 100), tmp_path / "a.parquet")
    pq.write_table(raw_table.slice(0, 100), tmp_path / "b.parquet")
    data = bytearray((tmp_path / "b.parquet").read_bytes())
    data[4:200] = bytes(196)
    (tmp_path / "b.parquet").write_bytes(bytes(data))
    with pytest.raises(DataError):
        score_source(bundle, [tmp_path / "a.parquet", tmp_path / "b.parquet"], tmp_path / "scores.parquet")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.parquet", "b.parquet"]


@pytest.mark.parametrize(
    ("keep", "kind", "text"),
    [
        (["clik"], DataError, "did you mean 'click'"),
        (["price"], DataError, "no column 'price' to keep"),
        (["ctr"], ConfigError, "the scores have these names"),
    ],
)
def test_columns_that_cannot_be_kept_from_a_log(bundle, small_log, tmp_path, keep, kind, text):
    with pytest.raises(kind, match=text):
        score_log(bundle, small_log, "test", tmp_path / "scores.parquet", keep=keep)
    assert not list(tmp_path.iterdir())


def test_inputs_that_do_not_fit(bundle, small_log, raw_table, tmp_path):
    with pytest.raises(DataError, match="'user'"):
        score_source(bundle, raw_table.drop_columns("user"), tmp_path / "scores.parquet")
    with pytest.raises(DataError, match="'nothing'"):
        score_source(bundle, raw_table, tmp_path / "scores.parquet", keep=["nothing"])
    with pytest.raises(InputMissingError):
        score_source(bundle, tmp_path / "absent.parquet", tmp_path / "scores.parquet")
    with pytest.raises(InputMissingError, match="splits with rows"):
        score_log(bundle, small_log, "never", tmp_path / "scores.parquet")
    assert not list(tmp_path.iterdir())
