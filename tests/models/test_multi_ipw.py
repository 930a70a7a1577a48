"""Multi-IPW and Multi-DR: what they are built of, what they log, and what alternating does."""

import numpy as np
import pytest
import torch

from postclick.models.batching import to_batch
from postclick.models.catalog import build
from postclick.models.multi_ipw import MultiDR, MultiDRRisk, MultiIPW
from postclick.nn.trunk import MMoETrunk, PLETrunk, SharedTrunk

WATCHED = {"effective_sample_size", "effective_share", "clipped_mass", "largest_weight"}


def names(model):
    return {name.split(".")[2] for name, _ in model.named_parameters() if ".heads." in name}


def test_a_third_tower_is_there_where_something_is_imputed(tiny):
    spec, _ = tiny
    assert names(MultiIPW(spec)) == {"ctr", "cvr"}
    assert names(MultiDR(spec)) == {"ctr", "cvr", "imputation"}
    assert names(MultiDR(spec, imputation="error")) == {"ctr", "cvr", "imputation"}
    assert names(MultiDR(spec, imputation="constant")) == {"ctr", "cvr"}


@pytest.mark.parametrize("key", ["multi-ipw", "multi-dr"])
def test_any_trunk_carries_the_towers(key, tiny):
    spec, exposures = tiny
    for trunk, kind in (("shared", SharedTrunk), ("mmoe", MMoETrunk), ("ple", PLETrunk)):
        model = build(key, spec, {"trunk": trunk, "interaction": "on"})
        assert isinstance(model.network.trunk, kind)
        batch = to_batch(exposures)
        losses = model.loss(model(batch), batch)
        assert all(torch.isfinite(term) for term in losses.terms.values())
        expected = WATCHED | ({"share_outside"} if key == "multi-dr" else set())
        assert expected <= set(losses.diagnostics)
        assert any(name.startswith("gate_entropy/") for name in losses.diagnostics) == (trunk != "shared")


def test_the_heads_start_at_the_base_rates(tiny):
    spec, exposures = tiny
    for imputation, start in (("label", spec.cvr), ("error", None)):
        torch.manual_seed(0)
        model = MultiDR(spec, imputation=imputation).eval()
        outputs = model(to_batch(exposures))
        assert float(outputs.cvr.log_p.exp().median().detach()) == pytest.approx(spec.cvr, rel=0.25)
        logit = outputs.extras["imputation"].detach()
        if start is not None:
            assert float(torch.sigmoid(logit).median()) == pytest.approx(start, rel=0.25)
        else:
            entropy = -spec.cvr * np.log(spec.cvr) - (1 - spec.cvr) * np.log(1 - spec.cvr)
            assert float(torch.nn.functional.softplus(logit).median()) == pytest.approx(entropy, rel=0.25)


def test_weights_of_the_terms_multiply_them(tiny):
    spec, exposures = tiny
    batch, terms = to_batch(exposures), []
    for risk in (MultiDRRisk(), MultiDRRisk(lambda_c=0.5, imputation_weight=3.0)):
        torch.manual_seed(0)
        model = MultiDR(spec, risk=risk).eval()
        terms.append({name: value.item() for name, value in model.loss(model(batch), batch).terms.items()})
    plain, weighted = terms
    assert weighted["ctr"] == plain["ctr"]
    assert weighted["cvr"] == pytest.approx(0.5 * plain["cvr"], rel=1e-6)
    assert weighted["imputation"] == pytest.approx(3.0 * plain["imputation"], rel=1e-6)


def test_without_a_click_multi_ipw_has_no_conversion_loss_and_multi_dr_has_the_imputed_one(tiny):
    spec, exposures = tiny
    batch = to_batch(exposures.take(np.flatnonzero(exposures.labels.click == 0)))
    model = MultiIPW(spec)
    losses = model.loss(model(batch), batch)
    assert losses.terms["cvr"].item() == 0.0
    assert float(losses.diagnostics["effective_sample_size"]) == 0.0
    robust = MultiDR(spec)
    losses = robust.loss(robust(batch), batch)
    assert losses.terms["cvr"].item() > 0.0
    assert losses.terms["imputation"].item() == 0.0
    assert float(losses.diagnostics["share_outside"]) == 0.0
