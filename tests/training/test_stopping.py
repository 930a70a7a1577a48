from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from postclick.data.arrays import CENSORED, Labels
from postclick.data.scores import Scores
from postclick.errors import ConfigError
from postclick.training.stopping import EarlyStopping, check_stop_on, validation_losses

ALL = (("ctr", "exposure"), ("cvr", "click"), ("ctcvr", "exposure"), ("action", "click"), ("ctar", "exposure"))


def make(rows: int, seed: int, *, weighted: bool = True) -> tuple[Scores, Labels]:
    random = np.random.default_rng(seed)
    click = random.integers(0, 2, rows).astype(np.int8)
    labels = Labels(
        click,
        (click & random.integers(0, 2, rows)).astype(np.int8),
        action=random.integers(0, 2, rows).astype(np.int8),
        sample_weight=random.random(rows) + 0.5 if weighted else None,
    )
    odds = {head: random.normal(0, 3, rows) for head, _ in ALL}
    return Scores(odds, {}, frozenset(), 0), labels


@given(st.integers(1, 20), st.integers(0, 100), st.booleans())
def test_losses_equal_a_plain_loop(rows: int, seed: int, weighted: bool) -> None:
    scores, labels = make(rows, seed, weighted=weighted)
    found = validation_losses(scores, labels, ALL)
    sums = dict.fromkeys((head for head, _ in ALL), 0.0)
    total = 0.0
    for row in range(rows):
        weight = 1.0 if labels.sample_weight is None else labels.sample_weight[row]
        total += weight
        o, t, a = labels.click[row], labels.conversion[row], labels.action[row]  # type: ignore[index]
        for head, y, counts in (("ctr", o, 1), ("cvr", t, o), ("ctcvr", t, 1), ("action", a, o), ("ctar", o * a, 1)):
            p = 1.0 / (1.0 + math.exp(-scores.odds[head][row]))
            sums[head] += weight * counts * -(y * math.log(p) + (1 - y) * math.log(1 - p))
    for head, population in ALL:
        assert found[f"{head}/logloss@{population}"] == pytest.approx(sums[head] / total, abs=1e-12)
    assert found["logloss"] == pytest.approx(sum(sums.values()) / total)


def test_censored_rows_leave_sum_and_weight() -> None:
    scores, labels = make(6, 0, weighted=False)
    labels.conversion[2] = CENSORED
    keep = np.array([0, 1, 3, 4, 5])
    fewer = Scores({head: odds[keep] for head, odds in scores.odds.items()}, {}, frozenset(), 0)
    pairs = (("ctcvr", "exposure"), ("cvr", "click"))
    assert validation_losses(scores, labels, pairs) == validation_losses(fewer, labels.take(keep), pairs)


def test_open_windows_leave_the_losses_of_conversions_alone() -> None:
    scores, labels = make(6, 0, weighted=False)
    young = dataclasses.replace(labels, immature=np.array([0, 0, 1, 2, 0, 0], np.int8))
    keep = np.array([0, 1, 3, 4, 5])
    fewer = Scores({head: odds[keep] for head, odds in scores.odds.items()}, {}, frozenset(), 0)
    pairs = (("ctcvr", "exposure"), ("cvr", "click"))
    assert validation_losses(scores, young, pairs) == validation_losses(fewer, labels.take(keep), pairs)
    others = (("ctr", "exposure"), ("ctar", "exposure"))
    assert validation_losses(scores, young, others) == validation_losses(scores, labels, others)


def test_extreme_odds_and_no_clicks_are_finite() -> None:
    labels = Labels(np.zeros(2, np.int8), np.zeros(2, np.int8))
    scores = Scores({"ctr": np.array([1e4, -1e4]), "cvr": np.array([0.0, 0.0])}, {}, frozenset(), 0)
    losses = validation_losses(scores, labels, (("ctr", "exposure"), ("cvr", "click")))
    assert losses == {"ctr/logloss@exposure": 5000.0, "cvr/logloss@click": 0.0, "logloss": 5000.0}


def test_patience_counts_checks_since_the_best() -> None:
    stopping = EarlyStopping(patience=2, min_delta=0.1)
    assert stopping.update(1.0, 0, 10)
    assert not stopping.update(0.95, 0, 20)
    assert not stopping.stop
    assert stopping.update(0.5, 1, 30)
    assert not stopping.update(0.6, 1, 40)
    assert not stopping.update(math.nan, 1, 50)
    assert stopping.stop
    assert (stopping.best_loss, stopping.best_epoch, stopping.best_step) == (0.5, 1, 30)


def test_no_patience_never_stops() -> None:
    stopping = EarlyStopping(patience=None, min_delta=0.0)
    assert not any(stopping.update(1.0, 0, step) and step for step in range(50))
    assert not stopping.stop


def test_state_travels() -> None:
    first, second = EarlyStopping(3, 0.0), EarlyStopping(3, 0.0)
    second.load(first.state())
    assert second.state() == first.state()
    first.update(0.25, 1, 2)
    first.update(0.5, 1, 3)
    second.load(first.state())
    assert (second.best_loss, second.best_epoch, second.best_step, second.checks_since) == (0.25, 1, 2, 1)


def test_an_unknown_loss_names_the_nearest() -> None:
    check_stop_on("logloss", ALL)
    check_stop_on("cvr/logloss@click", ALL)
    with pytest.raises(ConfigError, match="did you mean 'cvr/logloss@click'"):
        check_stop_on("cvr/loglos@click", ALL)
