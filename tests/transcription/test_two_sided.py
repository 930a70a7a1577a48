"""dcmt, ddpo, nise and chorus against their equations (SYSTEMS, 14.1 to 14.4), and planted bugs.

Objectives stand here as networks stand in equations.py. A stopped gradient sg[.] is a number held fixed: the
differences take what is stopped from the logits at the point itself, `held`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from postclick.losses.probability import LogProbability
from postclick.losses.propensity import absolute_floor, inverse_propensity_weights, self_normalised, weight_diagnostics
from postclick.losses.reduce import mean_over_exposures
from postclick.models.base import Losses
from postclick.models.debiasing import ClickWeights, WeightedRisk

BASE_CTR = 0.3
"""That of harness.SPEC."""


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def bce(y, f):
    return -(y * np.log(f) + (1 - y) * np.log(1 - f))


def mean(values, y):
    return (y["weight"] * values).sum() / y["weight"].sum()


def sides(y, p, *, floor=0.1, cap=np.inf, self_normalise=False):
    """w1 = o/p and w0 = (1-o)/(1-p) within floor and cap, then divided by their means over D."""
    o, s = y["click"], y["weight"]
    both = []
    for side, chance, base in ((o, p, BASE_CTR), (1 - o, 1 - p, 1 - BASE_CTR)):
        w = side * np.minimum(1 / np.maximum(chance, floor * base), cap)
        if self_normalise and (s * w).sum() > 0:
            w = w / ((s * w).sum() / s.sum())
        both.append(w)
    return both


def dcmt_objective(logits, y, held, strength=1e-3, **weighting):
    """L_CTR + 1/|D| [sum_O l(r, q)/p + sum_N* l(1-r, q*)/(1-p)] + lambda/|D| sum_D |1 - (q + q*)| + L_CTCVR (14.1)."""
    o, t = y["click"], y["click"] * y["conversion"]
    p, q, star = (sigmoid(logits[task]) for task in ("ctr", "cvr", "counterfactual"))
    w1, w0 = sides(y, sigmoid(held["ctr"]), **{"self_normalise": True, **weighting})
    terms = {
        "ctr": mean(bce(o, p), y),
        "ctcvr": mean(bce(t, p * q), y),
        "cvr": mean(w1 * bce(y["conversion"], q), y),
        "counterfactual": mean(w0 * bce(np.ones(len(o)), star), y),
        "complement": strength * mean(abs(1 - (q + star)), y),
    }
    return {"ctr": p, "cvr": q, "ctcvr": p * q}, terms


def ddpo_objective(logits, y, held, strengths=(1, 1, 0.1, 1), clicked="soft", **weighting):
    """lo L_o + lc L_c + lr L_r + lt L_t, eqs. (6), (9), (10), (15)-(18) (14.2)."""
    o, r, t = y["click"], y["conversion"], y["click"] * y["conversion"]
    lo, lc, lr, lt = strengths
    p, q, c = (sigmoid(logits[task]) for task in ("ctr", "cvr", "conversion"))
    w1, w0 = sides(y, sigmoid(held["ctr"]), **{"self_normalise": True, **weighting})
    soft = sigmoid(held["conversion"])
    star = np.where(t == 1, 1, np.where((o == 1) & (clicked == "observed"), 0, soft))
    terms = {
        "ctr": lo * mean(bce(o, p), y),
        "conversion": lc * mean(o * bce(r, c), y),
        "cvr": lr * mean(w1 * bce(star, q) + w0 * bce(star, q), y),
        "ctcvr": lt * mean(bce(t, p * q), y),
    }
    return {"ctr": p, "cvr": q, "ctcvr": p * q}, terms


def nise_objective(logits, y, held, alpha=1.0, beta=50.0):
    """L_CTR + omega L_CVR, L_CVR = 1/|D| [sum_O l(r, q) + sum_N* H(q)], omega = alpha min(L_CTR/L_CVR, beta) (14.3)."""
    o = y["click"]

    def losses(logits):
        p, q = sigmoid(logits["ctr"]), sigmoid(logits["cvr"])
        entropy = -(q * np.log(q) + (1 - q) * np.log(1 - q))
        return mean(bce(o, p), y), mean(np.where(o == 1, bce(y["conversion"], q), entropy), y)

    (ctr, cvr), (held_ctr, held_cvr) = losses(logits), losses(held)
    p, q = sigmoid(logits["ctr"]), sigmoid(logits["cvr"])
    terms = {"ctr": ctr, "cvr": alpha * min(held_ctr / held_cvr, beta) * cvr}
    return {"ctr": p, "cvr": q, "ctcvr": p * q}, terms


def chorus_objective(logits, y, held, own=1.0, weighted=1.0, align=1.0, **weighting):
    """L_ctcvr + L_cvr^IPW + L_ctuncvr + L_uncvr^IPW + L_align^IPW, and the click's own loss (14.4)."""
    o, r = y["click"], y["conversion"]
    p, q, u = (sigmoid(logits[task]) for task in ("ctr", "cvr", "uncvr"))
    w1, w0 = sides(y, sigmoid(held["ctr"]), **weighting)
    for_q, for_u = 1 - sigmoid(held["uncvr"]), 1 - sigmoid(held["cvr"])
    four = [w * bce(label, f) for w in (w1, w0) for label, f in ((for_q, q), (for_u, u))]
    terms = {
        "ctr": own * mean(bce(o, p), y),
        "ctcvr": mean(bce(o * r, p * q), y),
        "ctuncvr": mean(bce(o * (1 - r), p * u), y),
        "cvr": weighted * mean(w1 * bce(r, q), y),
        "uncvr": weighted * mean(w1 * bce(1 - r, u), y),
        "align": align * mean(sum(four), y),
    }
    return {"ctr": p, "cvr": q, "ctcvr": p * q}, terms


def transfers(equations):
    """The towers' outputs meet below the heads: a(g(f), f_r) for either propensity, fused (eqs. 12-14)."""

    def linear(x, layer):
        return x @ layer[0].T + layer[1]

    def attention(e, f, weights):
        scores = [
            (linear(u, weights["query"]) * linear(u, weights["key"])).sum(1) / np.sqrt(f.shape[1]) for u in (e, f)
        ]
        share = equations.softmax(np.stack(scores, 1))
        return share[:, [0]] * linear(e, weights["value"]) + share[:, [1]] * linear(f, weights["value"])

    def network(x, weights):
        v = equations.features(x, weights["table"])
        f = {task: equations.mlp(v, net["hidden"]) for task, net in weights["towers"].items()}
        taken = [
            attention(equations.mlp(f[task], m["information"]), f["cvr"], m) for task, m in weights["modules"].items()
        ]
        f["cvr"] = equations.mlp(np.concatenate(taken, 1), weights["fuse"])
        heads = {task: net["head"] for task, net in weights["towers"].items()}
        return {task: f[task] @ w.reshape(-1) + b.reshape(()) for task, (w, b) in heads.items()}

    return network


def transfer_weights(state_of):
    def weights(network, state):
        if network != "transfers":
            return state_of.network_weights(network, state)
        modules = {}
        for task in ("ctr", "conversion"):
            prefix = f"transfer.attention.{task}"
            modules[task] = {
                part: (state[f"{prefix}.{part}.weight"], state[f"{prefix}.{part}.bias"])
                for part in ("query", "key", "value")
            }
            modules[task]["information"] = state_of.layers(state, f"transfer.information.{task}")
        fuse = state_of.layers(state, "transfer.fuse")
        return {**state_of.network_weights("shared", state), "modules": modules, "fuse": fuse}

    return weights


@pytest.fixture(scope="module")
def parity(harness, equations, state):
    objectives = (dcmt_objective, ddpo_objective, nise_objective, chorus_objective)
    own = {objective.__name__: objective for objective in objectives}
    return harness.HeldParity(
        SimpleNamespace(**{**vars(equations), **own, "transfers": transfers(equations)}),
        SimpleNamespace(network_weights=transfer_weights(state)),
    )


TIGHT = {"floor": 1.0, "cap": 2.0}
"""Bites on both sides."""
TIGHT_RISK = {"propensity_floor": 1.0, "cap": 2.0}
OFF = {"transfer": None}
MMOE = {"trunk": "mmoe", "experts": {"hidden": [3], "dropout": [0.0], "count": 3}}


def of(key, network="shared", arguments=None, **options):
    return (key, network, f"{key}_objective", arguments or {}, options)


CASES = {
    "dcmt": of("dcmt"),
    "dcmt-mmoe": of("dcmt", "mmoe", MMOE),
    "dcmt-tight": of("dcmt", "shared", {"risk": TIGHT_RISK}, **TIGHT),
    "dcmt-plain-weights": of(
        "dcmt",
        "shared",
        {"risk": {"self_normalise": False, "complement_weight": 0.3}},
        self_normalise=False,
        strength=0.3,
    ),
    "ddpo": of("ddpo", "transfers"),
    "ddpo-no-transfer": of("ddpo", "shared", OFF),
    "ddpo-observed": of("ddpo", "shared", {**OFF, "risk": {"clicked_label": "observed"}}, clicked="observed"),
    "ddpo-tight": of(
        "ddpo",
        "transfers",
        {"risk": {**TIGHT_RISK, "lambda_o": 0.5, "lambda_c": 0.7, "lambda_r": 1.3, "lambda_t": 0.9}},
        strengths=(0.5, 0.7, 1.3, 0.9),
        **TIGHT,
    ),
    "nise": of("nise"),
    "nise-beta": of("nise", "shared", {"alpha": 0.7, "beta": 0.5}, alpha=0.7, beta=0.5),
    "chorus": of("chorus"),
    "chorus-weights": of(
        "chorus",
        "shared",
        {"risk": {**TIGHT_RISK, "ctr_weight": 0.5, "weighted": 0.7, "align": 1.3, "self_normalise": True}},
        **{"own": 0.5, "weighted": 0.7, "align": 1.3, "self_normalise": True},
        **TIGHT,
    ),
}


@pytest.fixture(params=CASES)
def case(request, harness):
    return harness.Case(*CASES[request.param])


def test_forward_and_terms(parity, case):
    parity.everywhere(case)


def test_gradients(parity, case):
    parity.gradients(case)


# --- planted bugs: values tell some, slopes the others ---------------------------------------------------------------


def term(name: str, rows: Callable):
    """Plant another term `name`, the mean over exposures of `rows`(model, outputs, batch)."""

    def plant(harness, model):
        base = type(model)

        def loss(self, outputs, batch):
            found = base.loss(self, outputs, batch)
            return Losses({**found.terms, name: mean_over_exposures(rows(self, outputs, batch), batch.weight)})

        harness.twin(model, loss=loss)

    return plant


def both(model, outputs, batch):
    weights = model.risk.both_sides(batch.click, outputs.ctr.detach(), BASE_CTR, batch)
    return weights.clicked + weights.unclicked


def soft_label_left(model, outputs, batch):
    """DDPO: the soft label keeps its gradient, so that the CVR teaches its teacher."""
    soft = torch.sigmoid(outputs.extras["conversion"])
    label = model.risk.label(batch.click, batch.conversion, soft)
    return model.risk.lambda_r * both(model, outputs, batch) * outputs.cvr.cross_entropy(label)


def alignment_left(model, outputs, batch):
    """Chorus: the alignment stops neither head."""
    u = LogProbability.from_logit(outputs.extras["uncvr"])
    aligned = outputs.cvr.cross_entropy(u.log_not_p.exp()) + u.cross_entropy(outputs.cvr.log_not_p.exp())
    return model.risk.align * both(model, outputs, batch) * aligned


def unclicked_as_they_are(model, outputs, batch):
    """DCMT: unclicked rows count 1 and not 1 / (1 - p)."""
    star = LogProbability.from_logit(outputs.extras["counterfactual"])
    return -(1 - batch.click) * star.log_p


def weights_left(harness, model):
    """The weights keep their gradient, as where the result of a detach is thrown away."""
    model.risk = replace(model.risk, detach_propensity=False)


def nise(*, stopped_label: bool, stopped_omega: bool):
    def plant(harness, model):
        def loss(self, outputs, batch):
            o, q = batch.click, outputs.cvr
            label = q.log_p.exp().detach() if stopped_label else q.log_p.exp()
            rows = o * q.cross_entropy(batch.conversion) + (1 - o) * q.cross_entropy(label)
            ctr = mean_over_exposures(outputs.ctr.cross_entropy(o), batch.weight)
            cvr = mean_over_exposures(rows, batch.weight)
            omega = self.alpha * (ctr / cvr).clamp(max=self.beta)
            return Losses({"ctr": ctr, "cvr": (omega.detach() if stopped_omega else omega) * cvr})

        harness.twin(model, loss=loss)

    return plant


def weighted(weights: Callable):
    """Plant a risk that weighs either side by `weights`."""

    def plant(harness, model):
        kind = type(model.risk)
        twin = type(f"Twin{kind.__name__}", (kind,), {"weights": weights})
        model.risk = twin(**{name: getattr(model.risk, name) for name in kind.__dataclass_fields__})

    return plant


def clip_after_scaling(self, side, propensity, base, batch):
    """The cap comes after self-normalisation: another cap in every batch."""
    raw = inverse_propensity_weights(side, propensity, floor=0.0)
    rows = self_normalised(raw, batch.weight).clamp(max=min(1 / absolute_floor(base, self.propensity_floor), self.cap))
    return ClickWeights(rows, raw, weight_diagnostics(side, propensity, floor=0.0))


def by_side(self, side, propensity, base, batch):
    """1 / clicks in place of 1 / |D|: 1 / CTR larger."""
    right = WeightedRisk.weights(self, side, propensity, base, batch)
    s = torch.ones_like(side) if batch.weight is None else batch.weight
    return replace(right, rows=right.rows * s.sum() / (s * side).sum().clamp(min=1e-9))


BY_SLOPES = {
    "dcmt-weights-left": ("dcmt", weights_left),
    "ddpo-weights-left": ("ddpo-no-transfer", weights_left),
    "chorus-weights-left": ("chorus", weights_left),
    "ddpo-soft-label-left": ("ddpo", term("cvr", soft_label_left)),
    "chorus-alignment-left": ("chorus", term("align", alignment_left)),
    "nise-label-stopped": ("nise", nise(stopped_label=True, stopped_omega=True)),
    "nise-omega-left": ("nise", nise(stopped_label=False, stopped_omega=False)),
}
BY_VALUES = {
    "dcmt-clip-after-scaling": ("dcmt-tight", weighted(clip_after_scaling)),
    "dcmt-unclicked-as-they-are": ("dcmt", term("counterfactual", unclicked_as_they_are)),
    "ddpo-clip-after-scaling": ("ddpo-tight", weighted(clip_after_scaling)),
    "chorus-by-side": ("chorus", weighted(by_side)),
}


@pytest.mark.parametrize("name", BY_SLOPES)
def test_slopes_tell_a_stop_in_the_wrong_place(parity, harness, name):
    case, plant = BY_SLOPES[name]
    case = harness.Case(*CASES[case])
    parity.everywhere(case, lambda model: plant(harness, model))  # values do not
    with pytest.raises(AssertionError):
        parity.gradients(case, lambda model: plant(harness, model))


@pytest.mark.parametrize("name", BY_VALUES)
def test_values_tell_a_wrong_weight(parity, harness, name):
    case, plant = BY_VALUES[name]
    with pytest.raises(AssertionError):
        parity.everywhere(harness.Case(*CASES[case]), lambda model: plant(harness, model))


def test_the_twin_of_nise_without_a_plant_is_nise(parity, harness):
    right = nise(stopped_label=False, stopped_omega=True)
    parity.gradients(harness.Case(*CASES["nise"]), lambda model: right(harness, model))
