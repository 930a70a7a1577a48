"""Invariants 1, 5, 6 and 7 of SYSTEMS.md section 15 on the systems that weigh clicks, and who moves what and when."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from postclick.losses.probability import LogProbability
from postclick.models.base import Batch, Outputs, Phase
from postclick.models.catalog import build
from postclick.nn.features import Features
from postclick.training.config import TrainingConfig
from postclick.training.optimisers import phase_optimisers
from postclick.training.step import TrainingStep

EXPERTS = {"experts": {"hidden": [3], "dropout": [0.0], "count": 3}}
WEIGHTED = {
    "multi-ipw": {},
    "multi-dr": {},
    "multi-dr-error": {"imputation": "error"},
    "escm2-ips": EXPERTS,
    "escm2-dr": EXPERTS,
    "dr-jl": {},
    "mrdr": {},
}

ROBUST = ["multi-dr", "escm2-dr", "dr-jl", "mrdr"]


def key_of(name):
    return name.removesuffix("-error")


# --- 1: no counterfactual risk is ESMM -------------------------------------------------------------------------------


@pytest.mark.parametrize("trunk", ["shared", "mmoe", "ple"])
@pytest.mark.parametrize("name", ["escm2-ips", "escm2-dr"])
def test_without_the_counterfactual_risk_escm2_is_esmm_bit_for_bit(harness, name, trunk):
    arguments = {"trunk": trunk} | ({} if trunk == "shared" else {"experts": {"hidden": [3], "dropout": [0.0]}})
    model = harness.system(name, {**arguments, "risk": {"lambda_c": 0.0}}, 0)
    esmm = harness.system("esmm", arguments, 1)
    if name == "escm2-ips" or trunk != "ple":
        esmm.load_state_dict({key: model.state_dict()[key] for key in esmm.state_dict()})
    else:  # a third task widens the shared gate of the first level, so a PLE of two tasks is another network
        esmm.network = model.network
    given = harness.instance(harness.EVERY_KIND).batch
    assert_equal_bits(model, esmm, given)


def assert_equal_bits(model, esmm, given):
    losses, gradients = [], []
    for system in (model, esmm):
        system.zero_grad()
        total = sum(system.loss(system(given), given).terms.values())
        total.backward()
        losses.append(total)
        gradients.append({n: p.grad.clone() for n, p in system.named_parameters() if p.grad is not None})
        outputs = system(given)
        assert torch.equal(outputs.ctcvr.log_p, outputs.ctr.log_p + outputs.cvr.log_p)
    assert torch.equal(*losses)
    assert all(torch.equal(gradients[0][name], gradients[1][name]) for name in gradients[1])
    others = set(gradients[0]) - set(gradients[1])
    assert all(not gradients[0][name].any() for name in others)


def test_with_it_escm2_is_not_esmm(harness):
    model, esmm = harness.system("escm2-ips", {"trunk": "shared"}, 0), harness.system("esmm", {}, 0)
    with pytest.raises(AssertionError):
        assert_equal_bits(model, esmm, harness.instance(harness.EVERY_KIND).batch)


# --- 5: unbiased with known propensities -----------------------------------------------------------------------------

ROWS, COPIES, CHUNKS = 250, 50, 40  # 2,000 replicates in chunks of 50


def logged_spec(harness):
    schema = harness.SPEC.schema
    columns = dataclasses.replace(schema.columns, propensity="propensity")
    return dataclasses.replace(harness.SPEC, schema=dataclasses.replace(schema, columns=columns))


def no_features(rows):
    return Features(torch.zeros(rows, 0, dtype=torch.int32), torch.zeros(rows, 0), torch.zeros(rows, 0), ())


def pair(p):
    return LogProbability(torch.log(p), torch.log1p(-p))


@dataclasses.dataclass(frozen=True)
class Population:
    """Exposures whose click, conversion and predictions are known: all confounders are in the row."""

    p: torch.Tensor
    q: torch.Tensor
    predicted: torch.Tensor
    wrong_p: torch.Tensor
    wrong_label: torch.Tensor

    @classmethod
    def draw(cls):
        rng = np.random.default_rng(7)
        x = rng.normal(size=(5, ROWS))
        p = 1 / (1 + np.exp(-(x[0] - 0.8)))
        q = 1 / (1 + np.exp(-(x[0] + 0.5 * x[1] - 0.5)))  # clicks and conversions go together
        predicted = 1 / (1 + np.exp(-(0.5 * x[0] + x[2] - 0.2)))
        wrong_p, label = np.clip(p * 1.6, 0, 0.99), 1 / (1 + np.exp(-(x[3] + 0.8)))
        return cls(*(torch.tensor(values) for values in (np.clip(p, 0.03, 1), q, predicted, wrong_p, label)))

    @property
    def ideal(self):
        """The expected risk if every exposure were clicked."""
        cvr = pair(self.predicted)
        ones = torch.ones(ROWS, dtype=torch.float64)
        return float((self.q * cvr.cross_entropy(ones) + (1 - self.q) * cvr.cross_entropy(0 * ones)).mean())


def risks(harness, name, arguments, propensity, label):
    """The system's weighted term in chunks of replicates that redraw clicks and conversions."""
    world = Population.draw()
    free = {"reach": None} if key_of(name) in ROBUST else {}
    more = {"risk": {"propensity_floor": 0.0, **free, **arguments.pop("risk", {})}, "propensity": "logged"}
    model = build(key_of(name), logged_spec(harness), {**arguments, **more})
    scale = getattr(model.risk, "lambda_c", 1.0)
    rng = np.random.default_rng(11)
    rows = ROWS * COPIES
    ctr, cvr = (pair(values.repeat(COPIES)) for values in (world.p, world.predicted))
    imputed = label.repeat(COPIES)
    outputs = Outputs(ctr, cvr, ctr * cvr, extras={"imputation": torch.log(imputed) - torch.log1p(-imputed)})
    found = []
    for _ in range(CHUNKS):
        click = torch.tensor(rng.random(rows)) < world.p.repeat(COPIES)
        bought = click & (torch.tensor(rng.random(rows)) < world.q.repeat(COPIES))
        batch = Batch(no_features(rows), click.double(), bought.double(), propensity=propensity.repeat(COPIES))
        found.append(float(model.loss(outputs, batch).terms["cvr"]) / scale)
    return np.array(found), world.ideal


def off_by(found, ideal):
    """Distance in standard errors."""
    return abs(found.mean() - ideal) / (found.std(ddof=1) / np.sqrt(len(found)))


@pytest.mark.parametrize("name", WEIGHTED)
def test_with_the_right_propensity_the_risk_is_the_ideal_one(harness, name):
    world = Population.draw()
    found, ideal = risks(harness, name, dict(WEIGHTED[name]), world.p, world.wrong_label)
    assert off_by(found, ideal) < 3


@pytest.mark.parametrize("name", ROBUST)
def test_with_the_right_label_the_robust_risk_is_the_ideal_one(harness, name):
    world = Population.draw()
    found, ideal = risks(harness, name, dict(WEIGHTED[name]), world.wrong_p, world.q)
    assert off_by(found, ideal) < 3
    found, ideal = risks(harness, name, dict(WEIGHTED[name]), world.wrong_p, world.wrong_label)
    assert off_by(found, ideal) > 10


def test_without_weights_or_with_a_wrong_propensity_the_risk_is_not_the_ideal_one(harness):
    world = Population.draw()
    for name in ("multi-ipw", "escm2-ips", "multi-dr-error"):
        found, ideal = risks(harness, name, dict(WEIGHTED[name]), world.wrong_p, world.wrong_label)
        assert off_by(found, ideal) > 10
    constant = torch.full_like(world.p, float(world.p.mean()))
    assert off_by(*risks(harness, "multi-ipw", {}, constant, world.q)) > 10


def test_an_informative_label_lowers_the_variance_and_a_floor_biases(harness):
    world = Population.draw()
    ips, ideal = risks(harness, "multi-ipw", {}, world.p, world.q)
    robust, _ = risks(harness, "multi-dr", {}, world.p, world.q)
    assert robust.var(ddof=1) < 0.8 * ips.var(ddof=1)
    floored, _ = risks(harness, "multi-ipw", {"risk": {"propensity_floor": 1.0}}, world.p, world.q)
    assert off_by(floored, ideal) > 10


# --- 6: the weighted loss and the click ------------------------------------------------------------------------------


def click_gradients(harness, name, **risk):
    model = harness.system(key_of(name), {**WEIGHTED[name], "risk": risk}, 3)
    given = harness.instance(harness.EVERY_KIND).batch
    terms = model.loss(model(given), given).terms
    total = terms["cvr"] + terms.get("imputation", 0.0)
    total.backward()
    own = ("network.towers.ctr.", "network.heads.ctr.", "network.trunk.gates.0.", "ctr_network.")
    grads = [p.grad for name, p in model.named_parameters() if name.startswith(own) and p.grad is not None]
    return sum(float(grad.abs().sum()) for grad in grads)


@pytest.mark.parametrize("name", WEIGHTED)
def test_the_weighted_loss_has_no_gradient_in_the_click_tower(harness, name):
    assert click_gradients(harness, name) == 0.0
    assert click_gradients(harness, name, detach_propensity=False) > 1e-4


def test_left_in_the_weighted_loss_the_propensity_rises_on_clicks(harness):
    """Why the gradient is stopped: d/dp of o e / p is -o e / p^2."""
    model = harness.system("multi-ipw", {"risk": {"detach_propensity": False}}, 3)
    logit = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    ctr, cvr = LogProbability.from_logit(logit), pair(torch.tensor([0.3, 0.3], dtype=torch.float64))
    click = torch.tensor([1.0, 0.0], dtype=torch.float64)
    model.loss(Outputs(ctr, cvr, ctr * cvr), Batch(no_features(2), click, click)).terms["cvr"].backward()
    assert logit.grad[0] < 0
    assert logit.grad[1] == 0


def test_an_imputed_error_gives_the_cvr_exactly_the_gradient_of_ips(harness):
    robust = harness.system("multi-dr", {"imputation": "error"}, 0)
    ips = harness.system("multi-ipw", {}, 1)
    ips.load_state_dict({key: robust.state_dict()[key] for key in ips.state_dict()})
    given = harness.instance(harness.EVERY_KIND).batch
    gradients = []
    for model in (robust, ips):
        model.loss(model(given), given).terms["cvr"].backward()
        gradients.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    assert gradients[1].keys() == gradients[0].keys()
    for name, expected in gradients[1].items():
        torch.testing.assert_close(gradients[0][name], expected, rtol=1e-12, atol=1e-15)
    label = harness.system("multi-dr", {}, 0)
    label.load_state_dict(robust.state_dict())
    label.loss(label(given), given).terms["cvr"].backward()
    found = label.network.towers["cvr"].steps[0].weight.grad
    assert not torch.allclose(found, gradients[1]["network.towers.cvr.steps.0.weight"], rtol=1e-3)


# --- 7: floor, cap, self-normalisation -------------------------------------------------------------------------------


def spread(rows=400):
    """Outputs and a batch whose propensities lie on both sides of every bound."""
    rng = np.random.default_rng(2)
    ctr, cvr = (pair(torch.tensor(rng.uniform(0.01, 0.99, rows))) for _ in range(2))
    click, bought = (torch.tensor((rng.random(rows) < 0.5).astype(float)) for _ in range(2))
    imputed = torch.tensor(rng.normal(size=rows))
    batch = Batch(no_features(rows), click, click * bought, weight=torch.tensor(rng.random(rows)))
    return Outputs(ctr, cvr, ctr * cvr, extras={"imputation": imputed}), batch


@pytest.mark.parametrize("name", WEIGHTED)
def test_the_largest_weight_is_one_over_the_floor_and_no_more_than_the_cap(harness, name):
    outputs, batch = spread()
    for risk, largest in (({"propensity_floor": 1.0}, 1 / 0.3), ({"propensity_floor": 0.0, "cap": 1.5}, 1.5)):
        model = harness.system(key_of(name), {**WEIGHTED[name], "risk": risk}, 3)
        found = {key: float(value) for key, value in model.loss(outputs, batch).diagnostics.items()}
        assert found["largest_weight"] == pytest.approx(largest, rel=1e-12)
        assert 0 < found["clipped_mass"] < 1
        assert 0 < found["effective_share"] <= 1
        assert found["effective_sample_size"] <= float(batch.click.sum()) + 1e-9
        assert ("share_outside" in found) == (name in ROBUST)
        if name in ROBUST:
            assert 0 < found["share_outside"] <= 1


@pytest.mark.parametrize("name", WEIGHTED)
def test_self_normalised_weights_sum_to_the_rows(harness, name):
    outputs, batch = spread()
    terms = {}
    for snips in (True, False):
        model = harness.system(key_of(name), {**WEIGHTED[name], "risk": {"self_normalise": snips}}, 3)
        weights = model.risk.weights(batch.click, outputs.ctr, harness.SPEC.ctr, batch)
        whole = float((batch.weight * weights.rows).sum()) == pytest.approx(float(batch.weight.sum()), rel=1e-12)
        assert whole == snips
        terms[snips] = float(model.loss(outputs, batch).terms["cvr"])
    assert terms[True] != pytest.approx(terms[False], rel=1e-3)


# --- who moves what, and when: one optimiser a phase, kept from step to step -----------------------------------------

IMPUTATION = ("network.towers.imputation", "network.heads.imputation", "network.trunk.gates.2", "imputation_network")
TURNS = {
    "multi-dr": {"risk": {"updates": "alternating"}},
    "escm2-dr": {**EXPERTS, "risk": {"updates": "alternating"}},
    "dr-jl": {},
    "mrdr": {},
}
RATE = 0.02


def trained(harness, name, make_step, steps=5):
    model = harness.system(name, TURNS[name], 5)
    step = make_step(model)
    for number in range(steps):
        assert step(harness.instance(number, rows=30).batch, number)
    return harness.arrays(model)


CONFIG = TrainingConfig(optimizer="exact_adam", l2_mode="none", l2=0.0, learning_rate=RATE)


def ordinary(model):
    return TrainingStep(model, CONFIG)


def by_hand(harness, name, steps=5):
    """Two Adams written out: first the imputation on its loss, then all others on the other losses."""
    model = harness.system(name, TURNS[name], 5)
    named = dict(model.named_parameters())
    sides = {
        True: [n for n in named if n.startswith(IMPUTATION)],
        False: [n for n in named if not n.startswith(IMPUTATION)],
    }
    assert all(sides.values())
    moments = {n: (np.zeros(p.shape), np.zeros(p.shape)) for n, p in named.items()}
    for number in range(steps):
        given = harness.instance(number, rows=30).batch
        for imputes, names in sides.items():
            model.zero_grad()
            terms = model.loss(model(given), given).terms
            sum(value for term, value in terms.items() if (term == "imputation") == imputes).backward()
            for n in names:
                g = np.zeros(named[n].shape) if named[n].grad is None else named[n].grad.numpy().copy()
                first, second = moments[n]
                first[...], second[...] = 0.9 * first + 0.1 * g, 0.999 * second + 0.001 * g**2
                t = number + 1
                move = RATE * (first / (1 - 0.9**t)) / (np.sqrt(second / (1 - 0.999**t)) + 1e-8)
                with torch.no_grad():
                    named[n] -= torch.tensor(move)
    return harness.arrays(model)


def assert_moves_as_by_hand(harness, name, make_step):
    found, expected = trained(harness, name, make_step), by_hand(harness, name)
    for key, value in expected.items():
        np.testing.assert_allclose(found[key], value, rtol=1e-6, atol=1e-9, err_msg=key)


class FreshStep(TrainingStep):
    """A bug: new optimisers at every step, so no moment lasts."""

    def __call__(self, batch, step):
        self.optimisers = phase_optimisers(self.model, CONFIG)
        return super().__call__(batch, step)


def fresh(model):
    return FreshStep(model, CONFIG)


def doubled(model):
    """A bug: two optimisers over the same parameters, both stepped."""
    model.phases = lambda: (Phase("one", tuple(model.parameters())), Phase("two", tuple(model.parameters())))
    return ordinary(model)


def shared_by_both(model):
    """A bug: both phases move everything, each on its own terms."""
    own, rest = type(model).phases(model)
    every = (*own.parameters, *rest.parameters)
    model.phases = lambda: (dataclasses.replace(own, parameters=every), dataclasses.replace(rest, parameters=every))
    return ordinary(model)


def together(model):
    """Not alternating: one step on the sum."""
    model.phases = lambda: (Phase("all", tuple(model.parameters())),)
    return ordinary(model)


@pytest.mark.parametrize("name", TURNS)
def test_each_phase_moves_its_own_parameters_by_an_optimiser_of_its_own(harness, name):
    assert_moves_as_by_hand(harness, name, ordinary)


@pytest.mark.parametrize("twin", [fresh, doubled, together])
@pytest.mark.parametrize("name", TURNS)
def test_a_planted_optimiser_is_told(harness, name, twin):
    with pytest.raises(AssertionError):
        assert_moves_as_by_hand(harness, name, twin)


@pytest.mark.parametrize("name", ["multi-dr", "escm2-dr"])
def test_what_is_shared_is_moved_by_one_phase(harness, name):
    with pytest.raises(AssertionError):
        assert_moves_as_by_hand(harness, name, shared_by_both)


@pytest.mark.parametrize("name", TURNS)
def test_phases_divide_the_parameters(harness, name):
    model = harness.system(name, TURNS[name], 5)
    held = [id(parameter) for phase in model.phases() for parameter in phase.parameters]
    assert len(held) == len(set(held)) == len(list(model.parameters()))
    assert [phase.terms[0] for phase in model.phases()] == ["imputation", "ctr"]
