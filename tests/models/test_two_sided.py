"""Weights of both sides against a plain loop, and in expectation over clicks."""

import dataclasses

import numpy as np
import pytest
import torch

from postclick.errors import ConfigError, DataError
from postclick.losses.probability import LogProbability
from postclick.models.base import Batch
from postclick.models.batching import to_batch
from postclick.models.catalog import build
from postclick.models.two_sided import TwoSidedRisk

KEYS = ("dcmt", "ddpo", "chorus")
LOGITS = np.random.default_rng(1).normal(-1, 3, 40)
CHANCES = 1 / (1 + np.exp(-LOGITS))


def plain(click, chance, base, risk):
    found = [0.0 if not o else 1 / max(p, risk.propensity_floor * base) for o, p in zip(click, chance, strict=True)]
    return np.minimum(found, risk.cap or np.inf)


@pytest.mark.parametrize("kind", ["head", "logged"])
@pytest.mark.parametrize("risk", [TwoSidedRisk(), TwoSidedRisk(0.5), TwoSidedRisk(0.0), TwoSidedRisk(cap=3.0)])
def test_each_side_is_weighted_by_its_own_chance(exposures, kind, risk):
    batch, logits = to_batch(exposures(40)), torch.tensor(LOGITS)
    click, base = batch.click.double(), 0.25
    propensity = LogProbability.from_logit(logits) if kind == "head" else torch.sigmoid(logits)
    found = risk.both_sides(click, propensity, base, batch)
    o = click.numpy()
    np.testing.assert_allclose(found.clicked, plain(o, CHANCES, base, risk), rtol=1e-9)
    np.testing.assert_allclose(found.unclicked, plain(1 - o, 1 - CHANCES, 1 - base, risk), rtol=1e-9)


def test_either_side_stands_for_all_exposures():
    """Over clicks drawn with p, E[w1] = E[w0] = 1 on every row: p / p and (1 - p) / (1 - p)."""
    chance, click = torch.tensor([0.1, 0.5, 0.9]).double(), torch.ones(3).double()
    risk, batch = TwoSidedRisk(0.0), Batch(None)
    clicked = risk.both_sides(click, chance, 0.5, batch).clicked
    unclicked = risk.both_sides(0 * click, chance, 0.5, batch).unclicked
    torch.testing.assert_close(chance * clicked, click)
    torch.testing.assert_close((1 - chance) * unclicked, click)


def test_diagnostics_tell_the_sides_apart(exposures):
    batch = to_batch(exposures(40))
    found = TwoSidedRisk().both_sides(batch.click, torch.full((40,), 0.25), 0.25, batch).diagnostics
    names = {"effective_sample_size", "effective_share", "clipped_mass", "largest_weight"}
    assert set(found) == names | {f"{name}/unclicked" for name in names}
    clicks = batch.click.sum().item()
    assert found["effective_sample_size"].item() == pytest.approx(clicks, rel=1e-5)
    assert found["effective_sample_size/unclicked"].item() == pytest.approx(40 - clicks, rel=1e-5)
    assert found["largest_weight"].item() == pytest.approx(4)
    assert found["largest_weight/unclicked"].item() == pytest.approx(4 / 3)


@pytest.mark.parametrize("key", KEYS)
def test_each_system_takes_logged_propensities(key, spec, exposures):
    columns = dataclasses.replace(spec.schema.columns, propensity="p")
    logged = dataclasses.replace(spec, schema=dataclasses.replace(spec.schema, columns=columns))
    model = build(key, logged, {"propensity": "logged"}).eval()
    batch = to_batch(exposures(30))
    with pytest.raises(DataError, match="a loss needs logged propensities"):
        model.loss(model(batch), batch)
    chance = torch.linspace(0.2, 0.9, 30)
    known = dataclasses.replace(batch, propensity=chance)
    found = model.loss(model(known), known).diagnostics
    assert found["largest_weight"].item() == pytest.approx((1 / chance[batch.click == 1]).max().item())
    rest = 1 / (1 - chance[batch.click == 0])
    assert found["largest_weight/unclicked"].item() == pytest.approx(rest.max().item(), rel=1e-5)
    with pytest.raises(ConfigError, match="needs the log's propensities"):
        build(key, spec, {"propensity": "logged"})


@pytest.mark.parametrize("key", [*KEYS, "nise"])
@pytest.mark.parametrize("trunk", ["shared", "mmoe", "ple", "mf", "ncf"])
def test_each_system_stands_on_every_trunk(key, trunk, toy_pairs):
    spec, batch = toy_pairs
    off = {"transfer": None} if (key, trunk) == ("ddpo", "mf") else {}
    torch.manual_seed(0)
    model = build(key, spec, {"trunk": trunk, **off})
    outputs = model(batch)
    losses = model.loss(outputs, batch)
    sum(losses.terms.values()).backward()
    assert all(p.grad is not None for p in model.parameters())
    gates = {name for name in outputs.extras if name.startswith("gate/")}
    assert bool(gates) == (trunk in ("mmoe", "ple"))
    assert {f"gate_entropy/{name.removeprefix('gate/')}" for name in gates} <= set(losses.diagnostics)


@pytest.fixture
def toy_pairs(tiny):
    """`tiny` with a user and an item that the trunks mf and ncf can tell."""
    spec, given = tiny
    columns = dataclasses.replace(spec.schema.columns, user_id="user", item_id="item")
    return dataclasses.replace(spec, schema=dataclasses.replace(spec.schema, columns=columns)), to_batch(given)
