"""ESM2 against a plain transcription of its equations, at exact probabilities, and the gap of its chain."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from postclick.errors import ConfigError, DataError
from postclick.losses.probability import LogProbability
from postclick.models.base import Batch, Outputs
from postclick.models.batching import to_batch
from postclick.models.catalog import build
from postclick.models.esm2 import ESM2
from postclick.nn.features import Features
from postclick.nn.tower import Head, Tower
from postclick.nn.trunk import TaskLogits

FORMS = [
    {},
    {"weights": (0.5, 2.0, 3.0, 1.0)},
    {"purchase": "direct"},
    {"purchase": "both", "weights": (1.0, 1.0, 1.0, 0.3)},
    {"other_action": False},
    {"other_action": False, "purchase": "direct"},
    {"other_action": False, "purchase": "both"},
    {"other_action": False, "purchase": "global"},
]
TASKS = ("ctr", "action", "purchase_action", "purchase_other")


def make(spec, system=ESM2, **arguments):
    torch.manual_seed(0)
    model = system(spec, tower=Tower((6, 3), (0.0,)), embedding_size=4, **arguments).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.0, 0.6)
    return model


# --- the equations, written again in NumPy ---------------------------------------------------------------------------


def plain_logit(state, task, v):
    for layer in ("steps.0", "steps.3"):
        prefix = f"network.towers.{task}.{layer}"
        v = np.maximum(v @ state[f"{prefix}.weight"].T + state[f"{prefix}.bias"], 0.0)
    head = f"network.heads.{task}.linear"
    return v @ state[f"{head}.weight"][0] + state[f"{head}.bias"][0]


def plain_probabilities(state, exposures, other_action):
    """Pairs (f, 1 - f), every complement a sum of positive numbers, so that nothing cancels."""
    table = state["network.encoder.table.weight"]
    v = np.concatenate([table[exposures.rows[:, 0]], table[exposures.rows[:, 1]], exposures.dense], axis=1)
    z = {task: plain_logit(state, task, v) for task in (TASKS if other_action else TASKS[:3])}
    (y1, n1), (y2, n2), (y3, n3) = ((1 / (1 + np.exp(-z[t])), 1 / (1 + np.exp(z[t]))) for t in TASKS[:3])
    y4, n4 = np.zeros_like(y3), np.ones_like(y3)
    if other_action:
        y4, n4 = 1 / (1 + np.exp(-z["purchase_other"])), 1 / (1 + np.exp(z["purchase_other"]))
    cvr, not_cvr = y2 * y3 + n2 * y4, y2 * n3 + n2 * n4
    return {
        "ctr": (y1, n1),
        "action": (y2, n2),
        "ctar": (y1 * y2, n1 + y1 * n2),
        "cvr": (cvr, not_cvr),
        "ctcvr": (y1 * cvr, n1 + y1 * not_cvr),
        "y3": (y3, n3),
        "y4": (y4, n4),
    }


def plain_terms(state, exposures, other_action=True, purchase="joint", weights=(1, 1, 1, 1)):
    f = plain_probabilities(state, exposures, other_action)
    labels = exposures.labels
    o, a, r, w = (np.asarray(x, float) for x in (labels.click, labels.action, labels.conversion, labels.sample_weight))
    w = np.float32(w).astype(float)

    def entropy(label, name):
        return -(label * np.log(f[name][0]) + (1 - label) * np.log(f[name][1]))

    def mean(rows):
        return np.sum(w * rows) / np.sum(w)

    terms = {
        "ctr": weights[0] * mean(entropy(o, "ctr")),
        "ctar": weights[1] * mean(entropy(o * a, "ctar")),
    }
    if purchase in ("joint", "both"):
        terms["ctcvr"] = weights[2] * mean(entropy(o * r, "ctcvr"))
    if purchase in ("direct", "both"):
        rows = o * a * entropy(r, "y3") + (o * (1 - a) * entropy(r, "y4") if other_action else 0)
        terms["purchase"] = weights[3] * mean(rows)
    if purchase == "global":
        terms["purchase"] = weights[3] * mean(a * entropy(o * r, "y3"))
    return terms


def assert_is_the_equations(model, exposures, **form):
    state = {name: value.numpy().copy() for name, value in model.state_dict().items()}
    batch = to_batch(exposures)
    outputs = model(batch)
    for name, (p, q) in plain_probabilities(state, exposures, form.get("other_action", True)).items():
        if name in model.heads:
            head = outputs.heads()[name]
            np.testing.assert_allclose(head.log_p.detach(), np.log(p), rtol=1e-6, atol=1e-12)
            np.testing.assert_allclose(head.log_not_p.detach(), np.log(q), rtol=1e-6, atol=1e-12)
    terms = model.loss(outputs, batch).terms
    assert {name: term.item() for name, term in terms.items()} == pytest.approx(
        plain_terms(state, exposures, **form), rel=1e-6
    )
    sum(terms.values()).backward()
    assert_gradients_are_differences(model, state, lambda s: sum(plain_terms(s, exposures, **form).values()))


def assert_gradients_are_differences(model, state, loss, step=1e-6):
    rng = np.random.default_rng(0)
    for name, parameter in model.named_parameters():
        gradient = parameter.grad.to_dense() if parameter.grad.is_sparse else parameter.grad
        flat, found = state[name].reshape(-1), gradient.numpy().reshape(-1)
        some = rng.choice(np.flatnonzero(found) if found.any() else np.arange(len(flat)), 3)
        for place in some:
            kept = flat[place]
            flat[place] = kept + step
            above = loss(state)
            flat[place] = kept - step
            below = loss(state)
            flat[place] = kept
            assert found[place] == pytest.approx((above - below) / (2 * step), rel=1e-5, abs=1e-8), name


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_forward_loss_and_gradient_are_the_equations(tiny, form):
    spec, exposures = tiny
    assert_is_the_equations(make(spec, **form), exposures, **form)


def extreme(model):
    """Click and action next to impossible, and a purchase that needs the action."""
    with torch.no_grad():
        for task, bias in zip(TASKS, (-60.0, -60.0, 60.0, -60.0), strict=True):
            model.network.heads[task].linear.bias.fill_(bias)
    return model


def test_the_equations_hold_at_logits_of_sixty(tiny):
    spec, exposures = tiny
    assert_is_the_equations(extreme(make(spec)), exposures)


class SwappedESM2(ESM2):
    """A bug: the purchase given the action is fed the other branch."""

    def forward(self, batch):
        o = super().forward(batch)
        y3, y4 = (LogProbability.from_logit(o.extras[name]) for name in TASKS[2:])
        cvr = o.action.mixture(y4, y3)
        return dataclasses.replace(o, cvr=cvr, ctcvr=o.ctr * cvr)


class ClampedESM2(ESM2):
    """A bug: products of sigmoids, clamped."""

    def forward(self, batch):
        o = super().forward(batch)
        t = (o.ctr.log_p.exp() * o.cvr.log_p.exp()).clamp(1e-15, 1 - 1e-15)
        return dataclasses.replace(o, ctcvr=LogProbability(t.log(), (1 - t).log()))


@pytest.mark.parametrize("twin", [SwappedESM2, ClampedESM2])
def test_a_planted_bug_is_told(tiny, twin):
    spec, exposures = tiny
    with pytest.raises(AssertionError):
        assert_is_the_equations(extreme(make(spec, twin)), exposures)


# --- at exact probabilities ------------------------------------------------------------------------------------------


class Given(torch.nn.Module):
    """Logits that are given, in the place of the network."""

    def __init__(self, logits):
        super().__init__()
        self.logits = logits

    def forward(self, features):
        return TaskLogits({task: logit.expand(len(features)) for task, logit in self.logits.items()}, {})


def logit(p):
    return torch.tensor(np.log(p / (1 - p)), dtype=torch.float64, requires_grad=True)


def no_features(rows):
    return Features(torch.zeros(rows, 0, dtype=torch.int32), torch.zeros(rows, 0), torch.zeros(rows, 0), ())


def world(p_o, p_a, b_a, b_n, outside=0.0):
    """Every outcome (o, a, r) of one x as a row, its probability as its weight; `outside` is P(action | no click)."""
    outcomes = np.array([(o, a, r) for o in (0, 1) for a in (0, 1) for r in ((0, 1) if o else (0,))], float)
    o, a, r = outcomes.T
    action = np.where(o == 1, p_a, outside)
    buy = np.where(a == 1, b_a, b_n)
    weight = np.where(o == 1, p_o, 1 - p_o) * np.where(a == 1, action, 1 - action)
    weight = weight * np.where(o == 1, np.where(r == 1, buy, 1 - buy), 1.0)
    assert weight.sum() == pytest.approx(1)
    tensors = (torch.tensor(x) for x in (o, r, a, weight))
    return Batch(no_features(len(o)), *tensors)


def at(spec, factors, **arguments):
    """A model that says `factors`, and its logits."""
    model = ESM2(spec, **arguments)
    logits = {task: logit(p) for task, p in zip(TASKS, factors, strict=False)}
    model.network = Given(logits)
    return model, logits


def slopes(model, logits, batch):
    """d loss / d logit, a factor."""
    terms = model.loss(model(batch), batch).terms
    return [g.item() for g in torch.autograd.grad(sum(terms.values()), list(logits.values()))]


inside = st.floats(0.02, 0.98)
worlds = settings(max_examples=50, deadline=None)


@pytest.fixture(scope="module")
def spec():
    from postclick.data.log import LogSpec
    from postclick.schema import Schema, SparseFeature

    return LogSpec(Schema((SparseFeature("user"),)), 2, rows=100.0, clicks=20.0, conversions=5.0, actions=8.0)


@worlds
@given(*[inside] * 4)
def test_at_the_true_factors_the_product_is_the_law_of_total_probability(spec, p_o, p_a, b_a, b_n):
    model, _ = at(spec, (p_o, p_a, b_a, b_n))
    batch = world(p_o, p_a, b_a, b_n)
    bought = (batch.weight * batch.click * batch.conversion).sum().item()
    carted = (batch.weight * batch.click * batch.action).sum().item()
    outputs = model(batch)
    assert outputs.ctcvr.log_p[0].exp().item() == pytest.approx(bought, rel=1e-9)
    assert outputs.cvr.log_p[0].exp().item() == pytest.approx(bought / p_o, rel=1e-9)
    assert outputs.ctar.log_p[0].exp().item() == pytest.approx(carted, rel=1e-9)


@worlds
@given(st.sampled_from(["joint", "direct", "both"]), *[inside] * 5)
def test_the_truth_is_stationary_at_every_share_of_purchases_without_action(spec, form, p_o, p_a, b_a, b_n, outside):
    model, logits = at(spec, (p_o, p_a, b_a, b_n), purchase=form)
    assert slopes(model, logits, world(p_o, p_a, b_a, b_n, outside)) == pytest.approx([0] * 4, abs=1e-9)


def test_the_wrong_factors_are_not_stationary(spec):
    model, logits = at(spec, (0.2, 0.3, 0.4, 0.05))
    assert min(abs(slope) for slope in slopes(model, logits, world(0.3, 0.2, 0.6, 0.1))) > 1e-4


@worlds
@given(*[inside] * 4)
def test_the_directly_fitted_chain_misses_what_the_gap_says(spec, p_o, p_a, b_a, b_n):
    batch = world(p_o, p_a, b_a, b_n)
    model, logits = at(spec, (p_o, p_a, b_a), other_action=False, purchase="direct")
    assert slopes(model, logits, batch) == pytest.approx([0] * 3, abs=1e-9)
    bought = (batch.weight * batch.conversion).sum().item()
    without_action = (batch.weight * batch.conversion * (1 - batch.action)).sum().item()
    said = model(batch).ctcvr.log_p[0].exp().item()
    assert bought - said == pytest.approx(p_o * (1 - p_a) * b_n, rel=1e-7, abs=1e-12)  # P(o) P(b, not a | o)
    assert said / bought == pytest.approx(1 - without_action / bought, rel=1e-7)  # its PCOC


@worlds
@given(*[inside] * 4)
def test_the_jointly_fitted_chain_hides_the_gap_in_its_last_factor(spec, p_o, p_a, b_a, b_n):
    batch, share = world(p_o, p_a, b_a, b_n), b_a + (1 - p_a) * b_n / p_a
    model, logits = at(spec, (p_o, p_a, b_a), other_action=False)
    assert slopes(model, logits, batch)[2] < 0  # towards a larger y3 than P(b | a)
    if share < 0.99:
        model, logits = at(spec, (p_o, p_a, share), other_action=False)
        assert slopes(model, logits, batch) == pytest.approx([0] * 3, abs=1e-9)
        bought = (batch.weight * batch.conversion).sum().item()
        assert model(batch).ctcvr.log_p[0].exp().item() == pytest.approx(bought, rel=1e-9)


@worlds
@given(*[inside] * 5)
def test_a_factor_of_the_whole_cart_log_adds_its_own_gap(spec, p_o, p_a, b_a, b_n, outside):
    batch = world(p_o, p_a, b_a, b_n, outside)
    joined = p_o * p_a / (p_o * p_a + (1 - p_o) * outside)  # P(o | a)
    model, logits = at(spec, (p_o, p_a, joined * b_a), other_action=False, purchase="global")
    assert slopes(model, logits, batch) == pytest.approx([0] * 3, abs=1e-9)
    bought = (batch.weight * batch.conversion).sum().item()
    gap = p_o * (1 - p_a) * b_n + p_o * p_a * b_a * (1 - joined)
    assert bought - model(batch).ctcvr.log_p[0].exp().item() == pytest.approx(gap, rel=1e-7)


def test_only_the_direct_loss_tells_the_two_purchase_factors_apart(spec):
    batch = world(0.3, 0.4, 0.5, 0.1)
    true, other = (0.3, 0.4, 0.5, 0.1), (0.3, 0.4, 0.2, 0.3)  # 0.4 * 0.5 + 0.6 * 0.1 = 0.4 * 0.2 + 0.6 * 0.3

    def value(factors, form):
        model, _ = at(spec, factors, purchase=form)
        return sum(model.loss(model(batch), batch).terms.values()).item()

    assert value(true, "joint") == pytest.approx(value(other, "joint"), rel=1e-12)
    assert value(true, "both") < value(other, "both") - 1e-3


@worlds
@given(st.lists(st.floats(-1e4, 1e4), min_size=4, max_size=4))
def test_products_and_the_mixture_stay_between_their_parts(spec, logits):
    model = ESM2(spec)
    model.network = Given({task: torch.tensor(z, dtype=torch.float64) for task, z in zip(TASKS, logits, strict=True)})
    outputs = model(world(0.3, 0.4, 0.5, 0.1))
    ctr, cvr, ctcvr = (head.log_p[0].item() for head in (outputs.ctr, outputs.cvr, outputs.ctcvr))
    action, ctar = outputs.action.log_p[0].item(), outputs.ctar.log_p[0].item()
    assert ctcvr == pytest.approx(ctr + cvr, rel=1e-12)
    assert ctar == pytest.approx(ctr + action, rel=1e-12)
    assert max(ctcvr, ctar) <= ctr
    y3, y4 = sorted(-np.logaddexp(0, -logits[i]) for i in (2, 3))
    assert y3 - 1e-9 <= cvr <= y4 + 1e-9
    for head in outputs.heads().values():
        assert torch.isfinite(head.log_p).all()
        assert torch.isfinite(head.log_not_p).all()


# --- arguments and refusals ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("trunk", ["mmoe", "ple"])
@pytest.mark.parametrize("interaction", ["off", "on"])
def test_any_trunk_carries_the_four_towers(tiny, trunk, interaction):
    spec, exposures = tiny
    torch.manual_seed(0)
    model = build(
        "esm2", spec, {"trunk": trunk, "interaction": interaction, "tower": {"hidden": [4], "dropout": [0.0]}}
    )
    outputs = model(to_batch(exposures))
    assert {name for name in outputs.extras if name.startswith("gate/")} == {f"gate/{task}" for task in TASKS}
    assert model.shared_parameters()
    sum(model.loss(outputs, to_batch(exposures)).terms.values()).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_the_first_chain_starts_at_the_base_rate(spec):
    model = ESM2(spec, other_action=False)
    biases = [torch.sigmoid(head.linear.bias).item() for head in model.modules() if isinstance(head, Head)]
    assert biases == pytest.approx([0.2, 0.4, 0.25 / 0.4])
    assert np.prod(biases) == pytest.approx(spec.ctcvr)


def test_early_stopping_does_not_look_for_the_step_that_hides_the_gap(spec):
    heads = {
        form: [head for head, _ in ESM2(spec, other_action=False, purchase=form).observed]
        for form in ("joint", "global")
    }
    assert heads == {"joint": ["ctr", "ctar", "ctcvr"], "global": ["ctr", "ctar"]}


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"purchase": "global"}, "other_action=false"),
        ({"weights": [1.0, 1.0]}, "four numbers"),
        ({"weights": [1.0, 1.0, 1.0, -1.0]}, "at least 0"),
    ],
)
def test_arguments_that_make_no_system_are_refused(spec, arguments, word):
    with pytest.raises(ConfigError, match=word):
        build("esm2", spec, arguments)


def test_a_log_without_the_action_is_refused_when_built_and_when_learning(spec, tiny):
    with pytest.raises(ConfigError, match="action = "):
        build("esm2", dataclasses.replace(spec, actions=None), {})
    given_spec, exposures = tiny
    model, batch = ESM2(given_spec), dataclasses.replace(to_batch(exposures), action=None)
    with pytest.raises(DataError, match=r"data\.label_missing"):
        model.loss(model(batch), batch)
    assert isinstance(model(batch), Outputs)  # scoring needs no label
