"""DCMT's two risks in expectation, and what the constraint does to them."""

import math

import pytest
import torch

from postclick.losses.probability import LogProbability
from postclick.models.base import Batch, Outputs
from postclick.models.batching import to_batch
from postclick.models.dcmt import DCMT, DCMTRisk


def logit(chance):
    return torch.full((3,), math.log(chance / (1 - chance)), dtype=torch.float64, requires_grad=True)


def slopes(spec, risk, p, c, q, star, names):
    """Slopes of some terms at the logits of q and q*, in expectation over clicks (p) and conversions (c)."""
    at, other, ctr = logit(q), logit(star), LogProbability.from_logit(logit(p))
    cvr = LogProbability.from_logit(at)
    click, conversion = torch.tensor([[0.0, 1.0, 1.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
    weight = torch.tensor([1 - p, p * (1 - c), p * c], dtype=torch.float64)
    outputs = Outputs(ctr, cvr, ctcvr=ctr * cvr, extras={"counterfactual": other})
    terms = DCMT(spec, risk=risk).loss(outputs, Batch(None, click, conversion, weight=weight)).terms
    found = torch.autograd.grad(
        sum(terms[name] for name in names), (at, other), materialize_grads=True, allow_unused=True
    )
    return tuple(slope.sum().item() for slope in found)


@pytest.mark.parametrize("self_normalise", [True, False])
@pytest.mark.parametrize(("p", "c"), [(0.2, 0.1), (0.5, 0.4)])
def test_the_factual_risk_and_the_joint_one_agree_on_the_truth(spec, self_normalise, p, c):
    risk = DCMTRisk(propensity_floor=0.0, self_normalise=self_normalise)
    assert slopes(spec, risk, p, c, c, 1 - c, ("cvr", "ctcvr"))[0] == pytest.approx(0, abs=1e-9)
    # the counterfactual head sees the label 1 alone: no end in sight
    assert slopes(spec, risk, p, c, c, 0.999, ("counterfactual",))[1] == pytest.approx(-0.001, rel=1e-6)


def test_the_constraint_moves_the_factual_head_by_its_weight(spec):
    """With q* at 1 the factual risk and the constraint meet at q + lambda q (1 - q) = c."""
    strength, q = 0.01, 0.1
    c = q + strength * q * (1 - q)
    risk = DCMTRisk(propensity_floor=0.0, complement_weight=strength)
    assert slopes(spec, risk, 0.2, c, q, 1 - 1e-9, ("cvr", "complement"))[0] == pytest.approx(0, abs=1e-9)


def test_it_starts_where_the_constraint_is_met(spec, exposures):
    torch.manual_seed(0)
    model, batch = DCMT(spec).eval(), to_batch(exposures(50))
    outputs = model(batch)
    terms = model.loss(outputs, batch).terms
    assert terms["complement"].item() < 0.1 * model.risk.complement_weight
    q, star = outputs.cvr.log_p.exp(), torch.sigmoid(outputs.extras["counterfactual"])
    expected = 1e-3 * (1 - (q + star)).abs().mean().item()
    assert terms["complement"].item() == pytest.approx(expected, rel=1e-3)


def test_what_it_says_of_itself(spec):
    model = DCMT(spec)
    assert model.heads == {"ctr": "head", "cvr": "head", "ctcvr": "head"}
    assert model.observed == (("ctr", "exposure"), ("ctcvr", "exposure"))
    assert model.risk.self_normalise
    with pytest.raises(ValueError, match="complement_weight is at least 0"):
        DCMTRisk(complement_weight=-1.0)
    with pytest.raises(ValueError, match="expected a propensity_floor of at least 0"):
        DCMTRisk(cap=0.5)
