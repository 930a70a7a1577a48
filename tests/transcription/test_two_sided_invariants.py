"""Invariants 6, 7, 12 and 13 of SYSTEMS, section 15, of dcmt, ddpo, nise and chorus."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from postclick.losses.reduce import mean_over_exposures
from postclick.models.base import Losses

BASE_CTR = 0.3
"""That of harness.SPEC."""
WEIGHTED = {
    "dcmt": ("cvr", "counterfactual"),
    "ddpo": ("cvr",),
    "chorus": ("cvr", "uncvr", "align"),
}


def slopes(model, given, names, prefixes):
    """Return the sizes of the gradients of the sum of some terms at the parameters under some prefixes."""
    model.zero_grad()
    terms = model.loss(model(given.batch), given.batch).terms
    sum(terms[name] for name in names).backward()
    named = [(name, p) for name, p in model.named_parameters() if name.startswith(prefixes)]
    assert named
    return [0.0 if p.grad is None else p.grad.abs().max().item() for _, p in named]


@pytest.mark.parametrize("key", WEIGHTED)
def test_weighted_terms_leave_the_tower_of_the_click_alone(harness, key):
    """Invariant 6: exactly 0 with detached weights, and not without."""
    arguments, click = ({"transfer": None} if key == "ddpo" else {}), ("network.towers.ctr", "network.heads.ctr")
    model, given = harness.system(key, arguments, 1), harness.instance(harness.EVERY_KIND)
    assert max(slopes(model, given, WEIGHTED[key], click)) == 0.0
    model.risk = replace(model.risk, detach_propensity=False)
    assert max(slopes(model, given, WEIGHTED[key], click)) > 1e-6


@pytest.mark.parametrize("floor", [0.05, 0.5, 1.0])
def test_the_largest_weight_is_one_over_the_floor(harness, floor):
    """Invariant 7, on either side, for a CTR head that says 0 and one that says 1."""
    model = harness.system("chorus", {"risk": {"propensity_floor": floor}}, 1)
    given = harness.instance(harness.EVERY_KIND)
    for logit, name, base in ((-40.0, "largest_weight", BASE_CTR), (40.0, "largest_weight/unclicked", 1 - BASE_CTR)):
        with torch.no_grad():
            model.network.heads["ctr"].linear.weight.zero_()
            model.network.heads["ctr"].linear.bias.fill_(logit)
        found = model.loss(model(given.batch), given.batch).diagnostics
        assert found[name].item() == pytest.approx(1 / (floor * base), rel=1e-12)


@pytest.mark.parametrize("weighted", [True, False])
def test_self_normalised_sides_sum_to_the_rows(harness, weighted):
    """Invariant 7: each side's weights sum to |D| (to the sum of the sample weights)."""
    model, given = harness.system("dcmt", {}, 2), harness.instance(harness.EVERY_KIND, weighted=weighted)
    weights = model.risk.both_sides(given.batch.click, model(given.batch).ctr, BASE_CTR, given.batch)
    s = torch.tensor(given.y["weight"])
    for side, rows in ((given.batch.click, weights.clicked), (1 - given.batch.click, weights.unclicked)):
        assert (s * rows).sum().item() == pytest.approx(s.sum().item())
        assert torch.all((rows > 0) == (side > 0))


def stopped_label(model, outputs, batch):
    """NISE's CVR loss with its pseudo-label detached; omega is 1."""
    soft = batch.click * batch.conversion + (1 - batch.click) * outputs.cvr.log_p.exp().detach()
    return Losses({"cvr": mean_over_exposures(outputs.cvr.cross_entropy(soft), batch.weight)})


def test_a_stopped_label_leaves_unclicked_rows_without_a_slope(harness):
    """Invariant 12: NISE on rows without a click."""
    model, given = harness.system("nise", {}, 3), harness.instance(3, click_rate=0.0)
    cvr = ("network.towers.cvr", "network.heads.cvr")
    assert max(slopes(model, given, ("cvr",), cvr)) > 1e-4
    harness.twin(model, loss=stopped_label)
    assert max(slopes(model, given, ("cvr",), cvr)) < 1e-15


@pytest.mark.parametrize("key", ["dcmt", "ddpo", "nise", "chorus"])
@pytest.mark.parametrize("labels", [(0.0, 0.0), (1.0, 0.0), (1.0, 1.0)])
def test_batches_of_one_class_at_sure_heads_are_finite(harness, key, labels):
    """Invariant 13, with heads at +-80 and +-10^4."""
    model, given = harness.system(key, {}, 4), harness.instance(4)
    click, conversion = (torch.full((harness.ROWS,), label, dtype=torch.float64) for label in labels)
    batch = replace(given.batch, click=click, conversion=conversion)
    for logit in (-1e4, -80.0, 80.0, 1e4):
        with torch.no_grad():
            for head in model.network.heads.values():
                head.linear.bias.fill_(logit)
        model.zero_grad()
        losses = model.loss(model(batch), batch)
        sum(losses.terms.values()).backward()
        numbers = [*losses.terms.values(), *losses.diagnostics.values()]
        assert all(torch.isfinite(number) for number in numbers)
        assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
