"""MMoE's two losses against plain float64, and what its gates tell."""

import numpy as np
import pytest
import torch

from postclick.models.batching import to_batch
from postclick.models.mmoe import MMoE
from postclick.models.omoe import OMoE
from postclick.nn.experts import Experts


def entropy(label, f):
    return -(label * np.log(f) + (1 - label) * np.log(1 - f))


def probabilities(head):
    return np.exp(head.log_p.detach().double().numpy())


@pytest.mark.parametrize("conversion", ["ctcvr", "cvr"])
def test_the_terms_equal_plain_float64(spec, exposures, conversion):
    torch.manual_seed(0)
    model, given = MMoE(spec, conversion=conversion).eval(), exposures(50, sample_weight=np.linspace(0, 2, 50))
    batch = to_batch(given)
    outputs = model(batch)
    o, r, w = given.labels.click, given.labels.conversion, given.labels.sample_weight
    p = probabilities(outputs.ctr)
    terms = model.loss(outputs, batch).terms
    assert list(terms) == ["ctr", conversion]
    assert terms["ctr"].item() == pytest.approx(np.sum(w * entropy(o, p)) / w.sum(), rel=1e-5)
    if conversion == "ctcvr":
        s = probabilities(outputs.ctcvr)
        expected = np.sum(w * entropy(o * r, s)) / w.sum()
        np.testing.assert_allclose(probabilities(outputs.cvr), np.minimum(s / p, 1 - 1e-6), rtol=1e-5)
    else:
        q = probabilities(outputs.cvr)
        expected = np.sum((w * entropy(r, q))[o == 1]) / w[o == 1].sum()  # by clicks, not by exposures
        np.testing.assert_allclose(probabilities(outputs.ctcvr), p * q, rtol=1e-5)
    assert terms[conversion].item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("conversion", "kind", "observed", "rate"),
    [("ctcvr", "derived", ("ctcvr", "exposure"), 0.05), ("cvr", "head", ("cvr", "click"), 0.25)],
)
def test_what_each_form_says_of_itself(spec, conversion, kind, observed, rate):
    model = MMoE(spec, conversion=conversion)
    assert model.heads == {"ctr": "head", "cvr": kind, "ctcvr": "head"}
    assert model.observed == (("ctr", "exposure"), observed)
    assert torch.sigmoid(model.network.heads[conversion].linear.bias).item() == pytest.approx(rate, rel=1e-5)
    assert len(list(model.tables())) == 1
    assert {id(p) for p in model.shared_parameters()} == {id(p) for p in model.network.trunk.parameters()}


def test_diagnostics_are_of_the_gates(spec, exposures):
    model, batch = MMoE(spec, experts=Experts(count=3)), to_batch(exposures(50))
    outputs = model(batch)
    diagnostics = model.loss(outputs, batch).diagnostics
    assert set(diagnostics) == {f"gate_{what}/{task}" for what in ("entropy", "largest") for task in ("ctr", "ctcvr")}
    for task in ("ctr", "ctcvr"):
        gate = outputs.extras[f"gate/{task}"].detach().double().numpy()
        assert gate.shape == (50, 3)
        assert diagnostics[f"gate_largest/{task}"].item() == pytest.approx(gate.mean(axis=0).max(), rel=1e-5)
        share = -(gate * np.log(gate)).sum(axis=1).mean() / np.log(3)
        assert diagnostics[f"gate_entropy/{task}"].item() == pytest.approx(share, rel=1e-5)


def test_tied_gates_make_it_omoe(spec, exposures):
    mmoe, omoe, batch = MMoE(spec).eval(), OMoE(spec).eval(), to_batch(exposures(50))
    gate = omoe.state_dict()["network.trunk.gates.0.linear.weight"]
    mmoe.load_state_dict(omoe.state_dict() | {"network.trunk.gates.1.linear.weight": gate})
    for name, head in mmoe(batch).heads().items():
        assert torch.equal(head.log_p, omoe(batch).heads()[name].log_p)
    mmoe.load_state_dict(omoe.state_dict() | {"network.trunk.gates.1.linear.weight": 1 - gate})
    assert torch.equal(mmoe(batch).ctr.log_p, omoe(batch).ctr.log_p)
    assert not torch.equal(mmoe(batch).ctcvr.log_p, omoe(batch).ctcvr.log_p)  # so untied gates are told
