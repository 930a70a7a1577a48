"""AITM's terms against plain float64, its parts, and the order of its two heads."""

import numpy as np
import pytest
import torch

from postclick.losses.probability import LogProbability
from postclick.models.aitm import AITM
from postclick.models.base import Outputs
from postclick.models.batching import to_batch
from postclick.nn.tower import Tower


def entropy(label, f):
    return -(label * np.log(f) + (1 - label) * np.log(1 - f))


def probabilities(head):
    return np.exp(head.log_p.detach().double().numpy())


def outputs_of(ctr_logit, ctcvr_logit):
    ctr, ctcvr = LogProbability.from_logit(ctr_logit), LogProbability.from_logit(ctcvr_logit)
    attention = torch.full((len(ctr_logit), 2), 0.5)
    return Outputs(ctr, ctcvr.quotient(ctr), ctcvr, extras={"attention/ctcvr": attention})


def test_the_terms_equal_plain_float64(spec, exposures):
    model, given = AITM(spec, calibrator=0.3), exposures(50, sample_weight=np.linspace(0, 2, 50))
    batch, rng = to_batch(given), np.random.default_rng(0)
    outputs = outputs_of(*(torch.from_numpy(logits) for logits in rng.normal(size=(2, 50))))
    p, s = probabilities(outputs.ctr), probabilities(outputs.ctcvr)
    o, t, w = given.labels.click, given.labels.click * given.labels.conversion, given.labels.sample_weight
    losses = model.loss(outputs, batch)
    expected = {"ctr": entropy(o, p), "ctcvr": entropy(t, s), "calibrator": 0.3 * np.maximum(s - p, 0)}
    assert (s > p).any()
    assert list(losses.terms) == list(expected)
    for name, rows in expected.items():
        assert losses.terms[name].item() == pytest.approx(np.sum(w * rows) / w.sum(), rel=1e-6), name
    assert losses.diagnostics["ctcvr_above_ctr"].item() == pytest.approx(np.sum(w * (s > p)) / w.sum())
    assert losses.diagnostics["transfer/ctcvr"].item() == pytest.approx(0.5)


def test_the_calibrator_moves_both_heads_where_they_are_out_of_order(spec, exposures):
    model, batch = AITM(spec), to_batch(exposures(2))
    a, b = (torch.tensor(logits, dtype=torch.float64, requires_grad=True) for logits in ((-1.0, 2.0), (1.0, -2.0)))
    model.loss(outputs_of(a, b), batch).terms["calibrator"].backward()
    p, s = torch.sigmoid(a.detach()), torch.sigmoid(b.detach())
    torch.testing.assert_close(a.grad, -0.6 / 2 * p * (1 - p) * torch.tensor([1.0, 0.0]))
    torch.testing.assert_close(b.grad, 0.6 / 2 * s * (1 - s) * torch.tensor([1.0, 0.0]))


def test_a_weight_of_zero_leaves_the_calibrator_out(spec, exposures):
    model, batch = AITM(spec, calibrator=0.0), to_batch(exposures(10))
    assert list(model.loss(model(batch), batch).terms) == ["ctr", "ctcvr"]
    for weight in (-0.1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="weight of the calibrator"):
            AITM(spec, calibrator=weight)


def test_forward_is_the_chain_of_its_parts(spec, exposures):
    torch.manual_seed(0)
    model, batch = AITM(spec, tower=Tower((8, 4), (0.1,))).eval(), to_batch(exposures(30))
    with torch.no_grad():
        for parameter in model.transfer.parameters():
            parameter.normal_()
    v = model.encoder(batch.features)
    clicked, own = model.ctr_tower(v), model.ctcvr_tower(v)
    handed = torch.relu(model.information.steps[0](clicked))
    inputs = torch.stack([handed, own])  # [2, B, H]
    scores = (model.transfer.query(inputs) * model.transfer.key(inputs)).sum(dim=-1) / 4**0.5
    shares = scores.exp() / scores.exp().sum(dim=0)
    z = (shares.unsqueeze(-1) * model.transfer.value(inputs)).sum(dim=0)
    outputs = model(batch)
    torch.testing.assert_close(outputs.ctr.log_p, torch.sigmoid(model.ctr_head(clicked)).log())
    torch.testing.assert_close(outputs.ctcvr.log_p, torch.sigmoid(model.ctcvr_head(z)).log())
    torch.testing.assert_close(outputs.extras["attention/ctcvr"], shares.T)
    p, s = probabilities(outputs.ctr), probabilities(outputs.ctcvr)
    np.testing.assert_allclose(probabilities(outputs.cvr), np.minimum(s / p, 1 - 1e-6), rtol=1e-5)


def test_the_widths_of_the_paper_and_its_dropout(spec):
    model = AITM(spec)
    assert [tuple(linear.weight.shape) for linear in (model.transfer.value, model.transfer.query)] == [(32, 32)] * 2
    assert model.information.steps[0].weight.shape == (32, 32)
    assert model.information.steps[2].p == 0.3
    assert model.transfer.value.bias is None
    assert AITM(spec, attention_bias=True).transfer.value.bias is not None
    assert AITM(spec, information_dropout=0.0).information.steps[2].p == 0.0


def test_what_it_says_of_itself(spec):
    model = AITM(spec)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert model.heads == {"ctr": "head", "cvr": "derived", "ctcvr": "head"}
    assert model.observed == (("ctr", "exposure"), ("ctcvr", "exposure"))
    assert {names[id(p)].split(".")[0] for p in model.shared_parameters()} == {"ctr_tower"}
    assert {names[id(p)] for p in model.regularised_parameters()} == {
        f"transfer.{name}.weight" for name in ("value", "query", "key")
    }
    assert len(list(model.tables())) == 1
