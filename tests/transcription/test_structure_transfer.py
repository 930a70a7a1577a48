"""cstwa against its equations (SYSTEMS, 11 and Decision 6), its invariants, and twins with bugs.

The thresholds, and what the entities moved by, are given; graphs and migrations have tests of their own. What is
detached is a number held fixed: the differences take p in the weights from the logits at the point itself, `held`.
"""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from postclick.losses.probability import LogProbability
from postclick.losses.reweight import LabelWeights
from postclick.models import cstwa
from postclick.models.base import Losses
from postclick.models.cstwa import CSTWA
from postclick.schema import Columns

BOUNDS = (0.45, 0.55)
"""h2 and h1: of random weights many predictions lie beyond them."""
ENTITIES = {"user": (5, 6, 8, 9), "item": (6, 7, 11)}
SHIFTS = {side: np.random.default_rng(len(side)).normal(size=(len(e), 2)) for side, e in ENTITIES.items()}


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def bce(y, f):
    return -(y * np.log(f) + (1 - y) * np.log(1 - f))


def network(equations, shifted):
    """h = tower(v_ctr); x = (e + d) * 2 sigmoid(W h + b); B: own vectors in place of e, for the ids that have them."""

    def cstwa(x, weights):
        v, e = (equations.features(x, weights["tables"][task]) for task in ("ctr", "ctcvr"))
        for column, side in enumerate(("user", "item")):
            ids, place = x["rows"][:, column], slice(2 * column, 2 * column + 2)
            for number, entity in enumerate(ENTITIES[side]):
                if weights["own"]:
                    e[ids == entity, place] = weights["own"][side][number + 1]
                elif shifted:
                    e[ids == entity, place] += SHIFTS[side][number]
        h = equations.mlp(v, weights["towers"]["ctr"]["hidden"])
        if weights["information"] is not None:
            w, b = weights["information"]
            e = e * 2 * sigmoid(h @ w.T + b)
        w, b = weights["towers"]["ctr"]["head"]
        return {"ctr": h @ w.reshape(-1) + b.reshape(()), "ctcvr": equations.tower(e, weights["towers"]["ctcvr"])}

    return cstwa


def weights_of(state_of):
    def weights(name, state):
        towers = {
            task: {"hidden": state_of.layers(state, f"{task}_tower"), "head": state_of.linear(state, f"{task}_head")}
            for task in ("ctr", "ctcvr")
        }
        layer = (state["information.weight"], state["information.bias"]) if "information.weight" in state else None
        own = {side: state[name] for side in ENTITIES if (name := f"sides.{side}.table.weight") in state}
        tables = {task: state[f"{task}_encoder.table.weight"] for task in ("ctr", "ctcvr")}
        return {"towers": towers, "tables": tables, "information": layer, "own": own}

    return weights


def omega(p, t, form="power", epsilon=3.0, cap=4.0):
    """Eq. 18."""
    low, high = BOUNDS
    w = np.ones(len(p))
    for i in range(len(p)):
        if p[i] > high and t[i] == 0:
            w[i] = {
                "power": (p[i] / high) ** epsilon,
                "linear": 1 + epsilon * (p[i] - high) / high,
                "jump": epsilon * p[i] / high,
            }[form]
        if p[i] < low and t[i] == 1:
            w[i] = {
                "power": (low / p[i]) ** epsilon,
                "linear": 1 + epsilon * (low - p[i]) / low,
                "jump": epsilon * low / p[i],
            }[form]
    return np.minimum(w, cap)


def cstwa_objective(logits, y, held, alpha=0.6, weighted=True, **options):
    """L = L_ctr + 1/N sum omega l(t, s) + alpha 1/N sum max(s - p, 0), all over D."""
    t, total = y["click"] * y["conversion"], y["weight"].sum()
    p, s = sigmoid(logits["ctr"]), sigmoid(logits["ctcvr"])
    w = omega(sigmoid(held["ctr"]), t, **options) if weighted else 1.0
    terms = {"ctr": (y["weight"] * bce(y["click"], p)).sum() / total}
    terms["ctcvr"] = (y["weight"] * w * bce(t, s)).sum() / total
    if alpha is not None:
        terms["calibrator"] = alpha * (y["weight"] * np.maximum(s - p, 0)).sum() / total
    return {"ctr": p, "cvr": np.minimum(s / p, 1), "ctcvr": s}, terms


@pytest.fixture(scope="module", autouse=True)
def named_ids(harness):
    """The harness's log, with columns that say who is a user and what an item."""
    schema = dataclasses.replace(harness.SPEC.schema, columns=Columns(user_id="user", item_id="item"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(harness, "SPEC", dataclasses.replace(harness.SPEC, schema=schema))
        yield


@pytest.fixture(scope="module")
def parity(harness, equations, state):
    own = {"cstwa": network(equations, shifted=True), "unshifted": network(equations, shifted=False)}
    return harness.HeldParity(
        SimpleNamespace(cstwa_objective=cstwa_objective, **own), SimpleNamespace(network_weights=weights_of(state))
    )


def graph(side):
    """The entities of a side in a ring."""
    entity = np.array(ENTITIES[side], np.int32)
    ring = {"indices": np.roll(np.arange(len(entity)), 1).astype(np.int32), "values": np.ones(len(entity), np.float32)}
    return {"entity": entity, "features": entity[:, None], "indptr": np.arange(len(entity) + 1), **ring}


def prepared(model):
    """Give a model its graphs, what its entities moved by, and the thresholds."""
    for requirement in model.requires():
        model.provide(requirement, graph(requirement.side))
    for side, vectors in model.sides.items():
        if model.reading == "E":
            vectors.shift[1 : 1 + len(SHIFTS[side])] = torch.from_numpy(SHIFTS[side])
    if model.window is not None:
        model.window.bounds.copy_(torch.tensor(BOUNDS))


def then(plant):
    def both(model):
        prepared(model)
        plant(model)

    return both


RAW = {"escaper": {"undo_weights": False}}
OFF = {"migrator": "off", "perceptron": "off", "escaper": "off"}


def escaper(**options):
    return {"escaper": {"undo_weights": False, **options}}


CASES = {
    "whole": ("cstwa", RAW),
    "linear": ("cstwa", escaper(form="linear", epsilon=2.0), {"form": "linear", "epsilon": 2.0}),
    "jump": ("cstwa", escaper(form="jump"), {"form": "jump"}),
    "cap": ("cstwa", escaper(cap=1.2, epsilon=1.5), {"cap": 1.2, "epsilon": 1.5}),
    "calibrator-1": ("cstwa", {**RAW, "calibrator": 1.0}, {"alpha": 1.0}),
    "no-calibrator": ("cstwa", {**RAW, "calibrator": "off"}, {"alpha": None}),
    "no-migrator": ("unshifted", {**RAW, "migrator": "off"}),
    "no-perceptron": ("cstwa", {**RAW, "perceptron": "off"}),
    "no-escaper": ("cstwa", {"escaper": "off"}, {"weighted": False}),
    "all-off": ("unshifted", OFF, {"weighted": False}),
    "reading-B": ("unshifted", {**RAW, "migrator": {"reading": "B"}}),
    "reading-D": ("unshifted", {**RAW, "migrator": {"reading": "D"}}),
}


def case_of(harness, name):
    net, arguments, *options = CASES[name]
    return harness.Case("cstwa", net, "cstwa_objective", arguments, *options)


@pytest.mark.parametrize("name", CASES)
def test_forward_and_terms(parity, harness, name):
    parity.everywhere(case_of(harness, name), prepared)


@pytest.mark.parametrize("name", CASES)
def test_gradients(parity, harness, name):
    parity.gradients(case_of(harness, name), prepared)


def test_a_detached_perceptron_keeps_its_values_and_the_click_tower_from_the_conversion(parity, harness):
    detached = {**RAW, "perceptron": {"detach": True}}
    parity.everywhere(harness.Case("cstwa", "cstwa", "cstwa_objective", detached), prepared)
    model, given = harness.system("cstwa", detached, 3), harness.instance(3)
    prepared(model)
    model.loss(model(given.batch), given.batch).terms["ctcvr"].backward()
    assert model.information.weight.grad.abs().sum() > 0
    assert all(p.grad is None for module in (model.ctr_tower, model.ctr_encoder) for p in module.parameters())


# --- what is undone --------------------------------------------------------------------------------------------------


def check_undone(harness, plant):
    """Scores have odds(s) w0 / w1; `raw` has s."""
    for seed in range(4):
        raw, model = (harness.system("cstwa", arguments, seed) for arguments in (RAW, {}))
        given = harness.instance(seed)
        prepared(raw)
        prepared(model)
        plant(model)
        expected, found = raw.eval()(given.batch), model.eval()(given.batch)
        p, s = (np.exp(head.log_p.detach().numpy()) for head in (expected.ctr, expected.ctcvr))
        odds = s / (1 - s) * omega(p, np.zeros(len(p))) / omega(p, np.ones(len(p)))
        assert np.abs(odds - s / (1 - s)).max() > 0.01
        log_odds = (found.ctcvr.log_p - found.ctcvr.log_not_p).detach().numpy()
        np.testing.assert_allclose(log_odds, np.log(odds), rtol=1e-6, atol=1e-6)
        assert torch.equal(found.raw["ctcvr"].log_p, expected.ctcvr.log_p)
        assert torch.equal(found.raw["cvr"].log_p, expected.cvr.log_p)
        assert not expected.raw
        terms = [model.loss(outputs, given.batch).terms for outputs in (found, expected)]
        assert all(torch.equal(terms[0][name], terms[1][name]) for name in terms[0])


def test_scores_have_their_weights_undone(harness):
    check_undone(harness, lambda _: None)


def test_weights_undone_the_other_way_or_of_the_wrong_row_are_told(harness, monkeypatch):
    right = cstwa.undo_weights
    for wrong in (
        lambda s, w: right(s, LabelWeights(w.positive, w.negative)),
        lambda s, w: right(s, LabelWeights(w.negative.roll(1), w.positive.roll(1))),
        lambda s, _: s,
    ):
        monkeypatch.setattr(cstwa, "undo_weights", wrong)
        with pytest.raises(AssertionError):
            check_undone(harness, lambda _: None)


# --- invariants 10 ---------------------------------------------------------------------------------------------------


def terms_of(harness, arguments, plant=lambda _: None, seed=3):
    model, given = harness.system("cstwa", arguments, seed), harness.instance(seed)
    prepared(model)
    plant(model)
    return {name: term.item() for name, term in model.loss(model(given.batch), given.batch).terms.items()}


@pytest.mark.parametrize("options", [{"epsilon": 0.0}, {"epsilon": 0.0, "form": "linear"}, {"cap": 1.0}])
def test_no_strength_and_a_cap_of_1_are_the_plain_cross_entropy(harness, options):
    assert terms_of(harness, escaper(**options)) == terms_of(harness, {"escaper": "off"})
    assert terms_of(harness, escaper()) != terms_of(harness, {"escaper": "off"})


def test_an_information_layer_of_0_is_no_perceptron(harness):
    def silent(model):
        with torch.no_grad():
            model.information.weight.zero_()
            model.information.bias.zero_()

    model, given = harness.system("cstwa", RAW, 3), harness.instance(3)
    silent(model)
    assert torch.equal(model(given.batch).extras["gate"], torch.ones_like(model(given.batch).extras["gate"]))
    off = harness.system("cstwa", {**RAW, "perceptron": "off"}, 4)
    off.load_state_dict({name: value for name, value in model.state_dict().items() if "information" not in name})
    assert torch.equal(off(given.batch).ctcvr.log_p, model(given.batch).ctcvr.log_p)


# --- twins -----------------------------------------------------------------------------------------------------------


def attached_weights(model):
    """The conversion loss moves the click through the weights."""

    def loss(self, outputs, batch):
        sides = CSTWA._weights(self, outputs.ctr)
        self._weights = lambda _: sides
        found = CSTWA.loss(self, outputs, batch)
        del self._weights
        return found

    model.eval()  # in training the thresholds move, and autograd itself would tell
    model.__class__ = type("Twin", (CSTWA,), {"loss": loss})


def changed_weights(change):
    def plant(model):
        def weights(self, ctr):
            return change(self, ctr, CSTWA._weights(self, ctr))

        model.__class__ = type("Twin", (CSTWA,), {"_weights": weights})

    return plant


def uncapped(self, ctr, weights):
    self.escaper = dataclasses.replace(self.escaper, cap=1e6)
    return CSTWA._weights(self, ctr)


def clicks_are_labels(model):
    """The weights go by the click, not by click and conversion."""

    def loss(self, outputs, batch):
        weights = CSTWA._weights(self, outputs.ctr.detach())
        by_click = weights.of(batch.click)
        self._weights = lambda _: LabelWeights(by_click, by_click)
        found = CSTWA.loss(self, outputs, batch)
        del self._weights
        return found

    model.__class__ = type("Twin", (CSTWA,), {"loss": loss})


def normalised(model):
    """Divided by the sum of the weights."""

    def loss(self, outputs, batch):
        found = CSTWA.loss(self, outputs, batch)
        w = self._weights(outputs.ctr.detach()).of(batch.click * batch.conversion)
        return Losses({**found.terms, "ctcvr": found.terms["ctcvr"] / w.mean()})

    model.__class__ = type("Twin", (CSTWA,), {"loss": loss})


def halved_gate(model):
    """No factor 2: the gate would have a mean of 1/2."""

    def forward(self, batch):
        kept = self.ctcvr_encoder.joined
        self.ctcvr_encoder.joined = lambda *given: kept(*given) / 2
        outputs = CSTWA.forward(self, batch)
        del self.ctcvr_encoder.joined
        return outputs

    model.__class__ = type("Twin", (CSTWA,), {"forward": forward})


def product(model):
    """The head taken for a CVR: ctcvr = ctr cvr."""

    def forward(self, batch):
        outputs = CSTWA.forward(self, batch)
        return dataclasses.replace(outputs, ctcvr=outputs.ctr * LogProbability(*vars(outputs.ctcvr).values()))

    model.__class__ = type("Twin", (CSTWA,), {"forward": forward})


def no_shift(model):
    for vectors in model.sides.values():
        vectors.shift.zero_()


TWINS = {
    "uncapped": changed_weights(uncapped),
    "other side": changed_weights(lambda _, __, w: LabelWeights(w.positive, w.negative)),
    "by click": clicks_are_labels,
    "normalised": normalised,
    "halved gate": halved_gate,
    "product": product,
    "no shift": no_shift,
}


@pytest.mark.parametrize("name", TWINS)
def test_a_twin_is_told_by_its_values(parity, harness, name):
    with pytest.raises(AssertionError):
        parity.everywhere(case_of(harness, "whole"), then(TWINS[name]))


def test_attached_weights_are_told_by_their_gradient_alone(parity, harness):
    parity.everywhere(case_of(harness, "whole"), then(attached_weights))
    with pytest.raises(AssertionError):
        parity.gradients(case_of(harness, "whole"), then(attached_weights))
