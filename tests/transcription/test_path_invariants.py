"""What must hold of products and twins along the path (SYSTEMS section 15, 8 and 11), and twins that break it."""

from dataclasses import replace

import pytest
import torch

from postclick.losses.constraints import tower_distance
from postclick.losses.probability import LogProbability
from postclick.models.base import Losses

CASES = {
    "esm2": ("esm2", "shared", "esm2_objective"),
    "esmc": ("esmc", "siamese", "esmc_objective", {"constraint": 0.3}, {"strength": 0.3}),
}
PRODUCTS = {"esmm": {}, "esm2": {}, "esmc": {}, "esms": {}}


def nothing(model):
    """Plant no bug."""


def told(check, *arguments):
    with pytest.raises(AssertionError):
        check(*arguments)


def rewritten(harness, change):
    """Plant other outputs: `change(outputs, factors)`, the factors those of `extras`."""

    def plant(model):
        base = type(model)
        harness.twin(model, forward=lambda self, batch: change(base.forward(self, batch)))

    return plant


def same(one, other):
    for side in ("log_p", "log_not_p"):
        torch.testing.assert_close(getattr(one, side), getattr(other, side), rtol=1e-12, atol=1e-15)


# --- 8: products -----------------------------------------------------------------------------------------------------


def check_products(harness, key, arguments, plant):
    """The pCTCVR is pCTR pCVR and at most pCTR; the pCTAVR is pCTR pAction and at most pCTR."""
    for seed in range(3):
        model = harness.system(key, arguments, seed)
        plant(model)
        heads = model(harness.instance(seed, rows=50).batch).heads()
        for product, factor in (("ctcvr", "cvr"), ("ctar", "action")):
            if product in heads:
                same(heads[product], heads["ctr"] * heads[factor])
                assert (heads[product].log_p <= heads["ctr"].log_p).all()
                assert (heads[product].log_not_p >= heads["ctr"].log_not_p).all()


def check_branches(harness, plant):
    """Where an action is certain the pCVR is y3, where it cannot be it is y4, and in between it is between the two."""
    model, given = harness.system("esm2", {}, 4), harness.instance(4, rows=50)
    plant(model)
    outputs = model(given.batch)
    y3, y4 = (outputs.extras[name] for name in ("purchase_action", "purchase_other"))
    low, high = (LogProbability.from_logit(of(y3, y4)).log_p for of in (torch.minimum, torch.maximum))
    assert ((low - 1e-12 <= outputs.cvr.log_p) & (outputs.cvr.log_p <= high + 1e-12)).all()
    head = model.network.heads["action"].linear
    for action, branch in ((80.0, y3), (-80.0, y4)):
        with torch.no_grad():
            head.weight.zero_()
            head.bias.fill_(action)
        same(model(given.batch).cvr, LogProbability.from_logit(branch))


def swapped(outputs):
    """The purchase factors read the other branch's action: (1 - y2) y3 + y2 y4."""
    y3, y4 = (LogProbability.from_logit(outputs.extras[f"purchase_{branch}"]) for branch in ("action", "other"))
    cvr = outputs.action.mixture(y4, y3)
    return replace(outputs, cvr=cvr, ctcvr=outputs.ctr * cvr)


def without_click(outputs):
    """The purchase of the path is composed after the action without the click: pCTCVR = pCVR."""
    return replace(outputs, ctcvr=outputs.cvr)


def summed_logits(outputs):
    """Logits multiplied where probabilities are meant."""
    logits = [head.log_p - head.log_not_p for head in (outputs.ctr, outputs.cvr)]
    return replace(outputs, ctcvr=LogProbability.from_logit(logits[0] * logits[1]))


@pytest.mark.parametrize("key", PRODUCTS)
def test_products_are_products(harness, key):
    check_products(harness, key, PRODUCTS[key], nothing)
    for change in (without_click, summed_logits):
        told(check_products, harness, key, PRODUCTS[key], rewritten(harness, change))


def test_the_chain_is_a_product_of_three(harness):
    check_products(harness, "esm2", {"other_action": False}, nothing)


def test_each_purchase_factor_reads_its_own_branch(harness, parity):
    check_branches(harness, nothing)
    told(check_branches, harness, rewritten(harness, swapped))
    told(parity.everywhere, harness.Case(*CASES["esm2"]), rewritten(harness, swapped))


def test_products_alone_do_not_tell_swapped_branches(harness):
    """Why `check_branches` is there: whatever the pCVR is made of, it is still multiplied by the pCTR."""
    check_products(harness, "esm2", {}, rewritten(harness, swapped))


# --- 11: the constraint ----------------------------------------------------------------------------------------------


def check_constraint(harness, plant):
    """It pulls on both towers: 2 lambda (W_a - W_b) on one and its negative on the other, nothing where they agree."""
    model, given = harness.system("esmc", {"constraint": 0.3}, 5), harness.instance(5)
    plant(model)
    one, other = (tuple(tower.parameters()) for tower in (model.action_tower, model.purchase_tower))
    term = model.loss(model(given.batch), given.batch).terms["constraint"]
    found = torch.autograd.grad(term, one + other, allow_unused=True, materialize_grads=True)
    for a, b, slope, counter in zip(one, other, found, found[len(one) :], strict=False):
        torch.testing.assert_close(slope, 2 * 0.3 * (a - b).detach())
        torch.testing.assert_close(counter, -2 * 0.3 * (a - b).detach())
    model.purchase_tower.load_state_dict(model.action_tower.state_dict())
    assert model.loss(model(given.batch), given.batch).terms["constraint"].item() == 0


def check_free_twins(harness, plant):
    """At lambda = 0 the terms ctr and ctcvr are ESMM's, to the bit, and so are the gradients of all that they move."""
    model, given = harness.system("esmc", {"constraint": 0.0}, 6), harness.instance(6)
    esmm = harness.system("esmm", {}, 7)
    renamed = {"ctr_tower.": "towers.ctr.", "ctr_head.": "heads.ctr.", "encoder.": "encoder."}
    renamed |= {"purchase_tower.": "towers.cvr.", "purchase_head.": "heads.cvr."}
    pairs = {
        name: "network." + name.replace(old, new, 1)
        for name in model.state_dict()
        for old, new in renamed.items()
        if name.startswith(old)
    }
    esmm.load_state_dict({new: model.state_dict()[old] for old, new in pairs.items()})
    plant(model)
    losses = [system.loss(system(given.batch), given.batch).terms for system in (model, esmm)]
    assert "constraint" not in losses[0] or losses[0]["constraint"].item() == 0
    for terms in losses:
        (terms["ctr"] + terms["ctcvr"]).backward()
    for name in ("ctr", "ctcvr"):
        assert losses[0][name].item() == losses[1][name].item()
    for old, new in pairs.items():
        assert torch.equal(model.get_parameter(old).grad, esmm.get_parameter(new).grad), old
    assert all(parameter.grad is None for parameter in model.action_tower.parameters())


def check_tied(harness, strength, plant):
    """With equal towers the loss is that of ESMS, and their gradients sum to those of its one tower, for any lambda."""
    esms, given = harness.system("esms", {}, 8), harness.instance(8)
    model = harness.system("esmc", {"constraint": strength}, 9)
    tower = {name.replace("action_tower", "purchase_tower"): value for name, value in esms.state_dict().items()}
    model.load_state_dict({**tower, **esms.state_dict()})
    plant(model)
    totals = [sum(system.loss(system(given.batch), given.batch).terms.values()) for system in (model, esms)]
    torch.testing.assert_close(totals[0], totals[1], rtol=1e-12, atol=0)
    for total in totals:
        total.backward()
    towers = zip(model.action_tower.parameters(), model.purchase_tower.parameters(), strict=True)
    for (a, b), one in zip(towers, esms.action_tower.parameters(), strict=True):
        torch.testing.assert_close(a.grad + b.grad, one.grad, rtol=1e-9, atol=1e-15)


def other_constraint(harness, distance):
    def plant(model):
        base = type(model)

        def loss(self, outputs, batch):
            terms = dict(base.loss(self, outputs, batch).terms)
            return Losses({**terms, "constraint": self.constraint * distance(self)})

        harness.twin(model, loss=loss)

    return plant


def onto_one(model):
    """The other tower is detached: the constraint moves one of the two."""
    total = 0.0
    for a, b in zip(model.action_tower.parameters(), model.purchase_tower.parameters(), strict=True):
        total = total + (a.detach() - b).square().sum()
    return total


def norm_of_one(model):
    """The norm of one tower in the place of the distance of two."""
    return sum(b.square().sum() for b in model.purchase_tower.parameters())


def after_the_action(outputs):
    """The purchase is composed after the action: the chain that ESMC is there to avoid."""
    return replace(outputs, ctcvr=outputs.ctar * outputs.cvr)


def test_the_constraint_pulls_on_both_towers(harness):
    check_constraint(harness, nothing)


@pytest.mark.parametrize("distance", [onto_one, norm_of_one])
def test_a_constraint_on_one_tower_is_told(harness, parity, distance):
    plant = other_constraint(harness, distance)
    told(check_constraint, harness, plant)
    told(parity.gradients, harness.Case(*CASES["esmc"]), plant)


def test_a_detached_tower_has_the_right_value(harness, parity):
    """Why gradients are compared: the value of the loss does not tell."""
    parity.everywhere(harness.Case(*CASES["esmc"]), other_constraint(harness, onto_one))


def test_without_the_constraint_it_is_esmm_beside_an_action_head(harness):
    check_free_twins(harness, nothing)
    told(check_free_twins, harness, rewritten(harness, after_the_action))


@pytest.mark.parametrize("strength", [0.0, 0.3, 1e6])
def test_with_equal_towers_it_is_esms(harness, strength):
    check_tied(harness, strength, nothing)
    if strength:
        told(check_tied, harness, strength, other_constraint(harness, norm_of_one))


def test_the_distance_counts_biases():
    one, other = torch.nn.Linear(2, 3), torch.nn.Linear(2, 3)
    other.load_state_dict({**one.state_dict(), "bias": one.bias.detach() + 2})
    assert tower_distance(one, other).item() == pytest.approx(12)
