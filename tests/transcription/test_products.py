"""Invariant 9: what products give at logits of +-80, against arithmetic of 150 digits; clamped sigmoids do not.

A head's weights are set to zero and its bias to the logit, so every row has it, and one row at a time is looked at, so
nothing of one is lost in another.
"""

from __future__ import annotations

import decimal
import itertools
from dataclasses import replace
from decimal import Decimal

import numpy as np
import pytest
import torch

from postclick.losses.probability import LogProbability

HEADS = {
    "esmm": {"ctr": "network.heads.ctr", "cvr": "network.heads.cvr"},
    "esm2": {name: f"network.heads.{name}" for name in ("ctr", "action", "purchase_action", "purchase_other")},
    "chain": {name: f"network.heads.{name}" for name in ("ctr", "action", "purchase_action")},
    "esmc": {"ctr": "ctr_head", "action": "action_head", "purchase": "purchase_head"},
    "esms": {"ctr": "ctr_head", "action": "action_head", "purchase": "purchase_head"},
}
SYSTEMS = {
    "esmm": ("esmm", "esmm_objective", {}),
    "esm2": ("esm2", "esm2_objective", {}),
    "chain": ("esm2", "esm2_objective", {"other_action": False}),
    "esmc": ("esmc", "esmc_objective", {"constraint": 0.0}),
    "esms": ("esms", "esmc_objective", {}),
}
LABELS = [(0, 0, 0), (1, 0, 0), (1, 1, 0), (1, 0, 1), (1, 1, 1)]
STEP = Decimal(10) ** -40


@pytest.fixture
def exact(equations, monkeypatch):
    """The equations on decimals: sigmoid and cross-entropy as written, in 150 digits."""
    monkeypatch.setattr(equations, "sigmoid", lambda z: 1 / (1 + np.array([(-value).exp() for value in z])))
    entropy = np.frompyfunc(lambda label, f: -(f if label else 1 - f).ln(), 2, 1)
    monkeypatch.setattr(equations, "bce", entropy)
    with decimal.localcontext() as context:
        context.prec = 150
        yield equations


def reference(exact, name, logits, labels):
    """Return the total loss of one row and its slope at each logit."""
    _, objective, options = SYSTEMS[name]
    options = {key: value for key, value in options.items() if key == "other_action"}
    y = {key: np.array([value], object) for key, value in zip(("click", "action", "conversion"), labels, strict=True)}
    y["weight"] = np.array([Decimal(1)])

    def total(values):
        z = {head: np.array([value]) for head, value in zip(HEADS[name], values, strict=True)}
        return sum(getattr(exact, objective)(z, y, **options)[1].values())

    values, slopes = [Decimal(logit) for logit in logits], []
    for place in range(len(values)):
        moved = [[v + (s * STEP if i == place else 0) for i, v in enumerate(values)] for s in (1, -1)]
        slopes.append((total(moved[0]) - total(moved[1])) / (2 * STEP))
    return float(total(values)), np.array([float(slope) for slope in slopes])


def measured(harness, name, logits, labels, plant, dtype):
    key, _, arguments = SYSTEMS[name]
    model = harness.system(key, arguments, 0)
    plant(model)
    model.to(dtype)
    heads = [model.get_submodule(path).linear for path in HEADS[name].values()]
    with torch.no_grad():
        for head, logit in zip(heads, logits, strict=True):
            head.weight.zero_()
            head.bias.fill_(logit)
    batch = harness.as_dtype(harness.instance(0, rows=1, weighted=False).batch, dtype)
    click, action, conversion = (torch.tensor([float(label)], dtype=dtype) for label in labels)
    batch = replace(batch, click=click, action=action, conversion=conversion)
    total = sum(model.loss(model(batch), batch).terms.values())
    slopes = torch.autograd.grad(total, [head.bias for head in heads], allow_unused=True, materialize_grads=True)
    return total.item(), np.array([slope.item() for slope in slopes])


def check_exact(harness, exact, name, grid, plant, dtype=torch.float64):
    """Total and slopes of one row, for every pattern of labels, at every combination of the logits of `grid`."""
    tolerance = {"rtol": 1e-9, "atol": 1e-11} if dtype == torch.float64 else {"rtol": 1e-4, "atol": 1e-5}
    for logits, labels in itertools.product(grid(len(HEADS[name])), LABELS):
        value, slopes = measured(harness, name, logits, labels, plant, dtype)
        expected, steep = reference(exact, name, logits, labels)
        np.testing.assert_allclose(value, expected, **tolerance, err_msg=f"{logits} {labels}")
        np.testing.assert_allclose(slopes, steep, **tolerance, err_msg=f"slopes at {logits} {labels}")


def eighty(heads):
    return itertools.product((-80.0, 80.0), repeat=heads)


def below_five(heads):
    return np.random.default_rng(0).uniform(-5, 5, (8, heads)).tolist()


def nothing(model):
    """Plant no bug."""


def clamped(harness):
    """Products of sigmoids, clamped to [1e-7, 1 - 1e-7]."""

    def product(one, other):
        f = (torch.sigmoid(logit(one)) * torch.sigmoid(logit(other))).clamp(1e-7, 1 - 1e-7)
        return LogProbability(f.log(), (-f).log1p())

    def logit(head):
        return head.log_p - head.log_not_p

    def plant(model):
        base = type(model)

        def forward(self, batch):
            outputs = base.forward(self, batch)
            ctar = None if outputs.action is None else product(outputs.ctr, outputs.action)
            return replace(outputs, ctcvr=product(outputs.ctr, outputs.cvr), ctar=ctar)

        harness.twin(model, forward=forward)

    return plant


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["double", "single"])
@pytest.mark.parametrize("name", SYSTEMS)
def test_products_are_exact_at_eighty(harness, exact, name, dtype):
    check_exact(harness, exact, name, eighty, nothing, dtype)


@pytest.mark.parametrize("name", SYSTEMS)
def test_clamped_products_are_told_at_eighty_and_there_only(harness, exact, name):
    check_exact(harness, exact, name, below_five, nothing)
    check_exact(harness, exact, name, below_five, clamped(harness))
    with pytest.raises(AssertionError):
        check_exact(harness, exact, name, eighty, clamped(harness))


@pytest.mark.parametrize("name", SYSTEMS)
def test_clamped_products_stop_learning(harness, exact, name):
    """A converted row whose pCTCVR is 1e-70: its slope is -1 at the pCTR and not 0."""
    logits, labels = [-80.0] * len(HEADS[name]), (1, 1, 1)
    right, wrong = (
        measured(harness, name, logits, labels, plant, torch.float64)[1] for plant in (nothing, clamped(harness))
    )
    assert right[-1] == pytest.approx(reference(exact, name, logits, labels)[1][-1])
    assert right[-1] < -0.9
    assert wrong[-1] == 0


@pytest.mark.parametrize("name", SYSTEMS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["double", "single"])
def test_nothing_is_infinite_at_ten_thousand(harness, name, dtype):
    """Decision 3."""
    for logits, labels in itertools.product(itertools.product((-1e4, 1e4), repeat=len(HEADS[name])), LABELS):
        value, slopes = measured(harness, name, logits, labels, nothing, dtype)
        assert np.isfinite(value)
        assert np.isfinite(slopes).all()
