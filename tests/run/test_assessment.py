"""A bundle judged on a split."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from postclick import files
from postclick.bundle import Bundle, Scorer
from postclick.errors import ConfigError, DataError, InputMissingError
from postclick.run import evaluate_bundle
from postclick.run.assessment import judged_rows


def test_equals_scikit_learn_on_the_served_scores(small_run, small_log):
    result = evaluate_bundle(small_run.path / "bundle", small_log)
    test = small_log.split("test").read()
    scores = Scorer(Bundle.load(small_run.path)).score(test.without_labels())
    labels, clicked = test.labels, test.labels.click == 1
    pairs = {
        "ctr/auc@exposure": (labels.click, scores.odds["ctr"]),
        "cvr/auc@click": (labels.conversion[clicked], scores.odds["cvr"][clicked]),
        "ctcvr/auc@exposure": (labels.conversion, scores.odds["ctcvr"]),
    }
    for name, (label, odds) in pairs.items():
        assert result[name].value == pytest.approx(roc_auc_score(label, odds), abs=1e-12)
    expected = log_loss(labels.click, scores.probability("ctr"))
    assert result["ctr/logloss@exposure"].value == pytest.approx(expected, abs=1e-12)
    assert result.log == small_log.hash
    assert result.bundle == small_run.bundle


def test_equal_calls_give_equal_results(small_run, small_log):
    one, other = (evaluate_bundle(small_run.path / "bundle", small_log, split="valid") for _ in range(2))
    assert one.to_dict() == other.to_dict()


def test_slices_are_the_values_of_a_column(small_run, small_log, raw_table):
    result = evaluate_bundle(small_run.path, small_log, by=["shop"])
    shops = np.asarray(raw_table.column("shop").to_pylist())[len(raw_table) * 8 // 10 :]
    for shop in ("a", "b"):
        assert result[f"ctr/auc@exposure|shop={shop}"].n == int((shops == shop).sum())


def test_only_the_whole_test_split_of_its_own_log_is_left_in_a_run(small_run, small_log, later_log):
    before = files.read_json(small_run.path / "evaluation.json")
    evaluate_bundle(small_run.path, later_log)
    evaluate_bundle(small_run.path, small_log, split="valid")
    evaluate_bundle(small_run.path, small_log, by=["shop"])
    assert files.read_json(small_run.path / "evaluation.json") == before
    assert before["split"] == "test"


def test_unknown_columns_are_named_with_the_likely_spelling(small_run, small_log):
    with pytest.raises(ConfigError) as caught:
        evaluate_bundle(small_run.path, small_log, by=["shopp", "campaign"])
    assert "did you mean 'shop'" in str(caught.value)
    assert "'campaign'" in str(caught.value)


def test_a_split_without_rows(small_run, small_log):
    with pytest.raises(InputMissingError, match="splits with rows: train, valid, test"):
        evaluate_bundle(small_run.path, small_log, split="never")


@pytest.fixture(scope="module")
def later_log(tmp_path_factory, small_run, small_schema, raw_table):
    """Later rows with users and items that training has not seen, in the bundle's vocabulary."""
    from postclick.data.prepare import PrepareOptions, prepare
    from postclick.data.sources.opening import open_source

    columns = {name: raw_table.column(name).to_numpy(zero_copy_only=False).copy() for name in raw_table.column_names}
    columns["user"][:900] += 5_000
    columns["item"][:300] += 5_000
    source = open_source(test=pa.table(columns).slice(0, 2_000), schema=small_schema)
    path = tmp_path_factory.mktemp("later") / "log"
    return prepare(source, path, PrepareOptions(vocabulary=small_run.path))


def test_cold_users_and_items_are_slices_and_the_unknown_share_is_told(small_run, later_log):
    result = evaluate_bundle(small_run.path, later_log)
    assert result["ctr/auc@exposure|cold-user"].n == 900
    assert result["ctr/auc@exposure|cold-item"].n == 300
    assert result.ledger["unknown_row_share"]["user"] == pytest.approx(0.45)
    # a cold user's score knows nothing of the user
    assert result["ctr/auc@exposure|cold-user"].value < result["ctr/auc@exposure"].value


def test_unknown_values_are_a_slice_of_their_own(small_run, later_log):
    rows, _, _ = judged_rows(Scorer(Bundle.load(small_run.path)), later_log, "test", ["item"])
    assert (rows.slices["item"] == "(unknown)").sum() == 300


def test_a_log_with_other_features_is_refused(small_run, raw_table, tmp_path):
    from postclick.data.prepare import PrepareOptions, prepare
    from postclick.data.sources.opening import open_source
    from postclick.schema import Schema, SparseFeature

    source = open_source(train=raw_table, schema=Schema((SparseFeature("user"),)))
    log = prepare(source, tmp_path / "log", PrepareOptions(min_count=1))
    with pytest.raises(DataError, match=r"data\.schema_mismatch the log's features are not the bundle's \(item"):
        evaluate_bundle(small_run.path, log, split="train")
