"""OMoE's two losses against plain float64, and its one gate."""

import numpy as np
import pytest
import torch

from postclick.models.batching import to_batch
from postclick.models.omoe import OMoE


def entropy(label, f):
    return -(label * np.log(f) + (1 - label) * np.log(1 - f))


def probabilities(head):
    return np.exp(head.log_p.detach().double().numpy())


@pytest.mark.parametrize("conversion", ["ctcvr", "cvr"])
def test_the_terms_equal_plain_float64(spec, exposures, conversion):
    torch.manual_seed(0)
    model, given = OMoE(spec, conversion=conversion).eval(), exposures(50, sample_weight=np.linspace(0, 2, 50))
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
    model = OMoE(spec, conversion=conversion)
    assert model.heads == {"ctr": "head", "cvr": kind, "ctcvr": "head"}
    assert model.observed == (("ctr", "exposure"), observed)
    assert torch.sigmoid(model.network.heads[conversion].linear.bias).item() == pytest.approx(rate, rel=1e-5)
    assert len(list(model.tables())) == 1
    assert {id(p) for p in model.shared_parameters()} == {id(p) for p in model.network.trunk.parameters()}


def test_both_tasks_read_one_mixture(spec, exposures):
    model, batch = OMoE(spec).eval(), to_batch(exposures(50))
    outputs = model(batch)
    assert torch.equal(outputs.extras["gate/ctr"], outputs.extras["gate/ctcvr"])
    assert len(model.network.trunk.gates) == 1
    (click, conversion), _ = model.network.trunk(model.network.encoder(batch.features))
    assert torch.equal(click, conversion)
