"""ESMM's loss against plain float64, and the gradient facts of its docstring."""

import numpy as np
import pytest
import torch

from postclick.losses.probability import LogProbability
from postclick.models.base import Batch, Outputs
from postclick.models.batching import to_batch
from postclick.models.esmm import ESMM
from postclick.nn.embedding import FeatureEncoder
from postclick.nn.tower import Head, Perceptron, Tower


def outputs_of(ctr_logit, cvr_logit):
    ctr, cvr = LogProbability.from_logit(ctr_logit), LogProbability.from_logit(cvr_logit)
    return Outputs(ctr, cvr, ctcvr=ctr * cvr)


def test_loss_equals_plain_float64(spec, exposures):
    torch.manual_seed(0)
    model, given = ESMM(spec).eval(), exposures(50, sample_weight=np.linspace(0, 2, 50))
    batch = to_batch(given)
    outputs = model(batch)
    p, q = (np.exp(head.log_p.detach().double().numpy()) for head in (outputs.ctr, outputs.cvr))
    o, t, w = given.labels.click, given.labels.click * given.labels.conversion, given.labels.sample_weight

    def entropy(label, f):
        return -(label * np.log(f) + (1 - label) * np.log(1 - f))

    terms = model.loss(outputs, batch).terms
    assert list(terms) == ["ctr", "ctcvr"]
    assert terms["ctr"].item() == pytest.approx(np.sum(w * entropy(o, p)) / w.sum(), rel=1e-5)
    assert terms["ctcvr"].item() == pytest.approx(np.sum(w * entropy(t, p * q)) / w.sum(), rel=1e-5)


@pytest.mark.parametrize(("click", "conversion"), [(0, 0), (1, 0), (1, 1)])
def test_gradient_at_the_cvr_logit(spec, exposures, click, conversion):
    a, b = (
        torch.tensor(grid, dtype=torch.float64, requires_grad=True)
        for grid in np.random.default_rng(0).normal(size=(2, 30)) * 3
    )
    full = torch.ones(30, dtype=torch.float64)
    batch = Batch(to_batch(exposures(30)).features, full * click, full * conversion)
    sum(ESMM(spec).loss(outputs_of(a, b), batch).terms.values()).backward()
    p, q = torch.sigmoid(a.detach()), torch.sigmoid(b.detach())
    t = p * q
    expected = -(1 - q) if conversion else t * (1 - q) / (1 - t)
    torch.testing.assert_close(30 * b.grad, expected)
    if not conversion:
        assert torch.all(b.grad > 0)  # every row without conversion pushes the CVR down, clicked or not
    ctr_part = p - click + (-(1 - p) if conversion else t * (1 - p) / (1 - t))
    torch.testing.assert_close(30 * a.grad, ctr_part)


def test_the_towers_share_one_table_or_have_two(spec):
    assert len(list(ESMM(spec).tables())) == 1
    separate = ESMM(spec, shared_embedding=False)
    assert len(list(separate.tables())) == 2
    assert [name for name, _ in separate.named_parameters() if name.endswith("table.weight")] == [
        "network.encoder.table.weight",
        "network.own_encoders.0.table.weight",
    ]


def test_the_papers_trunk_is_two_towers_on_one_embedding(spec, exposures):
    torch.manual_seed(3)
    model, batch = ESMM(spec).eval(), to_batch(exposures(20))
    torch.manual_seed(3)
    encoder = FeatureEncoder(spec.schema, spec.table_rows, 8)
    for head, rate in ((model(batch).ctr, spec.ctr), (model(batch).cvr, spec.cvr)):
        tower = Perceptron(encoder.width, Tower()).eval()
        logit = Head(tower.width, rate)(tower(encoder(batch.features)))
        assert torch.equal(head.log_p, LogProbability.from_logit(logit).log_p)
    assert model.shared_parameters() == ()
    assert model.loss(model(batch), batch).diagnostics == {}


@pytest.mark.parametrize("trunk", ["mmoe", "ple"])
def test_experts_may_stand_under_the_product(spec, exposures, trunk):
    model, batch = ESMM(spec, trunk=trunk), to_batch(exposures(20))
    outputs = model(batch)
    assert set(outputs.extras) == {"gate/ctr", "gate/cvr"}
    losses = model.loss(outputs, batch)
    assert list(losses.terms) == ["ctr", "ctcvr"]
    assert set(losses.diagnostics) == {
        f"gate_{what}/{head}" for what in ("entropy", "largest") for head in ("ctr", "cvr")
    }
    assert {id(p) for p in model.shared_parameters()} == {id(p) for p in model.network.trunk.parameters()}


def test_experts_read_one_table(spec):
    with pytest.raises(ValueError, match="experts read one table"):
        ESMM(spec, trunk="mmoe", shared_embedding=False)
