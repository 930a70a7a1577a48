"""DFM: clicks count by their age, closed windows as in any system, and a log without the times it needs is refused."""

import dataclasses

import numpy as np
import pytest
import torch

from postclick.models.batching import to_batch
from postclick.models.catalog import build
from postclick.models.dfm import DFM
from postclick.schema import Columns

DAY = 86_400_000_000
MISSING = np.iinfo(np.int64).min
COLUMNS = Columns(
    click_time="clicked",
    conversion_time="bought",
    observed_until="until",
    attribution_window=4 * 86_400.0,
    immature="censor",
)


@pytest.fixture
def timed(tiny):
    """The tiny log, its clicks 1, 2, ... 24 days before the end; bought half a day after the click, seen if by then."""
    spec, exposures = tiny
    labels = exposures.labels
    age = np.arange(1, 25)
    labels = dataclasses.replace(
        labels,
        immature=(age < 4).astype(np.int8),
        click_time=-age * DAY,
        conversion_time=np.where(labels.conversion == 1, -age * DAY + DAY // 2, MISSING),
        observed_until=np.zeros(24, np.int64),
    )
    schema = dataclasses.replace(spec.schema, columns=COLUMNS)
    return dataclasses.replace(spec, schema=schema, days=24.0), dataclasses.replace(exposures, labels=labels)


def slopes(model, exposures):
    """dL/dlogit(q) row by row, of the term cvr."""
    batch = to_batch(exposures)
    outputs = model(batch)
    logit = torch.zeros(len(batch), requires_grad=True)
    cvr = type(outputs.cvr).from_logit(logit)
    model.loss(dataclasses.replace(outputs, cvr=cvr), batch).terms["cvr"].backward()
    return logit.grad.numpy(), batch


def test_an_unconverted_click_counts_by_its_age(timed):
    spec, exposures = timed
    grad, batch = slopes(DFM(spec).eval(), exposures)
    weight = batch.click_weight.numpy()
    negative = (exposures.labels.click == 1) & (exposures.labels.conversion == 0)
    share = grad / weight * weight.sum()
    assert (share[(exposures.labels.click == 0)] == 0).all()
    np.testing.assert_allclose(share[negative & (np.arange(24) >= 3)], 0.5, rtol=1e-5)
    young = share[negative & (np.arange(24) < 3)]
    assert len(young)
    assert ((young > 0) & (young < 0.45)).all()


def test_closed_windows_and_no_times_give_the_loss_on_clicks(timed):
    spec, exposures = timed
    torch.manual_seed(0)
    model = DFM(spec).eval()
    labels = dataclasses.replace(exposures.labels, click_time=exposures.labels.click_time - 10 * DAY)
    negatives = dataclasses.replace(exposures, labels=dataclasses.replace(labels, conversion=0 * labels.conversion))
    plain = dataclasses.replace(negatives, labels=dataclasses.replace(negatives.labels, immature=None))
    (closed, without), found = (slopes(model, each)[0] for each in (negatives, plain)), model(to_batch(plain))
    np.testing.assert_allclose(closed, without, rtol=1e-6)
    assert model.loss(found, to_batch(plain)).diagnostics == {}
    told = model.loss(found, to_batch(exposures)).diagnostics["arrived"]
    assert 0.5 < float(told) < 1.0


def test_young_clicks_leave_other_systems_but_for_their_click(timed):
    spec, exposures = timed
    for key in ("mlp", "esmm", "multi-ipw"):
        torch.manual_seed(0)
        model = build(key, spec, {}).eval()
        batch, old = to_batch(exposures), to_batch(exposures.take(np.arange(3, 24)))
        terms, kept = (model.loss(model(each), each).terms for each in (batch, old))
        whole = dataclasses.replace(exposures, labels=dataclasses.replace(exposures.labels, immature=None))
        assert terms["ctr"].item() == pytest.approx(model.loss(model(batch), to_batch(whole)).terms["ctr"].item())
        assert terms["ctr"].item() != pytest.approx(kept["ctr"].item())
        for name in set(terms) - {"ctr"}:
            assert terms[name].item() == pytest.approx(kept[name].item(), rel=1e-5)


def test_a_log_that_does_not_say_when_conversions_came_is_refused(spec):
    columns = dataclasses.replace(COLUMNS, conversion_time=None)
    with pytest.raises(ValueError, match="needs the time of a conversion"):
        DFM(dataclasses.replace(spec, schema=dataclasses.replace(spec.schema, columns=columns)))
