"""Products and pairs by hand; the systems' own tests hold them against their equations."""

from __future__ import annotations

import math

import pytest
import torch

from postclick.models.base import Batch
from postclick.models.task_heads import (
    pair_heads,
    pair_losses,
    pair_observed,
    pair_outputs,
    pair_rates,
    product_outputs,
)
from postclick.nn.features import Features
from postclick.nn.trunk import TaskLogits

LN3 = math.log(3.0)  # the log-odds of 3/4


def logits(**tasks: float) -> TaskLogits:
    gates = {"ctr": torch.tensor([[0.25, 0.75]] * 2)}
    return TaskLogits({task: torch.full((2,), value) for task, value in tasks.items()}, gates)


def batch(click, conversion, weight=None) -> Batch:
    empty = torch.zeros(2, 0)
    parts = (None if values is None else torch.tensor(values) for values in (click, conversion, weight))
    click, conversion, weight = parts
    return Batch(Features(empty.int(), empty, empty), click=click, conversion=conversion, weight=weight)


def test_a_product_by_hand():
    found = product_outputs(logits(ctr=LN3, cvr=0.0), {"other": torch.ones(2)})
    assert found.ctcvr.log_p.exp().tolist() == pytest.approx([3 / 8] * 2)
    assert found.ctcvr.log_not_p.exp().tolist() == pytest.approx([5 / 8] * 2)
    assert set(found.extras) == {"other", "gate/ctr"}


def test_a_pair_with_ctcvr_derives_the_cvr():
    found = pair_outputs(logits(ctr=LN3, ctcvr=-LN3), "ctcvr")
    assert found.ctcvr.log_p.exp().tolist() == pytest.approx([1 / 4] * 2)
    assert found.cvr.log_p.exp().tolist() == pytest.approx([1 / 3] * 2)
    assert pair_heads("ctcvr") == {"ctr": "head", "cvr": "derived", "ctcvr": "head"}
    assert pair_observed("ctcvr") == (("ctr", "exposure"), ("ctcvr", "exposure"))


def test_a_pair_with_cvr_multiplies():
    found = pair_outputs(logits(ctr=LN3, cvr=-LN3), "cvr")
    assert found.ctcvr.log_p.exp().tolist() == pytest.approx([3 / 16] * 2)
    assert pair_heads("cvr")["cvr"] == "head"
    assert pair_observed("cvr") == (("ctr", "exposure"), ("cvr", "click"))


def test_the_losses_of_a_pair_by_hand():
    # p = 3/4; rows: a converted click of weight 1, an exposure without click of weight 3
    rows = batch([1.0, 0.0], [1.0, 0.0], [1.0, 3.0])
    ctr = -(math.log(3 / 4) + 3 * math.log(1 / 4)) / 4
    joint = pair_losses(pair_outputs(logits(ctr=LN3, ctcvr=-LN3), "ctcvr"), rows, "ctcvr")
    assert joint.terms["ctr"].item() == pytest.approx(ctr)
    assert joint.terms["ctcvr"].item() == pytest.approx(-(math.log(1 / 4) + 3 * math.log(3 / 4)) / 4)
    clicks = pair_losses(pair_outputs(logits(ctr=LN3, cvr=-LN3), "cvr"), rows, "cvr")
    assert clicks.terms["cvr"].item() == pytest.approx(-math.log(1 / 4))  # a mean over the one click
    assert set(clicks.diagnostics) == {"gate_entropy/ctr", "gate_largest/ctr"}


def test_the_rates_of_a_pair(spec):
    assert pair_rates(spec, "ctcvr") == {"ctr": spec.ctr, "ctcvr": spec.ctcvr}
    assert pair_rates(spec, "cvr") == {"ctr": spec.ctr, "cvr": spec.cvr}
