"""DDPO's soft labels and where its two-sided loss settles; what the transfer modules take over."""

import math

import numpy as np
import pytest
import torch

from postclick.losses.probability import LogProbability
from postclick.losses.propensity import exposure_scale
from postclick.models.base import Batch, Outputs
from postclick.models.batching import to_batch
from postclick.models.catalog import build
from postclick.models.ddpo import DDPO, CausalTransfer, DDPORisk
from postclick.nn.tower import Tower


def logit(chance):
    return torch.full((3,), math.log(chance / (1 - chance)), dtype=torch.float64, requires_grad=True)


def expected(spec, risk, p, c, q):
    """L_r's slope at the CVR's logit q in expectation over clicks (p) and conversions (c), with r^c = c."""
    at, ctr = logit(q), LogProbability.from_logit(logit(p))
    cvr = LogProbability.from_logit(at)
    click, conversion = torch.tensor([[0.0, 1.0, 1.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
    weight = torch.tensor([1 - p, p * (1 - c), p * c], dtype=torch.float64)
    outputs = Outputs(ctr, cvr, ctcvr=ctr * cvr, extras={"conversion": logit(c)})
    DDPO(spec, risk=risk).loss(outputs, Batch(None, click, conversion, weight=weight)).terms["cvr"].backward()
    return at.grad.sum().item()


@pytest.mark.parametrize(("p", "c"), [(0.2, 0.1), (0.5, 0.4)])
def test_soft_labels_on_clicked_rows_raise_the_rate(spec, p, c):
    soft = DDPORisk(lambda_r=1.0)
    assert expected(spec, soft, p, c, (3 * c - c**2) / 2) == pytest.approx(0, abs=1e-9)
    assert expected(spec, soft, p, c, c) < -1e-3  # at the truth it pulls up
    observed = DDPORisk(lambda_r=1.0, clicked_label="observed")
    assert expected(spec, observed, p, c, c) == pytest.approx(0, abs=1e-9)


def test_the_label_is_one_on_conversions_and_soft_elsewhere():
    click, conversion = torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.0, 1.0, 0.0, 1.0]])
    soft = torch.tensor([0.1, 0.2, 0.3, 0.4])
    torch.testing.assert_close(DDPORisk().label(click, conversion, soft), torch.tensor([0.1, 0.2, 0.3, 1.0]))
    observed = DDPORisk(clicked_label="observed").label(click, conversion, soft)
    torch.testing.assert_close(observed, torch.tensor([0.1, 0.2, 0.0, 1.0]))


def test_the_papers_weight_is_that_of_its_code(spec):
    scale = exposure_scale(1.0, "normalised-mean", base_ctr=spec.ctr, batch_size=2048)
    assert scale == pytest.approx(1 / 2048)


def test_the_transfer_modules_are_a_mixture_of_what_is_handed_on(spec, exposures):
    torch.manual_seed(0)
    model, batch = (
        DDPO(spec, tower=Tower((5,), (0.0,)), transfer=CausalTransfer(bias=False)).eval(),
        to_batch(exposures(9)),
    )
    v = model.network.encoder(batch.features)
    f = {task: model.network.towers[task](v) for task in ("ctr", "cvr", "conversion")}
    parts = []
    for task in ("ctr", "conversion"):
        attention, e = model.transfer.attention[task], model.transfer.information[task](f[task])
        scores = [(attention.query(u) * attention.key(u)).sum(1) / math.sqrt(5) for u in (e, f["cvr"])]
        share = torch.softmax(torch.stack(scores, 1), 1)
        parts.append(share[:, :1] * attention.value(e) + share[:, 1:] * attention.value(f["cvr"]))
        outputs = model(batch)
        torch.testing.assert_close(outputs.extras[f"attention/{task}"], share)
        found = model.loss(outputs, batch).diagnostics[f"transfer/{task}"].item()
        assert found == pytest.approx(share[:, 0].mean().item(), rel=1e-5)
    fused = torch.relu(model.transfer.fuse.steps[0](torch.cat(parts, 1)))
    expected = LogProbability.from_logit(model.network.heads["cvr"](fused))
    torch.testing.assert_close(model(batch).cvr.log_p, expected.log_p)
    plain = LogProbability.from_logit(model.network.heads["ctr"](f["ctr"]))
    torch.testing.assert_close(model(batch).ctr.log_p, plain.log_p)  # the click's head reads its own tower


def test_without_modules_there_is_nothing_of_them(spec, exposures):
    model, batch = DDPO(spec, transfer=None), to_batch(exposures(9))
    outputs = model(batch)
    assert set(outputs.extras) == {"conversion"}
    assert not any(name.startswith("transfer") for name, _ in model.named_parameters())
    assert not any(name.startswith("transfer") for name in model.loss(outputs, batch).diagnostics)
    with pytest.raises(ValueError, match="trunk 'mf' has no towers for the transfer modules: set transfer = off"):
        DDPO(spec, trunk="mf")


def test_wrong_weights_are_refused():
    for name in ("lambda_o", "lambda_c", "lambda_r", "lambda_t"):
        for wrong in (-1.0, np.inf):
            with pytest.raises(ValueError, match="are at least 0"):
                DDPORisk(**{name: wrong})


def test_components_are_set_by_name(spec):
    given = {"transfer": "off", "risk": {"lambda_r": 0.5, "clicked_label": "observed", "cap": 20.0}}
    model = build("ddpo", spec, given)
    assert model.transfer is None
    assert model.risk == DDPORisk(cap=20.0, lambda_r=0.5, clicked_label="observed")
    assert model.risk.self_normalise
