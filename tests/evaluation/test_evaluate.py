import json
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from postclick.data.arrays import Labels
from postclick.data.log import Truth
from postclick.data.scores import Scores
from postclick.errors import ConfigError
from postclick.evaluation.debiased import DEBIASED_METRICS
from postclick.evaluation.evaluate import DEFAULT_METRICS, SLICE_METRICS, WORLD_METRICS, evaluate, oracle
from postclick.evaluation.result import EvaluationResult
from postclick.evaluation.rows import EvaluationRows


def sigmoid(odds):
    return 1 / (1 + np.exp(-odds))


def world(rows=4000, seed=0, hidden=0.0, **columns):
    rng = np.random.default_rng(seed)
    ctr = sigmoid(rng.normal(-1.0, 1.0, rows))
    base = rng.normal(-1.0, 1.0, rows)
    do, given = sigmoid(base), sigmoid(base + hidden * rng.normal(size=rows))
    click = (rng.random(rows) < ctr).astype(np.int8)
    conversion = (click * (rng.random(rows) < given)).astype(np.int8)
    user = rng.integers(0, 200, rows)
    return Labels(click, conversion, user_id=user, **columns), Truth(ctr, do, given, ctr * given)


def scored(truth, seed=1, **parts):
    noise = np.random.default_rng(seed).normal(size=len(truth.ctr))
    odds = {"ctr": truth.ctr, "cvr": truth.cvr_do, "ctcvr": truth.ctcvr}
    return Scores({head: np.log(p / (1 - p)) + 0.5 * noise for head, p in odds.items()}, {}, **parts)


LABELS, TRUTH = world()
RESULT = evaluate(EvaluationRows(LABELS, scored(TRUTH), TRUTH), split="test", bundle="b", log="a", ledger={"kept": 1})


def test_heads_by_populations_with_the_default_metrics():
    expected = {
        f"{head}/{metric}@{population}"
        for head, population in (("ctr", "exposure"), ("cvr", "click"), ("ctcvr", "exposure"))
        for metric in DEFAULT_METRICS
    } | {f"{head}/{metric}@world" for head in ("ctr", "cvr", "ctcvr") for metric in WORLD_METRICS}
    expected |= {f"cvr/{metric}@exposure" for metric in DEBIASED_METRICS}
    assert set(RESULT) == expected
    assert all(metric.undefined is None for metric in RESULT.values())


def test_values_equal_scikit_learn_on_the_right_rows():
    scores = scored(TRUTH)
    clicked = LABELS.click == 1
    expected = roc_auc_score(LABELS.conversion[clicked], scores.odds["cvr"][clicked])
    assert RESULT["cvr/auc@click"].value == pytest.approx(expected, abs=1e-12)
    assert RESULT["cvr/auc@click"].n == clicked.sum()
    assert RESULT["cvr/auc@click"].positives == LABELS.conversion.sum()
    expected = roc_auc_score(LABELS.conversion, scores.odds["ctcvr"])
    assert RESULT["ctcvr/auc@exposure"].value == pytest.approx(expected, abs=1e-12)
    expected = log_loss(LABELS.click, scores.probability("ctr"))
    assert RESULT["ctr/logloss@exposure"].value == pytest.approx(expected, rel=1e-12)
    twice = np.repeat([1, 0], len(LABELS))
    soft = np.concatenate([TRUTH.cvr_do, 1 - TRUTH.cvr_do])
    expected = roc_auc_score(twice, np.tile(scores.odds["cvr"], 2), sample_weight=soft)
    assert RESULT["cvr/auc@world"].value == pytest.approx(expected, abs=1e-12)
    expected = np.abs(scores.probability("cvr") - TRUTH.cvr_do).mean()
    assert RESULT["cvr/mae@world"].value == pytest.approx(expected, rel=1e-12)


def test_the_json_form_survives_and_the_ledger_counts():
    content = json.loads(json.dumps(RESULT.to_dict(), allow_nan=False))
    assert EvaluationResult.from_dict(content) == RESULT
    assert (content["split"], content["bundle"], content["log"]) == ("test", "b", "a")
    ledger = content["ledger"]
    assert (ledger["kept"], ledger["rows"], ledger["clicks"]) == (1, 4000, int(LABELS.click.sum()))
    assert ledger["conversions"] == int(LABELS.conversion.sum())
    assert ledger["one_class_users"]["cvr@click"]["skipped"] > 0
    assert any(note.startswith("cvr@click: gauc skipped") for note in RESULT.notes)


def test_equal_seeds_give_equal_bits_and_row_order_only_rounds():
    rows = EvaluationRows(LABELS, scored(TRUTH), TRUTH)
    assert evaluate(rows, split="test", bundle="b", log="a", ledger={"kept": 1}) == RESULT
    order = np.random.default_rng(0).permutation(len(LABELS))
    shuffled = Scores({head: odds[order] for head, odds in scored(TRUTH).odds.items()}, {})
    found = evaluate(EvaluationRows(LABELS.take(order), shuffled))
    for name, metric in found.items():
        assert metric.value == pytest.approx(RESULT[name].value, rel=1e-9), name
        assert metric.low == pytest.approx(RESULT[name].low, rel=1e-6), name


def test_chosen_metrics_everywhere_and_by_full_name():
    rows = EvaluationRows(LABELS, scored(TRUTH), TRUTH)
    found = evaluate(rows, metrics=["recall[top=.05]", "cvr/auc@click", "cvr/auc@random"])
    assert set(found) == {
        "cvr/auc@click",
        *(f"{head}/recall[top=0.05]@world" for head in ("ctr", "cvr", "ctcvr")),
        *("ctr/recall[top=0.05]@exposure", "cvr/recall[top=0.05]@click", "ctcvr/recall[top=0.05]@exposure"),
    }
    assert found["cvr/auc@click"] == RESULT["cvr/auc@click"]


def test_unknown_metrics_are_reported_together():
    with pytest.raises(ConfigError) as caught:
        evaluate(EvaluationRows(LABELS, scored(TRUTH)), metrics=["ac", "cvr/auc@clik", "recall"])
    assert len(caught.value.findings) == 3
    assert "did you mean 'auc'?" in str(caught.value)


def test_the_oracle_is_the_ceiling_and_calibrated():
    best = oracle(LABELS, TRUTH)
    for head in ("ctr", "cvr", "ctcvr"):
        assert best[f"{head}/auc@world"].value > RESULT[f"{head}/auc@world"].value
        assert best[f"{head}/logloss@world"].value < RESULT[f"{head}/logloss@world"].value
        assert best[f"{head}/pcoc@world"].value == pytest.approx(1.0)
        assert best[f"{head}/mae@world"].value == pytest.approx(0.0, abs=1e-12)


def test_under_hidden_confounders_the_oracle_answers_each_population():
    labels, truth = world(hidden=2.0)
    best = oracle(labels, truth, metrics=["pcoc", "auc"])
    assert best["cvr/pcoc@world"].value == pytest.approx(1.0)
    clicked = labels.click == 1
    expected = truth.cvr_click[clicked].sum() / labels.conversion.sum()
    assert best["cvr/pcoc@click"].value == pytest.approx(expected)
    assert best["cvr/auc@click"].value > oracle(labels, world()[1], metrics=["auc"])["cvr/auc@click"].value


def test_slices_and_cold_rows():
    day = np.arange(len(LABELS)) % 3
    parts = {"slices": {"day": day}, "cold_item": day == 0}
    found = evaluate(EvaluationRows(LABELS, scored(TRUTH), **parts))
    part = {name for name in found if name.endswith("|day=1")}
    assert part == {
        f"{place[0]}/{metric}@{place[1]}|day=1"
        for place in (("ctr", "exposure"), ("cvr", "click"), ("ctcvr", "exposure"))
        for metric in SLICE_METRICS
    }
    mask = (day == 0) & (LABELS.click == 1)
    expected = roc_auc_score(LABELS.conversion[mask], scored(TRUTH).odds["cvr"][mask])
    assert found["cvr/auc@click|cold-item"].value == pytest.approx(expected)
    assert found["cvr/auc@click|cold-item"] == found["cvr/auc@click|day=0"]
    only = evaluate(EvaluationRows(LABELS, scored(TRUTH), **parts), metrics=["cvr/ne@click|day=2"])
    assert list(only) == ["cvr/ne@click|day=2"]


def test_a_log_of_clicks():
    clicked = LABELS.take(LABELS.click == 1)
    scores = Scores({head: odds[LABELS.click == 1] for head, odds in scored(TRUTH).odds.items()}, {})
    found = evaluate(EvaluationRows(clicked, scores), population="click")
    assert found["ctr/auc@exposure"].undefined == "log of clicks"
    assert found["ctcvr/logloss@exposure"].undefined == "log of clicks"
    assert found["cvr/auc@click"].value == RESULT["cvr/auc@click"].value
    assert any("undefined (log of clicks)" in note for note in found.notes)


def test_single_class_is_named_and_the_rest_still_reported():
    none = Labels(LABELS.click, np.zeros_like(LABELS.click))
    found = evaluate(EvaluationRows(none, scored(TRUTH)))
    assert found["cvr/auc@click"].undefined == "no positives"
    assert found["cvr/logloss@click"].value is not None
    assert found["ctr/auc@exposure"].value is not None
    assert any(note.startswith("eval.single_class undefined (no positives): cvr/auc@click") for note in found.notes)


def test_censored_derived_and_clipped_are_told():
    conversion = LABELS.conversion.copy()
    conversion[:50] = -1
    scores = scored(TRUTH, derived=frozenset({"cvr"}), clipped=3)
    found = evaluate(EvaluationRows(Labels(LABELS.click, conversion), scores), metrics=["auc"])
    assert found["cvr/auc@click"].derived
    assert not found["ctr/auc@exposure"].derived
    assert found["ctcvr/auc@exposure"].n == 3950
    assert found.ledger["censored"]["ctcvr@exposure"] == 50
    assert "3 derived values left [0, 1] and were clipped" in found.notes


def test_raw_scores_get_their_variants():
    raw = {head: odds - 0.5 for head, odds in scored(TRUTH).odds.items()}
    found = evaluate(EvaluationRows(LABELS, Scores(scored(TRUTH).odds, raw)))
    assert found["ctcvr/auc[score=raw]@exposure"].value == found["ctcvr/auc@exposure"].value
    assert found["ctcvr/pcoc[score=raw]@exposure"].value < found["ctcvr/pcoc@exposure"].value


def test_randomised_rows_and_weights():
    labels, truth = world(randomised=(np.arange(4000) % 4 == 0).astype(np.int8), sample_weight=np.full(4000, 2.0))
    found = evaluate(EvaluationRows(labels, scored(truth)), metrics=["auc", "logloss"])
    assert found["ctr/auc@random"].n == 1000
    assert found["ctr/auc@exposure"].value == pytest.approx(RESULT["ctr/auc@exposure"].value, abs=1e-12)
    assert found["ctr/logloss@exposure"].low == pytest.approx(RESULT["ctr/logloss@exposure"].low, rel=1e-9)
    assert found.ledger["weighted"] is True


def test_lists_of_users_are_judged_where_exposures_were_randomised():
    labels, truth = world(randomised=(np.arange(4000) % 4 == 0).astype(np.int8))
    found = evaluate(EvaluationRows(labels, scored(truth)))
    for head in ("ctr", "cvr", "ctcvr"):
        assert 0 < found[f"{head}/ndcg[k=5]@random"].value < 1
        assert 0 < found[f"{head}/recall[k=5]@random"].value <= 1
    assert {name.partition("@")[2] for name in found if "[k=5]" in name} == {"random"}


def with_actions(rows=4_000, orphans=0.1):
    """A world whose clicked rows act with a known probability, and some unclicked ones are logged with an action."""
    labels, truth = world(rows)
    rng = np.random.default_rng(5)
    true = sigmoid(rng.normal(-0.5, 1.0, rows))
    action = np.where(labels.click == 1, rng.random(rows) < true, rng.random(rows) < orphans).astype(np.int8)
    return replace(labels, action=action), replace(truth, action=true, ctar=truth.ctr * true)


def test_action_on_clicks_ctar_on_exposures_and_both_against_the_truth():
    labels, truth = with_actions()
    noise = np.random.default_rng(1).normal(size=len(labels))
    odds = {
        head: np.log(p / (1 - p)) + 0.5 * noise
        for head, p in {"ctr": truth.ctr, "action": truth.action, "ctar": truth.ctar}.items()
    }
    found = evaluate(EvaluationRows(labels, Scores(odds, {}), truth), metrics=["auc", "logloss", "pcoc", "mean"])
    clicked = labels.click == 1
    score = sigmoid(odds["action"])
    assert found["action/auc@click"].value == pytest.approx(roc_auc_score(labels.action[clicked], score[clicked]))
    assert found["action/logloss@click"].value == pytest.approx(log_loss(labels.action[clicked], score[clicked]))
    assert found["action/logloss@click"].n == clicked.sum()
    # an action without a click is no positive of P(click and action)
    joint, share = labels.click * labels.action, sigmoid(odds["ctar"])
    assert joint.sum() < labels.action.sum()
    assert found["ctar/auc@exposure"].value == pytest.approx(roc_auc_score(joint, share))
    assert found["ctar/pcoc@exposure"].value == pytest.approx(share.sum() / joint.sum())
    # on the world each row counts p positive and 1 - p negative
    by_hand = -np.mean(truth.action * np.log(score) + (1 - truth.action) * np.log1p(-score))
    assert found["action/logloss@world"].value == pytest.approx(by_hand)
    assert found["action/pcoc@world"].value == pytest.approx(score.sum() / truth.action.sum())
    assert found["ctar/pcoc@world"].value == pytest.approx(share.sum() / truth.ctar.sum())
    assert found["action/auc@world"].n == len(labels)


def test_the_oracle_knows_the_action_where_the_truth_does():
    labels, truth = with_actions()
    best = oracle(labels, truth, metrics=["pcoc", "mae"])
    for head in ("action", "ctar"):
        assert best[f"{head}/mae@world"].value == pytest.approx(0.0, abs=1e-12)
    assert best["action/pcoc@click"].low < 1.0 < best["action/pcoc@click"].high
    assert best["ctar/pcoc@exposure"].low < 1.0 < best["ctar/pcoc@exposure"].high
    assert not any(name.startswith(("action/", "ctar/")) for name in oracle(labels, TRUTH, metrics=["pcoc"]).metrics)


def test_in_a_log_of_clicks_the_action_is_judged_and_ctar_is_not():
    labels, _ = with_actions()
    clicks = labels.take(labels.click == 1)
    odds = {head: np.zeros(len(clicks)) for head in ("ctr", "action", "ctar")}
    found = evaluate(EvaluationRows(clicks, Scores(odds, {})), metrics=["logloss"], population="click")
    assert found["action/logloss@click"].value == pytest.approx(np.log(2))
    assert found["ctar/logloss@exposure"].undefined == "log of clicks"
