"""What OMoE, MMoE and PLE promise alike: two losses against plain float64, and what each form says of itself."""

import numpy as np
import pytest
import torch

from postclick.models.batching import to_batch
from postclick.models.mmoe import MMoE
from postclick.models.omoe import OMoE
from postclick.models.ple import PLE

PAIRS = (OMoE, MMoE, PLE)


def entropy(label, f):
    return -(label * np.log(f) + (1 - label) * np.log(1 - f))


def probabilities(head):
    return np.exp(head.log_p.detach().double().numpy())


@pytest.mark.parametrize("conversion", ["ctcvr", "cvr"])
@pytest.mark.parametrize("system", PAIRS)
def test_the_terms_equal_plain_float64(system, spec, exposures, conversion):
    torch.manual_seed(0)
    model, given = system(spec, conversion=conversion).eval(), exposures(50, sample_weight=np.linspace(0, 2, 50))
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


@pytest.mark.parametrize("system", PAIRS)
@pytest.mark.parametrize(
    ("conversion", "kind", "observed", "rate"),
    [("ctcvr", "derived", ("ctcvr", "exposure"), 0.05), ("cvr", "head", ("cvr", "click"), 0.25)],
)
def test_what_each_form_says_of_itself(system, spec, conversion, kind, observed, rate):
    model = system(spec, conversion=conversion)
    assert model.heads == {"ctr": "head", "cvr": kind, "ctcvr": "head"}
    assert model.observed == (("ctr", "exposure"), observed)
    assert torch.sigmoid(model.network.heads[conversion].linear.bias).item() == pytest.approx(rate, rel=1e-5)
    assert len(list(model.tables())) == 1
    assert {id(p) for p in model.shared_parameters()} == {id(p) for p in model.network.trunk.parameters()}
