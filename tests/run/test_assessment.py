"""A bundle judged on a split."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch
from sklearn.metrics import log_loss, roc_auc_score

from postclick import files
from postclick.bundle import Bundle, Scorer
from postclick.errors import ConfigError, DataError, InputMissingError
from postclick.evaluation import EvaluationResult
from postclick.run import RunConfig, evaluate_bundle, run
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


def test_the_propensity_floor_is_relative_to_the_click_rate_of_training(small_run, small_log):
    result = evaluate_bundle(small_run.path / "bundle", small_log)
    assert result.overlap.floor == pytest.approx(0.1 * small_log.spec.ctr)
    assert result.overlap.source == "the system's own ctr"
    estimate = result["cvr/mean[estimator=dr]@exposure"]
    assert (estimate.n, estimate.undefined is None) == (len(small_log.split("test")), not result.overlap.thin)


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


@pytest.fixture(scope="module")
def gated_run(tmp_path_factory, small_log, small_config):
    arguments = {"experts": {"count": 3, "hidden": [8], "dropout": [0.1]}, "tower": {"hidden": [], "dropout": [0.0]}}
    config = replace(small_config, system="mmoe", arguments=arguments)
    return run(small_log, config, tmp_path_factory.mktemp("gated") / "run")


def test_a_system_with_gates_has_its_experts_judged(gated_run, small_log):
    result = evaluate_bundle(gated_run.path, small_log)
    assert list(result.experts) == ["ctr", "ctcvr"]
    for use in result.experts.values():
        assert use.rows == len(small_log.split("test"))
        assert sum(use.weight) == pytest.approx(1.0, abs=1e-6)
        assert use.collapsed == ()
    assert not any("collapsed" in note for note in result.notes)
    kept = files.read_json(gated_run.path / "evaluation.json")
    assert EvaluationResult.from_dict(kept) == result


def test_a_planted_collapse_is_named_in_the_notes(gated_run, small_log, monkeypatch):
    bundle = Bundle.load(gated_run.path)
    with torch.no_grad():
        # one input that is always 1, read by the gate alone, in favour of expert 1
        bundle.model.network.encoder.table.weight[:, 0] = 1.0
        bundle.model.network.trunk.gates[0].linear.weight.zero_()
        bundle.model.network.trunk.gates[0].linear.weight[1, 0] = 30.0
    monkeypatch.setattr(Bundle, "load", lambda _: bundle)
    result = evaluate_bundle(gated_run.path / "bundle", small_log)
    assert result.experts["ctr"].collapsed == (0, 2)
    assert result.experts["ctcvr"].collapsed == ()
    assert "the gate of task ctr has collapsed onto expert 1: it gets 100.0% of the weight" in result.notes
    assert result.to_dict()["experts"]["verdict"][0] in result.notes


def test_a_system_without_gates_has_no_experts(small_run, small_log):
    result = evaluate_bundle(small_run.path / "bundle", small_log)
    assert result.experts == {}
    assert "experts" not in result.to_dict()


def test_rows_are_judged_without_gates_where_none_are_asked_for(gated_run, small_log):
    rows, _, _ = judged_rows(Scorer(Bundle.load(gated_run.path)), small_log, "test")
    assert len(rows.scores) == len(small_log.split("test"))


@pytest.fixture(scope="module")
def rated_log(tmp_path_factory):
    """Ratings of 60 users and 40 items, self-selected in train, of random items in test."""
    from postclick.data.prepare import prepare
    from postclick.data.sources.opening import open_source

    folder, random = tmp_path_factory.mktemp("ratings"), np.random.default_rng(0)
    for name, rows in (("user.txt", 700), ("random.txt", 500)):
        columns = (random.integers(0, 60, rows), random.integers(0, 40, rows), random.integers(1, 6, rows))
        lines = np.unique(np.stack(columns, axis=1), axis=0)
        (folder / name).write_text("\n".join(",".join(map(str, line)) for line in lines))
    return prepare(open_source(folder, key="yahoo-r3"), folder / "log")


def test_ratings_are_judged_at_random_with_and_without_pairs_of_training(rated_log, tmp_path):
    config = {
        "system": "mlp",
        "arguments": {"trunk": "mf", "biases": False},
        "training": {"max_epochs": 1, "batch_size": 500},
        "device": "cpu",
    }
    made = run(rated_log, RunConfig.from_dict(config), tmp_path / "run")
    result = made.evaluation
    labels = rated_log.split("test").labels()
    clicked = set()
    for name in ("train", "valid"):
        seen = rated_log.split(name).labels()
        pairs = zip(seen.user_id.tolist(), seen.item_id.tolist(), strict=True)
        clicked |= {pair for pair, click in zip(pairs, seen.click, strict=True) if click}
    new = [pair not in clicked for pair in zip(labels.user_id.tolist(), labels.item_id.tolist(), strict=True)]
    assert result["cvr/auc@random"].n == len(new) > sum(new) > 0
    assert result["cvr/auc@random|new-pair"].n == sum(new)
    assert result["cvr/ndcg[k=5]@random"].value > 0
    assert result["ctcvr/auc@random"].undefined == "every row was clicked on demand"
    assert result["cvr/mean[estimator=ips]@exposure"].undefined == "every row was clicked on demand"
    assert result.overlap is None


def test_pairs_are_told_apart_only_where_exposures_were_randomised(small_run, small_log):
    rows, _, _ = judged_rows(Scorer(Bundle.load(small_run.path)), small_log, "test")
    assert rows.new_pair is None
