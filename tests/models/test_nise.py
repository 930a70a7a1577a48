"""NISE's ratio of losses, and where its CVR settles."""

import math

import numpy as np
import pytest
import torch

from postclick.losses.probability import LogProbability
from postclick.models.base import Batch, Outputs
from postclick.models.batching import to_batch
from postclick.models.nise import NISE


def settled(p, c):
    """Return the q with p (c - q) = (1 - p) q (1 - q) log((1 - q) / q) below c, by bisection."""
    low, high = 1e-12, c
    for _ in range(200):
        q = (low + high) / 2
        pull = p * (c - q) - (1 - p) * q * (1 - q) * math.log((1 - q) / q)
        low, high = (q, high) if pull > 0 else (low, q)
    return q


def expected(spec, p, c, q):
    """The loss in expectation over clicks of chance p and conversions of chance c, as a weighted batch of three."""
    logit = torch.full((3,), math.log(q / (1 - q)), dtype=torch.float64, requires_grad=True)
    ctr = LogProbability.from_logit(torch.full((3,), math.log(p / (1 - p)), dtype=torch.float64))
    cvr = LogProbability.from_logit(logit)
    click, conversion = torch.tensor([[0.0, 1.0, 1.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
    weight = torch.tensor([1 - p, p * (1 - c), p * c], dtype=torch.float64)
    batch = Batch(None, click, conversion, weight=weight)
    return NISE(spec).loss(Outputs(ctr, cvr, ctcvr=ctr * cvr), batch), logit


@pytest.mark.parametrize(("p", "c"), [(0.04, 0.1), (0.3, 0.1), (0.4, 0.2)])
def test_low_rates_settle_below_the_truth(spec, p, c):
    """The docstring's equation, and its example."""
    q = settled(p, c)
    assert q < 0.9 * c
    losses, logit = expected(spec, p, c, q)
    losses.terms["cvr"].backward()
    assert abs(logit.grad.sum().item()) < 1e-9
    losses, logit = expected(spec, p, c, c)
    losses.terms["cvr"].backward()
    assert logit.grad.sum().item() > 1e-4  # at the truth the entropy still pulls down
    if (p, c) == (0.04, 0.1):
        assert q == pytest.approx(0.0006, abs=0.00005)


@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 50.0), (0.5, 50.0), (2.0, 0.3)])
def test_omega_brings_the_losses_to_one_size(spec, exposures, alpha, beta):
    torch.manual_seed(0)
    model, batch = NISE(spec, alpha=alpha, beta=beta).eval(), to_batch(exposures(50))
    losses = model.loss(model(batch), batch)
    ratio = losses.terms["ctr"].item() / (losses.terms["cvr"] / losses.diagnostics["omega"]).item()
    assert losses.diagnostics["omega"].item() == pytest.approx(alpha * min(ratio, beta), rel=1e-5)
    if ratio < beta:
        assert losses.terms["cvr"].item() == pytest.approx(alpha * losses.terms["ctr"].item(), rel=1e-5)


def test_the_entropy_is_that_of_unclicked_rows(spec, exposures):
    torch.manual_seed(0)
    model, given = NISE(spec).eval(), exposures(50)
    batch = to_batch(given)
    outputs = model(batch)
    q = np.exp(outputs.cvr.log_p.detach().double().numpy())
    entropy = -(q * np.log(q) + (1 - q) * np.log(1 - q))
    found = model.loss(outputs, batch).diagnostics["entropy"].item()
    assert found == pytest.approx((entropy * (given.labels.click == 0)).mean(), rel=1e-5)


def test_what_it_says_of_itself(spec):
    assert NISE(spec).observed == (("ctr", "exposure"), ("cvr", "click"))
    for wrong in ({"alpha": -1.0}, {"beta": 0.0}, {"beta": math.inf}):
        with pytest.raises(ValueError, match="alpha is at least 0 and beta above 0"):
            NISE(spec, **wrong)
