"""What a choice by a metric minimises."""

from __future__ import annotations

import math

import pytest

from postclick.evaluation.choice import higher_is_better, merit


@pytest.mark.parametrize(
    ("name", "worse", "better"),
    [
        ("cvr/auc@click", 0.6, 0.7),
        ("ctcvr/recall[top=0.01]@exposure", 0.1, 0.2),
        ("ctcvr/logloss@exposure", 0.3, 0.2),
        ("cvr/ece@click", 0.3, 0.2),
        ("cvr/pcoc@click", 0.5, 1.1),
        ("cvr/pcoc@click", 2.1, 0.5),
        ("cvr/pcoc@click", 0.0, 50.0),
        ("cvr/auc@click", None, 0.1),
    ],
)
def test_the_better_value_has_the_smaller_merit(name, worse, better):
    assert merit(name, better) < merit(name, worse)


def test_a_ratio_counts_alike_on_both_sides_of_1():
    assert merit("cvr/pcoc@click", 0.5) == pytest.approx(merit("cvr/pcoc@click", 2.0)) == pytest.approx(math.log(2.0))
    assert not higher_is_better("cvr/pcoc@click")
