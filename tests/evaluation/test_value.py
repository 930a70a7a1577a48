"""Realised value of the highest-scored exposures."""

from __future__ import annotations

import numpy as np
import pytest

from postclick.data.arrays import Labels
from postclick.data.scores import Scores
from postclick.evaluation.evaluate import evaluate
from postclick.evaluation.rows import EvaluationRows


def sigmoid(odds):
    return 1 / (1 + np.exp(-odds))


def rows(count=2000, seed=0, **columns):
    rng = np.random.default_rng(seed)
    odds = rng.normal(-1.0, 1.0, count)
    conversion = (rng.random(count) < sigmoid(odds)).astype(np.int8)
    labels = Labels(conversion, conversion, user_id=rng.integers(0, 300, count), **columns)
    return EvaluationRows(labels, Scores({"ctr": odds + 1, "cvr": odds + 1, "ctcvr": odds}, {}))


def test_share_of_value_equals_a_loop():
    rng = np.random.default_rng(1)
    value, bid = rng.gamma(2.0, 5.0, 2000), rng.gamma(3.0, 1.0, 2000)
    given = rows(value=value, bid=bid)
    found = evaluate(given, metrics=["value[top=0.1]", "ctcvr/value[top=0.5]@exposure"])
    assert set(found) == {"ctcvr/value[top=0.1]@exposure", "ctcvr/value[top=0.5]@exposure"}
    worth = value * given.labels.conversion
    order = np.argsort(-sigmoid(given.scores.odds["ctcvr"]) * bid)
    for name, top in (("ctcvr/value[top=0.1]@exposure", 200), ("ctcvr/value[top=0.5]@exposure", 1000)):
        assert found[name].value == pytest.approx(worth[order[:top]].sum() / worth.sum(), rel=1e-9)
        assert found[name].low < found[name].value < found[name].high
        assert found[name].method.startswith("ranked by ctcvr x bid")
    assert found["ctcvr/value[top=0.1]@exposure"].positives == given.labels.conversion.sum()
    assert found.ledger["value"] == pytest.approx(worth.sum())


def test_the_value_itself_ranks_nothing():
    """It is known after the conversion: a ranking by it would look ahead."""
    value = np.random.default_rng(2).gamma(1.0, 5.0, 2000)
    found = evaluate(rows(value=value))["ctcvr/value[top=0.1]@exposure"]
    worth = value * rows().labels.conversion
    order = np.argsort(-rows().scores.odds["ctcvr"])
    assert found.value == pytest.approx(worth[order[:200]].sum() / worth.sum(), rel=1e-9)
    cheat = np.argsort(-sigmoid(rows().scores.odds["ctcvr"]) * worth)
    assert worth[cheat[:200]].sum() / worth.sum() > 1.5 * found.value


def test_bids_stand_in_for_values_and_equal_ones_give_the_recall():
    given = rows(bid=np.full(2000, 3.0))
    found = evaluate(given, metrics=["value[top=0.2]", "recall[top=0.2]"])
    assert found["ctcvr/value[top=0.2]@exposure"].value == pytest.approx(found["ctcvr/recall[top=0.2]@exposure"].value)


def test_values_of_conversions_alone_are_read_and_faults_are_undefined():
    value = np.where(rows().labels.conversion == 1, 2.0, np.nan)
    assert evaluate(rows(value=value))["ctcvr/value[top=0.1]@exposure"].value > 0.0
    for wrong in (np.nan, -1.0):
        broken = evaluate(rows(value=np.full(2000, wrong)))
        assert "value is missing or below 0" in broken["ctcvr/value[top=0.1]@exposure"].undefined
        assert broken.ledger["value"] is None
    bid = evaluate(rows(value=np.ones(2000), bid=np.full(2000, np.nan)))
    assert "a bid is missing" in bid["ctcvr/value[top=0.1]@exposure"].undefined
    nothing = evaluate(rows(value=np.zeros(2000)))
    assert nothing["ctcvr/value[top=0.1]@exposure"].undefined == "no positives"


def test_without_values_there_is_no_such_metric():
    assert not [name for name in evaluate(rows()) if "/value" in name]
    assert evaluate(rows()).ledger["value"] is None
