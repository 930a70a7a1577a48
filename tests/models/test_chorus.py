"""Every term of ChorusCVR agrees on the truth, and each is told where it is left out."""

import math

import pytest
import torch

from postclick.losses.probability import LogProbability
from postclick.models.base import Batch, Outputs
from postclick.models.batching import to_batch
from postclick.models.chorus import Chorus, ChorusRisk

TERMS = ("ctr", "ctcvr", "ctuncvr", "cvr", "uncvr", "align")


def logit(chance):
    return torch.full((3,), math.log(chance / (1 - chance)), dtype=torch.float64, requires_grad=True)


def slopes(spec, risk, truth, at, names):
    """Slopes of some terms at the logits of p, q, u, in expectation over clicks and conversions of chances `truth`."""
    (p, c), heads = truth, [logit(chance) for chance in at]
    ctr, cvr = (LogProbability.from_logit(head) for head in heads[:2])
    click, conversion = torch.tensor([[0.0, 1.0, 1.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
    weight = torch.tensor([1 - p, p * (1 - c), p * c], dtype=torch.float64)
    outputs = Outputs(ctr, cvr, ctcvr=ctr * cvr, extras={"uncvr": heads[2]})
    terms = Chorus(spec, risk=risk).loss(outputs, Batch(None, click, conversion, weight=weight)).terms
    found = torch.autograd.grad(sum(terms[name] for name in names), heads, materialize_grads=True, allow_unused=True)
    return [slope.sum().item() for slope in found]


@pytest.mark.parametrize("self_normalise", [True, False])
@pytest.mark.parametrize(("p", "c"), [(0.2, 0.1), (0.5, 0.4)])
def test_the_terms_agree_on_the_truth(spec, self_normalise, p, c):
    risk = ChorusRisk(propensity_floor=0.0, self_normalise=self_normalise)
    for names in (("ctr",), ("cvr",), ("uncvr",), ("align",), ("ctcvr", "ctuncvr"), TERMS):
        assert slopes(spec, risk, (p, c), (p, c, 1 - c), names) == pytest.approx([0, 0, 0], abs=1e-9), names
    for at in ((p, c + 0.05, 1 - c), (p, c, 0.95 - c), (p + 0.05, c, 1 - c)):
        assert max(abs(slope) for slope in slopes(spec, risk, (p, c), at, TERMS)) > 1e-3


def test_without_its_own_loss_the_click_is_known_from_the_joint_ones(spec):
    risk = ChorusRisk(propensity_floor=0.0, ctr_weight=0.0)
    right, low = (slopes(spec, risk, (0.2, 0.1), (p, 0.1, 0.9), TERMS)[0] for p in (0.2, 0.1))
    assert right == pytest.approx(0, abs=1e-9)
    assert low < -0.05


def test_alignment_pulls_each_head_to_the_complement_of_the_other(spec):
    """2 (q - (1 - u)) on q, the sum of both sides, whatever the labels are."""
    for p, c in ((0.2, 0.1), (0.5, 0.9)):
        _, q, u = slopes(spec, ChorusRisk(propensity_floor=0.0), (p, c), (p, 0.3, 0.4), ("align",))
        assert (q, u) == pytest.approx((2 * (0.3 - 0.6), 2 * (0.4 - 0.7)), abs=1e-9)


def test_it_starts_at_the_base_rates(spec, exposures):
    torch.manual_seed(0)
    model, batch = Chorus(spec).eval(), to_batch(exposures(50))
    outputs = model(batch)
    assert set(outputs.extras) == {"uncvr"}
    assert torch.sigmoid(outputs.extras["uncvr"]).median().item() == pytest.approx(1 - spec.cvr, rel=0.2)
    assert list(model.loss(outputs, batch).terms) == list(TERMS)
    assert not model.risk.self_normalise


def test_wrong_weights_are_refused():
    for name in ("ctr_weight", "weighted", "align"):
        for wrong in (-1.0, math.inf):
            with pytest.raises(ValueError, match="are at least 0"):
                ChorusRisk(**{name: wrong})
