"""MLP's two losses against plain float64, and what is derived."""

import numpy as np
import pytest
import torch

from postclick.models.batching import to_batch
from postclick.models.mlp import MLP
from postclick.nn.interaction import Interaction


def entropy(label, f):
    return -(label * np.log(f) + (1 - label) * np.log(1 - f))


def probabilities(head):
    return np.exp(head.log_p.detach().double().numpy())


def test_the_click_loss_is_averaged_over_exposures(spec, exposures):
    torch.manual_seed(0)
    model, given = MLP(spec).eval(), exposures(50)
    batch = to_batch(given)
    outputs = model(batch)
    terms = model.loss(outputs, batch).terms
    o, r = given.labels.click, given.labels.conversion
    assert list(terms) == ["ctr", "cvr"]
    assert terms["ctr"].item() == pytest.approx(entropy(o, probabilities(outputs.ctr)).mean(), rel=1e-5)
    clicked = entropy(r, probabilities(outputs.cvr))[o == 1]
    assert terms["cvr"].item() == pytest.approx(clicked.sum() / 50, rel=1e-5)
    assert 0 < len(clicked) < 50  # so the divisor matters


def test_the_exposure_loss_takes_the_joint_label(spec, exposures):
    torch.manual_seed(0)
    model, given = MLP(spec, conversion="exposure").eval(), exposures(50)
    batch = to_batch(given)
    outputs = model(batch)
    terms = model.loss(outputs, batch).terms
    joint = given.labels.click * given.labels.conversion
    assert list(terms) == ["ctr", "ctcvr"]
    assert terms["ctcvr"].item() == pytest.approx(entropy(joint, probabilities(outputs.ctcvr)).mean(), rel=1e-5)


def test_the_derived_cvr_is_the_clipped_quotient(spec, exposures):
    torch.manual_seed(0)
    outputs = MLP(spec, conversion="exposure").eval()(to_batch(exposures(200)))
    ctr, ctcvr = probabilities(outputs.ctr), probabilities(outputs.ctcvr)
    np.testing.assert_allclose(probabilities(outputs.cvr), np.minimum(ctcvr / ctr, 1 - 1e-6), rtol=1e-5)


@pytest.mark.parametrize(
    ("conversion", "kind", "observed", "rate"),
    [("click", "head", ("cvr", "click"), 0.25), ("exposure", "derived", ("ctcvr", "exposure"), 0.05)],
)
def test_what_each_form_says_of_itself(spec, conversion, kind, observed, rate):
    model = MLP(spec, conversion=conversion)
    assert model.heads == {"ctr": "head", "cvr": kind, "ctcvr": "head"}
    assert model.observed == (("ctr", "exposure"), observed)
    assert torch.sigmoid(model.conversion_network.heads["conversion"].linear.bias).item() == pytest.approx(rate, rel=1e-5)
    assert len(list(model.tables())) == 2


def test_each_network_forms_its_own_interaction(spec, exposures):
    torch.manual_seed(0)
    model, batch = MLP(spec, interaction=Interaction("cross", layers=1)), to_batch(exposures(20))
    tower, encoder = model.ctr_network.towers["ctr"], model.ctr_network.encoder
    assert tower.steps[0].in_features == encoder.width == 2 * MLP(spec).ctr_network.encoder.width
    sum(model.loss(model(batch), batch).terms.values()).backward()
    networks = (model.ctr_network, model.conversion_network)
    ctr, conversion = (network.encoder.cross.layers[0].weight for network in networks)
    assert ctr is not conversion
    assert ctr.grad.abs().sum() > 0
    assert conversion.grad.abs().sum() > 0
