"""ESMC, ESMS and ESMG against a plain transcription of the reconstruction, against ESMM and against one another."""

import dataclasses
from copy import deepcopy

import numpy as np
import pytest
import torch

from postclick.errors import ConfigError, DataError
from postclick.losses.constraints import tower_distance
from postclick.losses.probability import LogProbability
from postclick.models.base import Losses, Outputs
from postclick.models.batching import to_batch
from postclick.models.catalog import build
from postclick.models.esmc import ESMC, ESMG, ESMS
from postclick.models.esmm import ESMM
from postclick.nn.tower import Tower

TOWER = Tower((6, 3), (0.0,))


def make(spec, system, **arguments):
    """A small system in float64 with random weights; also the twins are random, so that they differ."""
    torch.manual_seed(0)
    model = system(spec, tower=TOWER, embedding_size=4, **arguments).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.0, 0.6)
    return model


# --- the equations, written again in NumPy ---------------------------------------------------------------------------


def plain_logit(state, tower, head, v):
    for layer in ("steps.0", "steps.3"):
        v = np.maximum(v @ state[f"{tower}.{layer}.weight"].T + state[f"{tower}.{layer}.bias"], 0.0)
    return v @ state[f"{head}.linear.weight"][0] + state[f"{head}.linear.bias"][0]


def plain_probabilities(state, exposures, system):
    table = state["encoder.table.weight"]
    v = np.concatenate([table[exposures.rows[:, 0]], table[exposures.rows[:, 1]], exposures.dense], axis=1)
    twin = "action_tower" if system is ESMS else "purchase_tower"
    places = (("ctr_tower", "ctr_head"), ("action_tower", "action_head"), (twin, "purchase_head"))
    f1, f2, f3 = (1 / (1 + np.exp(-plain_logit(state, tower, head, v))) for tower, head in places)
    if system is ESMG:
        top = np.exp(-1e-6)
        return {"ctr": f1, "ctar": f2, "ctcvr": f3, "cvr": np.minimum(f3 / f1, top), "action": np.minimum(f2 / f1, top)}
    return {"ctr": f1, "action": f2, "cvr": f3, "ctar": f1 * f2, "ctcvr": f1 * f3}


def plain_terms(state, exposures, system, weights=(1, 1, 1), constraint=1e-3):
    f, labels = plain_probabilities(state, exposures, system), exposures.labels
    o, a, r = (np.asarray(x, float) for x in (labels.click, labels.action, labels.conversion))
    w = labels.sample_weight.astype(np.float32).astype(float)
    label = {"ctr": o, "ctar": o * a, "ctcvr": o * r}
    terms = {}
    for weight, (name, y) in zip(weights, label.items(), strict=True):
        entropy = -(y * np.log(f[name]) + (1 - y) * np.log(1 - f[name]))
        terms[name] = weight * np.sum(w * entropy) / np.sum(w)
    if system is not ESMS and constraint > 0:
        terms["constraint"] = constraint * sum(
            np.sum((state[f"action_tower.{part}"] - state[f"purchase_tower.{part}"]) ** 2)
            for part in ("steps.0.weight", "steps.0.bias", "steps.3.weight", "steps.3.bias")
        )
    return terms


def assert_is_the_equations(model, exposures, kind, **arguments):
    state = {name: value.numpy().copy() for name, value in model.state_dict().items()}
    batch = to_batch(exposures)
    outputs = model(batch)
    plain = plain_probabilities(state, exposures, kind)
    assert set(plain) == set(model.heads)
    for name, p in plain.items():
        np.testing.assert_allclose(outputs.heads()[name].log_p.detach().exp(), p, rtol=1e-6)
        np.testing.assert_allclose(outputs.heads()[name].log_not_p.detach().exp(), 1 - p, rtol=1e-6)
    terms = model.loss(outputs, batch).terms
    expected = plain_terms(state, exposures, kind, **arguments)
    assert {name: term.item() for name, term in terms.items()} == pytest.approx(expected, rel=1e-6)
    sum(terms.values()).backward()
    assert_gradients_are_differences(model, state, lambda s: sum(plain_terms(s, exposures, kind, **arguments).values()))


def assert_gradients_are_differences(model, state, loss, step=1e-6):
    rng = np.random.default_rng(0)
    for name, parameter in model.named_parameters():
        gradient = parameter.grad.to_dense() if parameter.grad.is_sparse else parameter.grad
        flat, found = state[name].reshape(-1), gradient.numpy().reshape(-1)
        for place in rng.choice(np.flatnonzero(found) if found.any() else np.arange(len(flat)), 3):
            kept = flat[place]
            flat[place] = kept + step
            above = loss(state)
            flat[place] = kept - step
            below = loss(state)
            flat[place] = kept
            assert found[place] == pytest.approx((above - below) / (2 * step), rel=1e-5, abs=1e-8), name


@pytest.mark.parametrize("system", [ESMC, ESMS, ESMG])
@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), (0.5, 2.0, 3.0)])
def test_forward_loss_and_gradient_are_the_equations(tiny, system, weights):
    spec, exposures = tiny
    assert_is_the_equations(make(spec, system, weights=weights), exposures, system, weights=weights)


@pytest.mark.parametrize("constraint", [0.0, 0.7])
def test_the_constraint_is_weighted(tiny, constraint):
    spec, exposures = tiny
    assert_is_the_equations(make(spec, ESMC, constraint=constraint), exposures, ESMC, constraint=constraint)


class OneSidedESMC(ESMC):
    """A bug: the constraint moves one tower only."""

    def loss(self, outputs, batch):
        terms = dict(super().loss(outputs, batch).terms)
        held = deepcopy(self.action_tower).requires_grad_(False)
        return Losses({**terms, "constraint": self.constraint * tower_distance(held, self.purchase_tower)})


class ChainedESMC(ESMC):
    """A bug: the purchase goes through the action."""

    def forward(self, batch):
        o = super().forward(batch)
        return dataclasses.replace(o, ctcvr=o.ctar * o.cvr)


class ClampedESMC(ESMC):
    """A bug: products of sigmoids, clamped."""

    def forward(self, batch):
        o = super().forward(batch)
        t = (o.ctr.log_p.exp() * o.cvr.log_p.exp()).clamp(1e-15, 1 - 1e-15)
        return dataclasses.replace(o, ctcvr=LogProbability(t.log(), (1 - t).log()))


def rare(model):
    """Everything next to impossible."""
    with torch.no_grad():
        for head in (model.ctr_head, model.action_head, model.purchase_head):
            head.linear.bias.fill_(-60.0)
    return model


@pytest.mark.parametrize("system", [ESMC, ESMS])
def test_the_equations_hold_at_logits_of_sixty(tiny, system):
    spec, exposures = tiny
    assert_is_the_equations(rare(make(spec, system)), exposures, system)


@pytest.mark.parametrize("twin", [OneSidedESMC, ChainedESMC, ClampedESMC])
def test_a_planted_bug_is_told(tiny, twin):
    spec, exposures = tiny
    with pytest.raises(AssertionError):
        assert_is_the_equations(rare(make(spec, twin)), exposures, ESMC)


def test_the_constraint_pulls_on_both_towers_and_on_nothing_else(tiny):
    spec, exposures = tiny
    model, batch = make(spec, ESMC, constraint=0.7), to_batch(exposures)
    model.loss(model(batch), batch).terms["constraint"].backward()
    for (name, a), (_, b) in zip(
        model.action_tower.named_parameters(), model.purchase_tower.named_parameters(), strict=True
    ):
        torch.testing.assert_close(a.grad, 1.4 * (a - b).detach(), msg=name)
        torch.testing.assert_close(b.grad, -a.grad, msg=name)
    others = [n for n, p in model.named_parameters() if p.grad is not None and n.split("_tower")[0] == n]
    assert others == []


# --- against ESMM and one another (SYSTEMS, section 15, invariant 11) ------------------------------------------------


def gradients(terms, model):
    model.zero_grad()
    sum(terms).backward()
    dense = {
        name: p.grad.to_dense() if p.grad.is_sparse else p.grad
        for name, p in model.named_parameters()
        if p.grad is not None
    }
    return {name: gradient.clone() for name, gradient in dense.items()}


def as_esmm(name):
    """The name that ESMM gives to a parameter of ESMC: its own tower of the CVR is the purchase's here."""
    kind, _, rest = name.partition(".")
    if kind == "encoder":
        return f"network.{name}"
    task, part = kind.split("_")
    return f"network.{part}s.{'cvr' if task == 'purchase' else task}.{rest}"


def test_without_the_constraint_the_gradients_are_esmms(tiny):
    spec, exposures = tiny
    model, batch = make(spec, ESMC, constraint=0.0), to_batch(exposures)
    esmm = ESMM(spec, tower=TOWER, embedding_size=4).double().eval()
    state = {as_esmm(name): value for name, value in model.state_dict().items() if not name.startswith("action_")}
    esmm.load_state_dict(state)
    expected = gradients(esmm.loss(esmm(batch), batch).terms.values(), esmm)
    terms = model.loss(model(batch), batch).terms
    assert set(terms) == {"ctr", "ctar", "ctcvr"}
    found = gradients([terms["ctr"], terms["ctcvr"]], model)
    assert {as_esmm(name) for name in found} == set(expected)
    for name, gradient in found.items():
        assert torch.equal(gradient, expected[as_esmm(name)]), name
    whole = gradients(model.loss(model(batch), batch).terms.values(), model)
    for name, gradient in whole.items():
        if name.startswith("purchase_"):  # the third task moves the table and the CTR tower, never the CVR tower
            assert torch.equal(gradient, expected[as_esmm(name)]), name
    name = "ctr_head.linear.bias"
    assert not torch.equal(whole[name], expected[as_esmm(name)])


@pytest.mark.parametrize("constraint", [0.0, 1e-3, 5.0])
def test_with_equal_towers_the_loss_is_that_of_esms(tiny, constraint):
    spec, exposures = tiny
    batch, siamese = to_batch(exposures), make(spec, ESMS)
    model = make(spec, ESMC, constraint=constraint)
    twins = {name.replace("action_tower", "purchase_tower"): value for name, value in siamese.state_dict().items()}
    model.load_state_dict({**twins, **siamese.state_dict()})
    one, other = (sum(m.loss(m(batch), batch).terms.values()) for m in (model, siamese))
    assert one.item() == other.item()
    found, expected = gradients([one], model), gradients([other], siamese)
    for name, gradient in expected.items():
        pair = found[name]
        if name.startswith("action_tower"):
            pair = pair + found[name.replace("action_tower", "purchase_tower")]
        torch.testing.assert_close(pair, gradient, rtol=1e-9, atol=1e-12)


def test_a_strong_constraint_keeps_the_twins_together_and_none_lets_them_part(tiny):
    spec, exposures = tiny
    batch, apart = to_batch(exposures), {}
    for constraint in (0.0, 0.1, 10.0):
        torch.manual_seed(0)
        model = ESMC(spec, tower=TOWER, embedding_size=4, constraint=constraint)
        assert tower_distance(model.action_tower, model.purchase_tower).item() == 0.0  # twins start equal
        optimiser = torch.optim.SGD([p for p in model.parameters() if p.dim() > 0 and p is not None], lr=0.02)
        for _ in range(200):
            optimiser.zero_grad()
            sum(model.loss(model(batch), batch).terms.values()).backward()
            optimiser.step()
        apart[constraint] = tower_distance(model.action_tower, model.purchase_tower).item()
    assert apart[0.0] > 2 * apart[0.1] > 0
    assert apart[0.1] > 20 * apart[10.0]


def test_siamese_towers_are_one_and_twins_are_two(tiny):
    spec, _ = tiny
    parts = {system: {name.split(".")[0] for name in system(spec).state_dict()} for system in (ESMC, ESMS, ESMG)}
    assert parts[ESMC] - parts[ESMS] == {"purchase_tower"}
    assert parts[ESMC] == parts[ESMG]
    assert tower_distance(ESMC(spec, tower=Tower(())).action_tower, ESMC(spec, tower=Tower(())).purchase_tower) == 0


# --- arguments and refusals ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["esmc", "esms", "esmg"])
def test_a_log_without_the_action_is_refused_when_built_and_when_learning(tiny, key):
    spec, exposures = tiny
    with pytest.raises(ConfigError, match="action = "):
        build(key, dataclasses.replace(spec, actions=None), {})
    model, batch = build(key, spec, {}), dataclasses.replace(to_batch(exposures), action=None)
    with pytest.raises(DataError, match=r"data\.label_missing"):
        model.loss(model(batch), batch)
    assert isinstance(model(batch), Outputs)  # scoring needs no label


@pytest.mark.parametrize("arguments", [{"constraint": -1.0}, {"weights": [1.0, 1.0]}, {"weights": [1.0, -1.0, 1.0]}])
def test_arguments_that_make_no_system_are_refused(tiny, arguments):
    with pytest.raises(ConfigError, match="at least 0"):
        build("esmc", tiny[0], arguments)
