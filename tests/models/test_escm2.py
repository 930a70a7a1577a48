"""ESCM2: its three risks and its towers; parity with ESMM at lambda_c = 0 is in tests/transcription."""

import pytest
import torch

from postclick.models.batching import to_batch
from postclick.models.catalog import build
from postclick.models.escm2 import ESCM2DR, ESCM2IPS, ESCM2DRRisk, ESCM2IPSRisk
from postclick.nn.tower import Tower
from postclick.nn.trunk import MMoETrunk

SYSTEMS = {"escm2-ips": (ESCM2IPS, ESCM2IPSRisk), "escm2-dr": (ESCM2DR, ESCM2DRRisk)}


def terms_of(model, batch):
    return {name: value.item() for name, value in model.loss(model(batch), batch).terms.items()}


@pytest.mark.parametrize("key", SYSTEMS)
def test_risks_are_weighted_by_their_lambdas(key, tiny):
    (system, risk), (spec, exposures) = SYSTEMS[key], tiny
    batch, found = to_batch(exposures), []
    for lambdas in ((0.1, 1.0), (1.0, 1.0), (0.0, 0.5)):
        torch.manual_seed(0)
        found.append(terms_of(system(spec, risk=risk(lambda_c=lambdas[0], lambda_g=lambdas[1])).eval(), batch))
    default, whole, none = found
    torch.manual_seed(0)
    assert terms_of(system(spec).eval(), batch) == default
    assert default["cvr"] == pytest.approx(0.1 * whole["cvr"], rel=1e-6)
    assert none["cvr"] == 0.0
    assert none["ctcvr"] == pytest.approx(0.5 * whole["ctcvr"], rel=1e-6)
    assert default["ctr"] == whole["ctr"] == none["ctr"]
    if key == "escm2-dr":  # the imputation's loss is a part of the counterfactual risk
        assert default["imputation"] == pytest.approx(0.1 * whole["imputation"], rel=1e-6)
        assert none["imputation"] == 0.0


@pytest.mark.parametrize("key", SYSTEMS)
def test_over_experts_a_tower_is_its_logit_unless_it_is_set(key, tiny):
    spec, exposures = tiny
    model = build(key, spec, {})
    assert isinstance(model.network.trunk, MMoETrunk)
    assert not list(model.network.towers["cvr"].parameters())
    shared = build(key, spec, {"trunk": "shared"})
    widths = [layer.out_features for layer in shared.network.towers["cvr"].steps if hasattr(layer, "out_features")]
    assert tuple(widths) == Tower().hidden
    assert list(build(key, spec, {"tower": {"hidden": [5], "dropout": [0.0]}}).network.towers["cvr"].parameters())
    for trunk in ("mmoe", "ple", "shared"):
        each = build(key, spec, {"trunk": trunk, "interaction": "on"})
        batch = to_batch(exposures)
        assert all(torch.isfinite(term) for term in each.loss(each(batch), batch).terms.values())


def test_the_joint_loss_is_the_one_that_stops(tiny):
    model = ESCM2IPS(tiny[0])
    assert model.observed == (("ctr", "exposure"), ("ctcvr", "exposure"))
    assert len(model.shared_parameters()) > 0
