"""Shares and verdicts from sums of gates, by hand."""

import json
import math

import numpy as np
import pytest

from postclick.data.gates import GateTotals
from postclick.evaluation.experts import (
    COLLAPSED_BELOW,
    ExpertUse,
    expert_use,
    experts_form,
    experts_from,
    verdicts,
)


def totals(weight, top, entropy, rows=100):
    return GateTotals(rows, np.array(weight, float), np.array(top), entropy)


def test_shares_by_hand():
    (use,) = expert_use({"ctr": totals([60.0, 40.0], [75, 25], 50 * math.log(2))}).values()
    assert use == ExpertUse(100, (0.6, 0.4), (0.75, 0.25), pytest.approx(0.5))
    assert use.even == 0.5
    assert use.collapsed == ()


def test_the_threshold_is_a_tenth_of_an_even_share():
    assert COLLAPSED_BELOW == 0.1
    at, below = 0.025, 0.0249
    assert ExpertUse(9, (at, 0.975 - 0.25, 0.25, 0.0 + 0.1), (0, 1, 0, 0), 0.3).collapsed == ()
    assert ExpertUse(9, (below, 0.7, 0.25, 0.0501), (0, 1, 0, 0), 0.3).collapsed == (0,)
    # the same share is fine among twenty
    assert 0 not in ExpertUse(9, (below, *([0.051] * 19)), (0,) * 20, 0.3).collapsed


def test_one_expert_alone_has_nobody_to_collapse_against():
    use = expert_use({"ctr": totals([100.0], [100], 0.0)})
    assert use["ctr"].entropy == 1.0
    assert verdicts(use) == ()


def test_rows_that_divide_the_experts_among_them_are_no_collapse():
    use = expert_use({"ctr": totals([50.0, 50.0], [50, 50], 0.0)})
    assert use["ctr"].entropy == 0.0
    assert verdicts(use) == ()


def test_verdicts_name_task_expert_and_share():
    use = expert_use({"ctr": totals([0.4, 49.6, 50.0], [0, 50, 50], 1.0), "cvr": totals([99.5, 0.5], [100, 0], 1.0)})
    assert verdicts(use) == (
        "expert 0 of task ctr gets 0.4% of the weight, where an even gate gives 33.3%: collapsed",
        "the gate of task cvr has collapsed onto expert 0: it gets 99.5% of the weight",
        "expert 1 of task cvr gets 0.5% of the weight, where an even gate gives 50.0%: collapsed",
    )


def test_a_task_without_rows_is_left_out():
    assert expert_use({"ctr": totals([0.0, 0.0], [0, 0], 0.0, rows=0)}) == {}


def test_the_plain_form_travels():
    use = expert_use({"ctr": totals([0.4, 49.6, 50.0], [0, 50, 50], 1.0)})
    form = json.loads(json.dumps(experts_form(use), allow_nan=False))
    assert list(form) == ["collapsed_below", "tasks", "verdict"]
    assert form["tasks"]["ctr"]["collapsed"] == [0]
    assert form["verdict"] == list(verdicts(use))
    assert experts_from(form) == use
    assert experts_from({}) == {}
