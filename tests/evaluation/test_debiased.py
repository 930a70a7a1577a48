import json

import numpy as np
import pytest

from postclick.data.arrays import Labels
from postclick.data.log import Truth
from postclick.data.scores import Scores
from postclick.errors import ConfigError
from postclick.evaluation.debiased import DEBIASED_METRICS
from postclick.evaluation.evaluate import evaluate, oracle
from postclick.evaluation.result import EvaluationResult
from postclick.evaluation.rows import EvaluationRows
from postclick.metrics import debiased, overlap

NAMES = tuple(f"cvr/{name}@exposure" for name in DEBIASED_METRICS)
WEIGHTED = tuple(name for name in NAMES if "naive" not in name)


def sigmoid(odds):
    return 1 / (1 + np.exp(-odds))


def log_odds(p):
    return np.log(p) - np.log1p(-p)


def world(spread=0.8, rows=20_000, seed=0, **columns):
    """Clicks and conversions move together through x; the system is right about the ctr and flat about the cvr."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=rows)
    ctr, cvr = sigmoid(-1.5 + spread * x), sigmoid(-1.0 + x)
    click = (rng.random(rows) < ctr).astype(np.int8)
    conversion = (click * (rng.random(rows) < cvr)).astype(np.int8)
    user = rng.integers(0, rows // 10, rows)
    odds = {"ctr": log_odds(ctr), "cvr": -1.0 + 0.5 * x, "ctcvr": log_odds(ctr * cvr)}
    columns = {name: column(ctr) if callable(column) else column for name, column in columns.items()}
    return Labels(click, conversion, user_id=user, **columns), Scores(odds, {}), Truth(ctr, cvr, cvr, ctr * cvr)


LABELS, SCORES, TRUTH = world()
RESULT = evaluate(EvaluationRows(LABELS, SCORES), metrics=NAMES)


def test_names_values_and_methods():
    assert tuple(RESULT) == NAMES
    floor = 0.1 * LABELS.click.mean()
    rows = EvaluationRows(LABELS, SCORES)
    expected = debiased(
        *(SCORES.odds["cvr"], LABELS.click, LABELS.conversion, TRUTH.ctr), floor=floor, unit=rows.user, level=0.95
    )
    for (metric, estimator), estimate in expected.items():
        found = RESULT[f"cvr/{metric}[estimator={estimator}]@exposure"]
        assert found.value == pytest.approx(estimate.value, rel=1e-12)
        assert (found.low, found.high) == pytest.approx((estimate.low, estimate.high), rel=1e-12)
        assert (found.n, found.positives, found.level) == (20_000, int(LABELS.conversion.sum()), 0.95)
    method = RESULT["cvr/mean[estimator=ips]@exposure"].method
    assert method == f"1 / the system's own ctr, floor {floor:.3g}; user-clustered influence function, log scale"
    assert RESULT["cvr/mean[estimator=naive]@exposure"].method.startswith("clicked rows, no weights; user-clustered")


def test_debiased_estimates_hold_the_truth_and_the_naive_ones_do_not():
    truth = {"mean": TRUTH.cvr_do.mean()}
    soft = evaluate(EvaluationRows(LABELS, SCORES, TRUTH), metrics=["cvr/logloss@world"])
    truth["logloss"] = soft["cvr/logloss@world"].value
    for name, found in RESULT.items():
        inside = bool(found.low <= truth["mean" if "/mean" in name else "logloss"] <= found.high)
        assert inside is ("naive" not in name), name


def test_the_overlap_goes_with_them():
    columns = {"ctr": SCORES.odds["ctr"], "cvr": SCORES.odds["cvr"]}
    floor = 0.1 * LABELS.click.mean()
    expected = overlap(LABELS.click, sigmoid(SCORES.odds["ctr"]), floor=floor, columns=columns)
    found = RESULT.overlap
    assert found.source == "the system's own ctr"
    assert found.effective_clicks == pytest.approx(expected.effective_clicks)
    assert found.balance["cvr"].before > 0.3
    assert abs(found.balance["cvr"].after) < 0.1
    form = json.loads(json.dumps(RESULT.to_dict(), allow_nan=False))
    assert form["overlap"]["sufficient"] is True
    assert EvaluationResult.from_dict(form) == RESULT


def test_the_default_set_has_them_and_others_pay_nothing():
    assert set(NAMES) < set(evaluate(EvaluationRows(LABELS, SCORES)))
    plain = evaluate(EvaluationRows(LABELS, SCORES), metrics=["auc"])
    assert plain.overlap is None
    assert "overlap" not in plain.to_dict()
    assert not set(NAMES) & set(plain)
    only = evaluate(EvaluationRows(LABELS, SCORES), metrics=["mean[estimator=dr]", "cvr/auc@click"])
    assert list(only) == ["cvr/auc@click", "cvr/mean[estimator=dr]@exposure"]


def test_the_logged_propensity_comes_first():
    labels, scores, _ = world(propensity=lambda ctr: np.minimum(2 * ctr, 1.0))
    found = evaluate(EvaluationRows(labels, scores), metrics=NAMES)
    name = "cvr/mean[estimator=ips]@exposure"
    assert found[name].method.startswith("1 / the logged propensity, floor ")
    assert found[name].value < 0.7 * RESULT[name].value
    assert found.overlap.source == "the logged propensity"
    assert any(note.startswith("the logged propensity: the propensity is off") for note in found.notes)
    own, _, _ = world(propensity=lambda ctr: ctr)
    assert evaluate(EvaluationRows(own, scores), metrics=NAMES)[name].value == pytest.approx(RESULT[name].value)


def test_a_learned_propensity_is_said_to_be_one_and_slices_come_last():
    words = "what it has not learned of the clicks stays uncorrected"
    assert any(words in note for note in RESULT.notes)
    labels, scores, _ = world(propensity=lambda ctr: ctr)
    assert not any(words in note for note in evaluate(EvaluationRows(labels, scores), metrics=NAMES).notes)
    sliced = EvaluationRows(LABELS, SCORES, slices={"half": np.arange(20_000) % 2})
    names = list(evaluate(sliced, metrics=["mean", *NAMES]))
    assert names == sorted(names, key=lambda name: "|" in name)
    assert set(NAMES) < set(names)


def test_a_given_floor_is_used():
    found = evaluate(EvaluationRows(LABELS, SCORES, propensity_floor=0.0), metrics=NAMES)
    assert found.overlap.floor == 0.0
    assert "floor 0;" in found["cvr/mean[estimator=dr]@exposure"].method
    high = evaluate(EvaluationRows(LABELS, SCORES, propensity_floor=0.9), metrics=NAMES)
    assert high["cvr/mean[estimator=ips]@exposure"].undefined.startswith("overlap is too thin")


def test_thin_overlap_withholds_what_is_weighted_and_says_so():
    labels, scores, _ = world(spread=3.0)
    found = evaluate(EvaluationRows(labels, scores), metrics=NAMES)
    verdict = found.overlap.verdict
    assert verdict.startswith("overlap is too thin: ")
    for name in NAMES:
        withheld = name in WEIGHTED
        assert (found[name].undefined == verdict) is withheld
        assert (found[name].value is None) is withheld
        assert (found[name].low is None) is withheld
    assert any(verdict in note and WEIGHTED[0] in note for note in found.notes)
    assert found.overlap.to_dict()["sufficient"] is False


def test_censored_rows_are_left_out_and_counted():
    conversion = LABELS.conversion.copy()
    conversion[:700] = -1
    click = LABELS.click.copy()
    click[600:800] = -1
    labels = Labels(click, conversion, user_id=LABELS.user_id, sample_weight=np.full(20_000, 2.0))
    found = evaluate(EvaluationRows(labels, SCORES), metrics=NAMES)
    rest = Scores({head: odds[800:] for head, odds in SCORES.odds.items()}, {})
    expected = evaluate(EvaluationRows(LABELS.take(slice(800, None)), rest), metrics=NAMES)
    assert found.ledger["censored"]["cvr@exposure"] == 800
    for name in NAMES:
        assert found[name].n == 19_200
        assert found[name].value == pytest.approx(expected[name].value, rel=1e-12)
        assert found[name].low == pytest.approx(expected[name].low, rel=1e-9)


def test_undefined_outcomes():
    clicked = LABELS.click == 1
    scores = Scores({head: odds[clicked] for head, odds in SCORES.odds.items()}, {})
    of_clicks = evaluate(EvaluationRows(LABELS.take(clicked), scores), metrics=NAMES, population="click")
    assert {metric.undefined for metric in of_clicks.values()} == {"log of clicks"}
    assert of_clicks.overlap is None
    none = evaluate(EvaluationRows(Labels(np.zeros(5, np.int8), np.zeros(5, np.int8)), first(5)), metrics=NAMES)
    assert {metric.undefined for metric in none.values()} == {"no clicks"}
    empty = evaluate(EvaluationRows(Labels(np.zeros(0, np.int8), np.zeros(0, np.int8)), first(0)), metrics=NAMES)
    assert {metric.undefined for metric in empty.values()} == {"no rows"}
    broken = Scores({**SCORES.odds, "ctr": np.full(20_000, np.nan)}, {})
    found = evaluate(EvaluationRows(LABELS, broken), metrics=NAMES)
    assert {metric.undefined for metric in found.values()} == {"scores are not numbers"}
    assert found.overlap is None


def first(rows):
    return Scores({head: odds[:rows] for head, odds in SCORES.odds.items()}, {})


def test_a_derived_cvr_is_flagged_where_it_is_read():
    derived = Scores(SCORES.odds, {}, derived=frozenset({"cvr"}))
    found = evaluate(EvaluationRows(LABELS, derived), metrics=NAMES)
    assert {name for name in NAMES if found[name].derived} == {name for name in NAMES if "/logloss" in name} | {
        "cvr/mean[estimator=dr]@exposure"
    }


def test_estimators_of_other_heads_populations_and_slices_are_refused():
    with pytest.raises(ConfigError) as caught:
        evaluate(
            EvaluationRows(LABELS, SCORES),
            metrics=[
                *("ctr/mean[estimator=dr]@exposure", "cvr/mean[estimator=dr]@click"),
                *("cvr/auc[estimator=dr]@exposure", "cvr/mean[estimator=tmle]@exposure"),
                "cvr/mean[estimator=dr]@exposure|cold-user",
            ],
        )
    assert len(caught.value.findings) == 5
    assert str(caught.value).count("write cvr/mean[estimator=dr]@exposure") == 3


def test_the_oracle_estimates_what_the_world_holds():
    best = oracle(LABELS, TRUTH, metrics=NAMES)
    for name in WEIGHTED:
        if "/mean" in name:
            assert best[name].low < TRUTH.cvr_do.mean() < best[name].high
