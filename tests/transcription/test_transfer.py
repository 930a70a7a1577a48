"""aitm against its equations, its invariants, and twins with the bugs of public code."""

import pytest
import torch

from postclick.losses.probability import LogProbability
from postclick.models.base import Losses, Outputs
from postclick.nn.attention_transfer import AttentionTransfer

OFF = {"information_dropout": 0.0}
CASES = {
    "aitm": ("aitm", "aitm", "aitm_objective", OFF),
    "aitm-calibrator-1": ("aitm", "aitm", "aitm_objective", {**OFF, "calibrator": 1.0}, {"alpha": 1.0}),
}


@pytest.fixture(params=CASES)
def case(request, harness):
    return harness.Case(*CASES[request.param])


def test_forward_and_terms(parity, case):
    parity.everywhere(case)


def test_gradients(parity, case):
    parity.gradients(case)


# --- invariant 4: the mixture of equal scores, and the calibrator ----------------------------------------------------


def nothing(model):
    """Plant no bug."""


def check_equal_scores(harness, plant):
    """h1 the identity and equal scores: z = (p + q) / 2."""
    model, given = harness.system("aitm", OFF, 3), harness.instance(3)
    with torch.no_grad():
        model.transfer.value.weight.copy_(torch.eye(3))
        model.transfer.query.weight.zero_()
    plant(model)
    v = model.encoder(given.batch.features)
    p, q = model.information(model.ctr_tower(v)), model.ctcvr_tower(v)
    logit = model.ctcvr_head((p + q) / 2)
    torch.testing.assert_close(model(given.batch).ctcvr.log_p, torch.nn.functional.logsigmoid(logit))


def check_calibrator(harness, plant):
    """alpha max(s - p, 0) / N: slopes +alpha/N and -alpha/N on the pairs out of order, 0 on the others."""
    model, given = harness.system("aitm", OFF, 3), harness.instance(3, weighted=False)
    plant(model)
    p = torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7], dtype=torch.float64, requires_grad=True)
    s = torch.tensor([0.3, 0.1, 0.4, 0.2, 0.9, 0.5, 0.6], dtype=torch.float64, requires_grad=True)
    ctr, ctcvr = (LogProbability(f.log(), (-f).log1p()) for f in (p, s))
    terms = model.loss(Outputs(ctr, ctcvr.quotient(ctr), ctcvr, extras=model(given.batch).extras), given.batch).terms
    assert "calibrator" in terms
    assert terms["calibrator"].item() == pytest.approx(0.6 * (0.2 + 0.1 + 0.4) / 7)
    slope = torch.tensor([1.0, 0, 1, 0, 1, 0, 0]).double() * 0.6 / 7
    found = torch.autograd.grad(terms["calibrator"], (s, p))
    torch.testing.assert_close(found[0], slope)
    torch.testing.assert_close(found[1], -slope)


class Unnormalised(AttentionTransfer):
    """Weights that sum to 2."""

    def forward(self, previous, own):
        z, weights = super().forward(previous, own)
        return 2 * z, weights


def unnormalised(model):
    model.transfer.__class__ = Unnormalised


def without_calibrator(model):
    """No calibrator (MTReclib, torch-rechub)."""
    model.calibrator = 0.0


def changed_calibrator(harness, change):
    def plant(model):
        base = type(model)

        def loss(self, outputs, batch):
            found = base.loss(self, outputs, batch)
            return Losses({**found.terms, "calibrator": change(found.terms["calibrator"], len(batch))})

        harness.twin(model, loss=loss)

    return plant


TWINS = {
    "summed": lambda harness: changed_calibrator(harness, lambda term, rows: term * rows),  # PaddleRec
    "missing": lambda _: without_calibrator,
}


def test_equal_scores_give_the_mean(harness):
    check_equal_scores(harness, nothing)
    with pytest.raises(AssertionError):
        check_equal_scores(harness, unnormalised)


def test_the_calibrator_pulls_the_pairs_out_of_order(harness):
    check_calibrator(harness, nothing)


@pytest.mark.parametrize("name", TWINS)
def test_a_wrong_calibrator_is_told(parity, harness, name):
    plant = TWINS[name](harness)
    with pytest.raises(AssertionError):
        check_calibrator(harness, plant)
    with pytest.raises(AssertionError):
        parity.everywhere(harness.Case(*CASES["aitm"]), plant)
