"""dfm and es-dfm against their equations (SYSTEMS 14.7), row by row, and planted bugs."""

import dataclasses
import math
import types

import numpy as np
import pytest
import torch

from postclick.models.base import Delays
from postclick.schema import Columns

WINDOW, WAIT, DAYS = 4.0, 0.4, 10.0
STREAM = DAYS - WINDOW
COLUMNS = Columns(
    click_time="c", conversion_time="b", observed_until="u", attribution_window=WINDOW * 86_400.0, immature="censor"
)


def sigmoid(z):
    return 1 / (1 + math.exp(-z))


def loss(y, f):
    return -(y * math.log(f) + (1 - y) * math.log(1 - f))


def rows_of(y):
    return zip(*(y[name] for name in ("click", "conversion", "elapsed", "delay", "weight")), strict=True)


def averaged(rows, weight):
    return sum(w * value for w, value in zip(weight, rows, strict=True)) / weight.sum()


def heads(logits):
    p, q = (1 / (1 + np.exp(-logits[task])) for task in ("ctr", "cvr"))
    return {"ctr": p, "cvr": q, "ctcvr": p * q}


def dfm_objective(logits, y, cut=True):
    """A delay is exponential, in windows; what has not come by the end of the window never does."""
    rows = []
    for number, (o, r, elapsed, delay, _) in enumerate(rows_of(y)):
        q, g = sigmoid(logits["cvr"][number]), logits["delay"][number]
        rate, d, e = math.log(1 + math.exp(g)), min(delay / WINDOW, 1), min(elapsed / WINDOW, 1)
        lost = math.exp(-rate) if cut else 0.0
        density, unseen = rate * math.exp(-rate * d) / (1 - lost), (math.exp(-rate * e) - lost) / (1 - lost)
        rows.append(o * (-math.log(q * density) if r else -math.log(1 - q + q * unseen)))
    found = heads(logits)
    ctr = [loss(o, p) for o, p in zip(y["click"], found["ctr"], strict=True)]
    return found, {"ctr": averaged(ctr, y["weight"]), "cvr": averaged(rows, y["weight"])}


def es_dfm_objective(logits, y, held=None):
    """Events of a click: told at its wait, told again when it converts later; history once. `held`: stopped weights."""
    rows = {name: [] for name in ("cvr", "late", "never")}
    for number, (o, r, e, d, _) in enumerate(rows_of(y)):
        q, p_dp, p_rn = (sigmoid(logits[task][number]) for task in ("cvr", "late", "never"))
        s_dp, s_rn = (p_dp, p_rn) if held is None else (sigmoid(held[task][number]) for task in ("late", "never"))
        late = r == 1 and d > WAIT
        total, first, again = 0.0, e - WAIT, e - d
        if 0 <= first <= STREAM:
            total += (1 + s_dp) * (-math.log(q) if r and not late else -s_rn * math.log(1 - q))
        if late and 0 <= again <= STREAM:
            total += (1 + s_dp) * -math.log(q)
        if first > STREAM and e >= WINDOW:
            total += loss(r, q)
        rows["cvr"].append(o * total)
        closed = o * (e >= WINDOW)
        rows["late"].append(closed * loss(float(late), p_dp))
        rows["never"].append(closed * (r == 0 or late) * loss(1 - r, p_rn))
    found = heads(logits)
    rows["ctr"] = [loss(o, p) for o, p in zip(y["click"], found["ctr"], strict=True)]
    return found, {name: averaged(values, y["weight"]) for name, values in rows.items()}


@pytest.fixture
def timed(harness, monkeypatch):
    """The harness with clicks of every age, and a spec whose log says so."""
    plain, schema = harness.instance, dataclasses.replace(harness.SPEC.schema, columns=COLUMNS)

    def instance(seed, **given):
        found, rng = plain(seed, **given), np.random.default_rng([seed, 5])
        y, rows = found.y, len(found.y["click"])
        y["elapsed"] = y["click"] * rng.choice([0.2, 1.0, 2.5, 3.9, 4.5, 6.2, 6.6, 9.0], rows)
        y["delay"] = y["click"] * y["conversion"] * y["elapsed"] * rng.choice([0.02, 0.3, 0.4], rows)
        immature = torch.tensor((y["elapsed"] < WINDOW).astype(float))
        elapsed, delay = torch.tensor(y["elapsed"]), torch.tensor(y["delay"])
        # the click's weights are those of every row; the conversion's, which these systems do not read, are not
        delays = Delays(elapsed, delay, immature, found.batch.weight)
        none = torch.zeros(rows, dtype=torch.float64)
        return harness.Instance(found.x, y, dataclasses.replace(found.batch, delays=delays, weight=none))

    monkeypatch.setattr(harness, "instance", instance)
    monkeypatch.setattr(harness, "SPEC", dataclasses.replace(harness.SPEC, schema=schema, days=DAYS))
    return harness


@pytest.fixture
def ours(timed, equations, state):
    both = types.SimpleNamespace(separate=equations.separate, dfm=dfm_objective, es_dfm=es_dfm_objective)
    return timed.Parity(both, state)


CASES = {
    "dfm": ("dfm", "separate_tables", "dfm"),
    "dfm-no-end": ("dfm", "separate_tables", "dfm", {"cut_at_window": False}, {"cut": False}),
    "es-dfm": ("es-dfm", "separate_tables", "es_dfm"),
}


@pytest.mark.parametrize("name", CASES)
def test_forward_and_terms(ours, timed, name):
    ours.everywhere(timed.Case(*CASES[name]))


@pytest.mark.parametrize("name", ["dfm", "dfm-no-end"])
def test_gradients(ours, timed, name):
    case = timed.Case(*CASES[name])
    given, model = timed.instance(timed.EVERY_KIND, rows=24), timed.system(case.key, case.arguments, 10)
    sum(model.loss(model(given.batch), given.batch).terms.values()).backward()
    weights = timed.arrays(model)
    for parameter, found in model.named_parameters():
        expected = ours._differences(case, weights, parameter, given)
        np.testing.assert_allclose(found.grad.numpy(), expected, rtol=1e-5, atol=1e-8, err_msg=parameter)


def test_gradients_of_es_dfm_stop_at_its_weights(ours, timed, equations, state):
    """Differences with the weights held where they are: moved with the rest, they would be other numbers."""
    case = timed.Case(*CASES["es-dfm"])
    given, model = timed.instance(timed.EVERY_KIND, rows=24), timed.system(case.key, case.arguments, 10)
    sum(model.loss(model(given.batch), given.batch).terms.values()).backward()
    weights = timed.arrays(model)
    held = equations.separate(given.x, state.network_weights(case.network, weights))
    stopped = dataclasses.replace(case, options={"held": held})
    for parameter, found in model.named_parameters():
        expected = ours._differences(stopped, weights, parameter, given)
        np.testing.assert_allclose(found.grad.numpy(), expected, rtol=1e-5, atol=1e-8, err_msg=parameter)
    moved = ours._differences(case, weights, "network.heads.late.linear.bias", given)
    grad = dict(model.named_parameters())["network.heads.late.linear.bias"].grad.numpy()
    assert abs(moved - grad).max() > 1e-3


@pytest.mark.parametrize("key", ["dfm", "es-dfm"])
def test_values_tell_a_delay_that_is_forgotten(ours, timed, key):
    case = timed.Case(*CASES[key])
    model = timed.system(case.key, case.arguments, 3)
    own = type(model).loss

    def without(self, outputs, batch):
        return own(self, outputs, dataclasses.replace(batch, delays=None, weight=batch.click_weight))

    timed.twin(model, loss=without)
    with pytest.raises(AssertionError):
        ours.forward(case, timed.instance(2, rows=24), model)
