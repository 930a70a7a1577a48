"""What a comparison keeps of one scoring: the metric's own value, by user, of the rows that have it."""

from __future__ import annotations

import math

import numpy as np
import pytest

from postclick.data.arrays import CENSORED, Labels
from postclick.data.log import Truth
from postclick.data.scores import Scores
from postclick.evaluation import EvaluationRows, evaluate
from postclick.evaluation.names import MetricName
from postclick.evaluation.readings import readings, samples_of
from postclick.metrics.bootstrap import MOST_UNITS
from postclick.metrics.influence import COMPARED

ROWS = 600


def drawn(rows: int = ROWS, seed: int = 0, **columns: object) -> tuple[Labels, Scores, Truth]:
    rng = np.random.default_rng(seed)
    odds = {head: rng.normal(-0.5, 1.0, rows) for head in ("ctr", "cvr", "ctcvr")}
    ctr, cvr = (1.0 / (1.0 + np.exp(-odds[head])) for head in ("ctr", "cvr"))
    click = (rng.random(rows) < ctr).astype(np.int8)
    conversion = (click * (rng.random(rows) < cvr)).astype(np.int8)
    return Labels(click, conversion, **columns), Scores(odds, {}), Truth(ctr, cvr, cvr, ctr * cvr)


def named(*names: str) -> list[MetricName]:
    return [MetricName.parse(name) for name in names]


def test_values_are_those_of_evaluate_for_every_metric_head_and_population():
    user = np.random.default_rng(1).integers(0, 40, ROWS)
    labels, scores, truth = drawn(user_id=user)
    samples = samples_of([scores], labels, truth, "exposure")
    pairs = [("ctr", "exposure"), ("cvr", "click"), ("ctcvr", "exposure"), ("cvr", "world")]
    names = [f"{head}/{metric}@{where}" for head, where in pairs for metric in COMPARED]
    found = readings(scores, samples, named(*names))
    judged = evaluate(EvaluationRows(labels, scores, truth)).metrics
    told = [name for name in names if name in judged and judged[name].undefined is None]
    assert len(told) >= 20
    for name in told:
        value = math.exp(found[name].influence.value) if "/pcoc@" in name else found[name].influence.value
        assert value == pytest.approx(judged[name].value, rel=1e-9), name
        assert (found[name].n, found[name].positives) == (judged[name].n, pytest.approx(judged[name].positives))
        assert found[name].clustered
        assert found[name].influence.parts.shape[1] == len(
            np.unique(user[labels.click == 1] if "@click" in name else user)
        )


def test_a_row_is_a_unit_where_nobody_is_named_and_influences_sum_to_0():
    labels, scores, _ = drawn()
    (reading,) = readings(scores, samples_of([scores], labels, None, "exposure"), named("cvr/logloss@click")).values()
    clicked = labels.click == 1
    assert not reading.clustered
    assert reading.influence.parts.shape == (1, clicked.sum())
    assert (reading.n, reading.positives) == (clicked.sum(), labels.conversion.sum())
    # by hand: x_b = (loss_b - mean) / n
    odds, label = scores.odds["cvr"][clicked], labels.conversion[clicked]
    loss = np.logaddexp(0.0, odds) - label * odds
    assert reading.influence.parts[0] == pytest.approx((loss - loss.mean()) / clicked.sum(), abs=1e-12)
    assert reading.influence.parts.sum() == pytest.approx(0.0, abs=1e-12)


def test_it_stays_small_however_many_users_there_are():
    rows = MOST_UNITS + 5_000
    labels, scores, _ = drawn(rows, user_id=np.arange(rows))
    (reading,) = readings(scores, samples_of([scores], labels, None, "exposure"), named("ctr/brier@exposure")).values()
    assert reading.influence.parts.shape[1] <= MOST_UNITS
    assert reading.n == rows


def test_the_raw_variant_reads_what_the_network_gave_and_the_rest_what_is_served():
    labels, scores, _ = drawn()
    raw = {"ctr": 0.5 * scores.odds["ctr"] - 1.0}
    served = Scores(scores.odds, raw)
    samples = samples_of([served], labels, None, "exposure")
    names = named("ctr/pcoc@exposure", "ctr/pcoc[score=raw]@exposure", "cvr/pcoc[score=raw]@click")
    own, before, same = readings(served, samples, names).values()
    alone = readings(Scores(scores.odds | raw, {}), samples, names[:1])["ctr/pcoc@exposure"]
    assert before.influence.value == alone.influence.value != own.influence.value
    # nothing was calibrated there: raw is served
    assert same.influence.value == readings(served, samples, named("cvr/pcoc@click"))["cvr/pcoc@click"].influence.value


@pytest.mark.parametrize(
    ("name", "why"),
    [("action/auc@exposure", "no score of action"), ("cvr/auc@world", "these rows have no cvr@world")],
)
def test_what_the_rows_do_not_have_is_undefined_and_says_why(name, why):
    labels, scores, _ = drawn()
    reading = readings(scores, samples_of([scores], labels, None, "exposure"), named(name))[name]
    assert reading.undefined == why
    assert math.isnan(reading.influence.value)
    assert reading.n == 0


def test_a_head_that_only_another_system_has_is_undefined_with_its_rows_counted():
    labels, scores, _ = drawn()
    less = Scores({head: scores.odds[head] for head in ("ctr", "ctcvr")}, {})
    reading = readings(less, samples_of([scores, less], labels, None, "exposure"), named("cvr/auc@click"))[
        "cvr/auc@click"
    ]
    assert reading.undefined == "no score of cvr"
    assert reading.n == (labels.click == 1).sum()


def test_one_class_and_derived_heads_are_said():
    labels, scores, _ = drawn()
    none = Labels(labels.click, np.zeros_like(labels.conversion))
    derived = Scores(scores.odds, {}, frozenset({"cvr"}))
    samples = samples_of([derived], none, None, "exposure")
    found = readings(derived, samples, named("cvr/auc@click", "ctr/auc@exposure"))
    assert found["cvr/auc@click"].undefined
    assert (found["cvr/auc@click"].derived, found["ctr/auc@exposure"].derived) == (True, False)
    assert found["ctr/auc@exposure"].undefined is None


def test_open_windows_are_no_rows_of_a_reading():
    labels, scores, _ = drawn()
    conversion = labels.conversion.copy()
    conversion[:200] = CENSORED
    late = Labels(labels.click, conversion)
    reading = readings(scores, samples_of([scores], late, None, "exposure"), named("cvr/auc@click"))["cvr/auc@click"]
    assert reading.n == (labels.click[200:] == 1).sum()
