"""Every part gets the gradients its paper gives it, and none that it stops.

The table says, a system, a group of parameters (by prefix) and a term of the loss: on which rows does the term move
the group. u: unclicked, c: clicked without conversion, v: converted.
"""

import dataclasses

import numpy as np
import pytest
import torch

from postclick.losses.entire_space import click_loss, joint_loss
from postclick.losses.reduce import mean_over_exposures
from postclick.models.base import Losses, Outputs
from postclick.models.batching import to_batch
from postclick.models.esmm import ESMM
from postclick.models.mlp import MLP
from postclick.nn.embedding import use_sparse_gradients

SITUATIONS = {"u": (0.0, 0.0), "c": (1.0, 0.0), "v": (1.0, 1.0)}


def parts(*tasks):
    return tuple(f"network.{part}.{task}" for task in tasks for part in ("towers", "heads"))


def mmoe(task, on):
    """Experts serve both tasks; each gate and head its own."""
    return {
        ("network.encoder", "network.trunk.bank"): {"ctr": "ucv", task: on},
        ("network.trunk.gates.0", "network.heads.ctr"): {"ctr": "ucv", task: ""},
        ("network.trunk.gates.1", f"network.heads.{task}"): {"ctr": "", task: on},
    }


def omoe(task, on):
    """The one gate serves both tasks, too."""
    return {
        ("network.encoder", "network.trunk"): {"ctr": "ucv", task: on},
        ("network.heads.ctr",): {"ctr": "ucv", task: ""},
        (f"network.heads.{task}",): {"ctr": "", task: on},
    }


def own(encoder, task):
    return (f"network.{encoder}", *parts(task))


def delays(delay):
    """Three networks that share nothing; the delay's learns on the situations named."""
    return {
        own("encoder", "ctr"): {"ctr": "ucv", "cvr": ""},
        own("own_encoders.0", "cvr"): {"ctr": "", "cvr": "cv"},
        own("own_encoders.1", "delay"): {"ctr": "", "cvr": delay},
    }


def multi_dr(cvr):
    """The propensity is detached, and of the two sides of the doubly robust loss each learns with the other still."""
    return {
        ("network.encoder",): {"ctr": "ucv", "cvr": cvr, "imputation": "cv"},
        parts("ctr"): {"ctr": "ucv", "cvr": "", "imputation": ""},
        parts("cvr"): {"ctr": "", "cvr": cvr, "imputation": ""},
        parts("imputation"): {"ctr": "", "cvr": "", "imputation": "cv"},
    }


def escm2_dr():
    """An imputed label reaches the CVR from every row; only the joint loss moves both towers."""
    still = {"ctr": "", "cvr": "", "ctcvr": "", "imputation": ""}
    return {
        ("network.encoder", "network.trunk.bank"): {"ctr": "ucv", "cvr": "ucv", "ctcvr": "ucv", "imputation": "cv"},
        ("network.trunk.gates.0", "network.heads.ctr"): {**still, "ctr": "ucv", "ctcvr": "ucv"},
        ("network.trunk.gates.1", "network.heads.cvr"): {**still, "cvr": "ucv", "ctcvr": "ucv"},
        ("network.trunk.gates.2", "network.heads.imputation"): {**still, "imputation": "cv"},
    }


def three_networks():
    """Nothing is shared: each network feels its own term."""
    still = {"ctr": "", "cvr": "", "imputation": ""}
    return {
        ("ctr_network",): {**still, "ctr": "ucv"},
        ("cvr_network",): {**still, "cvr": "ucv"},
        ("imputation_network",): {**still, "imputation": "cv"},
    }


def ple(task, on):
    """Two levels: below the last, a task's experts serve the other one through the shared gate; its gate does not."""
    first, last = "network.trunk.levels.0", "network.trunk.levels.1"
    both = ("network.encoder", f"{first}.own", f"{first}.shared", f"{first}.shared_gate", f"{last}.shared")
    return {
        both: {"ctr": "ucv", task: on},
        (f"{first}.gates.0", f"{last}.gates.0", f"{last}.own.0", "network.heads.ctr"): {"ctr": "ucv", task: ""},
        (f"{first}.gates.1", f"{last}.gates.1", f"{last}.own.1", f"network.heads.{task}"): {"ctr": "", task: on},
    }


def cstwa(*more, gated=True, calibrated=True):
    """The conversion loss reaches the click tower through the gate alone; weights are detached; s <= p at the start."""
    rest = {"calibrator": ""} if calibrated else {}
    own = ("ctcvr_encoder", "ctcvr_tower", "ctcvr_head", *more)
    return {
        ("ctr_encoder", "ctr_tower"): {"ctr": "ucv", "ctcvr": "ucv" if gated else "", **rest},
        ("ctr_head",): {"ctr": "ucv", "ctcvr": "", **rest},
        (*own, "information") if gated else own: {"ctr": "", "ctcvr": "ucv", **rest},
    }


GRADIENTS = {
    # Two networks; the conversion one learns from clicks only.
    "mlp": {
        ("ctr_network",): {"ctr": "ucv", "cvr": ""},
        ("conversion_network",): {"ctr": "", "cvr": "cv"},
    },
    "mlp-interaction={'rank': 2}": {
        ("ctr_network",): {"ctr": "ucv", "cvr": ""},
        ("conversion_network",): {"ctr": "", "cvr": "cv"},
    },
    "mlp-conversion=exposure": {
        ("ctr_network",): {"ctr": "ucv", "ctcvr": ""},
        ("conversion_network",): {"ctr": "", "ctcvr": "ucv"},
    },
    "mlp-trunk=mf": {
        ("ctr_network",): {"ctr": "ucv", "cvr": ""},
        ("conversion_network",): {"ctr": "", "cvr": "cv"},
    },
    # Unclicked rows are negatives; elsewhere the CTR that accepts clicks is not moved by them.
    "mlp-click_space=aman": {
        ("ctr_network",): {"ctr": "ucv", "cvr": ""},
        ("conversion_network",): {"ctr": "", "cvr": "ucv"},
    },
    "mlp-click_space=oversample": {
        ("ctr_network",): {"ctr": "ucv", "cvr": ""},
        ("conversion_network",): {"ctr": "", "cvr": "cv"},
    },
    "mlp-click_space=unbias": {
        ("ctr_network",): {"ctr": "ucv", "cvr": ""},
        ("conversion_network",): {"ctr": "", "cvr": "cv"},
    },
    # The tasks share users and items; each has a diagonal and biases of its own (two columns of one table).
    "esmm-trunk=mf": {
        ("network.encoder", "network.biases", "network.heads.ctr"): {"ctr": "ucv", "ctcvr": "ucv"},
        ("network.heads.cvr",): {"ctr": "", "ctcvr": "ucv"},
    },
    "esmm-trunk=ncf": {
        ("network.encoder", *parts("ctr")): {"ctr": "ucv", "ctcvr": "ucv"},
        parts("cvr"): {"ctr": "", "ctcvr": "ucv"},
    },
    # Nothing is detached: the product moves both towers, on every row (Ma et al. 2018).
    "esmm": {
        ("network.encoder",): {"ctr": "ucv", "ctcvr": "ucv"},
        parts("ctr"): {"ctr": "ucv", "ctcvr": "ucv"},
        parts("cvr"): {"ctr": "", "ctcvr": "ucv"},
    },
    "esmm-shared_embedding=False": {
        ("network.encoder", *parts("ctr")): {"ctr": "ucv", "ctcvr": "ucv"},
        ("network.own_encoders", *parts("cvr")): {"ctr": "", "ctcvr": "ucv"},
    },
    "esmm-trunk=mmoe": {
        ("network.encoder", "network.trunk.bank"): {"ctr": "ucv", "ctcvr": "ucv"},
        ("network.trunk.gates.0", *parts("ctr")): {"ctr": "ucv", "ctcvr": "ucv"},
        ("network.trunk.gates.1", *parts("cvr")): {"ctr": "", "ctcvr": "ucv"},
    },
    # The joint label is a label on every row; the CVR of `cvr` sees clicks only.
    "omoe": omoe("ctcvr", "ucv"),
    "omoe-conversion=cvr": omoe("cvr", "cv"),
    "mmoe": mmoe("ctcvr", "ucv"),
    "mmoe-conversion=cvr": mmoe("cvr", "cv"),
    "ple": ple("ctcvr", "ucv"),
    "ple-conversion=cvr": ple("cvr", "cv"),
    # The conversion loss reaches the click tower through the information layer; s <= p at the start (Xi et al. 2021).
    "aitm": {
        ("encoder", "ctr_tower"): {"ctr": "ucv", "ctcvr": "ucv", "calibrator": ""},
        ("ctr_head",): {"ctr": "ucv", "ctcvr": "", "calibrator": ""},
        ("information", "transfer", "ctcvr_tower", "ctcvr_head"): {"ctr": "", "ctcvr": "ucv", "calibrator": ""},
    },
    # Nothing is detached; purchases have no loss of their own (Wen et al. 2020).
    "esm2": {
        ("network.encoder", *parts("ctr")): {"ctr": "ucv", "ctar": "ucv", "ctcvr": "ucv"},
        parts("action"): {"ctr": "", "ctar": "ucv", "ctcvr": "ucv"},
        parts("purchase_action", "purchase_other"): {"ctr": "", "ctar": "", "ctcvr": "ucv"},
    },
    "esm2-other_action=False": {
        ("network.encoder", *parts("ctr")): {"ctr": "ucv", "ctar": "ucv", "ctcvr": "ucv"},
        parts("action"): {"ctr": "", "ctar": "ucv", "ctcvr": "ucv"},
        parts("purchase_action"): {"ctr": "", "ctar": "", "ctcvr": "ucv"},
    },
    # The direct loss of the purchases sees clicks only, and no click or action tower feels it.
    "esm2-purchase=both": {
        ("network.encoder",): {"ctr": "ucv", "ctar": "ucv", "ctcvr": "ucv", "purchase": "cv"},
        parts("ctr"): {"ctr": "ucv", "ctar": "ucv", "ctcvr": "ucv", "purchase": ""},
        parts("action"): {"ctr": "", "ctar": "ucv", "ctcvr": "ucv", "purchase": ""},
        parts("purchase_action", "purchase_other"): {"ctr": "", "ctar": "", "ctcvr": "ucv", "purchase": "cv"},
    },
    # Twins start equal, where the gradient of their distance is 0; tests/models/test_esmc.py takes them apart.
    "esmc": {
        ("encoder", "ctr_tower", "ctr_head"): {"ctr": "ucv", "ctar": "ucv", "ctcvr": "ucv", "constraint": ""},
        ("action_tower", "action_head"): {"ctr": "", "ctar": "ucv", "ctcvr": "", "constraint": ""},
        ("purchase_tower", "purchase_head"): {"ctr": "", "ctar": "", "ctcvr": "ucv", "constraint": ""},
    },
    "esms": {
        ("encoder", "ctr_tower", "ctr_head"): {"ctr": "ucv", "ctar": "ucv", "ctcvr": "ucv"},
        ("action_tower",): {"ctr": "", "ctar": "ucv", "ctcvr": "ucv"},
        ("action_head",): {"ctr": "", "ctar": "ucv", "ctcvr": ""},
        ("purchase_head",): {"ctr": "", "ctar": "", "ctcvr": "ucv"},
    },
    "esmg": {
        ("encoder",): {"ctr": "ucv", "ctar": "ucv", "ctcvr": "ucv", "constraint": ""},
        ("ctr_tower", "ctr_head"): {"ctr": "ucv", "ctar": "", "ctcvr": "", "constraint": ""},
        ("action_tower", "action_head"): {"ctr": "", "ctar": "ucv", "ctcvr": "", "constraint": ""},
        ("purchase_tower", "purchase_head"): {"ctr": "", "ctar": "", "ctcvr": "ucv", "constraint": ""},
    },
    # Weights are detached: neither side moves the tower of the click; q and q* meet in the constraint (Zhu 2023).
    "dcmt": {
        ("network.encoder",): {"ctr": "ucv", "ctcvr": "ucv", "cvr": "cv", "counterfactual": "u", "complement": "ucv"},
        parts("ctr"): {"ctr": "ucv", "ctcvr": "ucv", "cvr": "", "counterfactual": "", "complement": ""},
        parts("cvr"): {"ctr": "", "ctcvr": "ucv", "cvr": "cv", "counterfactual": "", "complement": "ucv"},
        parts("counterfactual"): {"ctr": "", "ctcvr": "", "cvr": "", "counterfactual": "u", "complement": "ucv"},
    },
    # The soft label is detached: the CVR's losses reach the other towers through the transfer, their heads never.
    "ddpo": {
        ("network.encoder",): {"ctr": "ucv", "conversion": "cv", "cvr": "ucv", "ctcvr": "ucv"},
        ("network.towers.ctr",): {"ctr": "ucv", "conversion": "", "cvr": "ucv", "ctcvr": "ucv"},
        ("network.heads.ctr",): {"ctr": "ucv", "conversion": "", "cvr": "", "ctcvr": "ucv"},
        ("network.towers.conversion",): {"ctr": "", "conversion": "cv", "cvr": "ucv", "ctcvr": "ucv"},
        ("network.heads.conversion",): {"ctr": "", "conversion": "cv", "cvr": "", "ctcvr": ""},
        ("transfer", *parts("cvr")): {"ctr": "", "conversion": "", "cvr": "ucv", "ctcvr": "ucv"},
    },
    "ddpo-transfer=None": {
        ("network.encoder",): {"ctr": "ucv", "conversion": "cv", "cvr": "ucv", "ctcvr": "ucv"},
        parts("ctr"): {"ctr": "ucv", "conversion": "", "cvr": "", "ctcvr": "ucv"},
        parts("conversion"): {"ctr": "", "conversion": "cv", "cvr": "", "ctcvr": ""},
        parts("cvr"): {"ctr": "", "conversion": "", "cvr": "ucv", "ctcvr": "ucv"},
    },
    # The soft label is not detached: unclicked rows move the CVR (Huang et al. 2024).
    "nise": {
        ("network.encoder",): {"ctr": "ucv", "cvr": "ucv"},
        parts("ctr"): {"ctr": "ucv", "cvr": ""},
        parts("cvr"): {"ctr": "", "cvr": "ucv"},
    },
    # Labels of both heads come from clicks and joint events; unclicked rows align them (Cheng et al. 2025).
    "chorus": {
        ("network.encoder",): {
            **{"ctr": "ucv", "ctcvr": "ucv", "ctuncvr": "ucv"},
            **{"cvr": "cv", "uncvr": "cv", "align": "ucv"},
        },
        parts("ctr"): {"ctr": "ucv", "ctcvr": "ucv", "ctuncvr": "ucv", "cvr": "", "uncvr": "", "align": ""},
        parts("cvr"): {"ctr": "", "ctcvr": "ucv", "ctuncvr": "", "cvr": "cv", "uncvr": "", "align": "ucv"},
        parts("uncvr"): {"ctr": "", "ctcvr": "", "ctuncvr": "ucv", "cvr": "", "uncvr": "cv", "align": "ucv"},
    },
    # Two tables; every exposure is a label of the joint event (Ouyang et al. 2023).
    "cstwa": cstwa(),
    "cstwa-migrator=None": cstwa(),
    "cstwa-perceptron=None": cstwa(gated=False),
    "cstwa-escaper=None": cstwa(),
    "cstwa-calibrator=None": cstwa(calibrated=False),
    "cstwa-migrator=None-perceptron=None-escaper=None": cstwa(gated=False),
    "cstwa-migrator={'reading': 'B'}": cstwa("sides"),
    "cstwa-migrator={'reading': 'D'}": cstwa(),
    # The weighted loss sees clicks only, and the click tower does not feel it (Decision 4).
    "multi-ipw": {
        ("network.encoder",): {"ctr": "ucv", "cvr": "cv"},
        parts("ctr"): {"ctr": "ucv", "cvr": ""},
        parts("cvr"): {"ctr": "", "cvr": "cv"},
    },
    "multi-dr": multi_dr("ucv"),
    "multi-dr-imputation=error": multi_dr("cv"),
    "escm2-ips": {
        ("network.encoder", "network.trunk.bank"): {"ctr": "ucv", "cvr": "cv", "ctcvr": "ucv"},
        ("network.trunk.gates.0", "network.heads.ctr"): {"ctr": "ucv", "cvr": "", "ctcvr": "ucv"},
        ("network.trunk.gates.1", "network.heads.cvr"): {"ctr": "", "cvr": "cv", "ctcvr": "ucv"},
    },
    "escm2-dr": escm2_dr(),
    "escm2-dr-risk={'updates': 'alternating'}": escm2_dr(),
    # Windows are closed here: a click without a conversion says nothing of a delay that ends with the window.
    "dfm": delays("v"),
    "dfm-cut_at_window=False": delays("cv"),
    # Four networks; the two that weigh learn for themselves, and the conversion's does not feel them.
    "es-dfm": {
        own("encoder", "ctr"): {"ctr": "ucv", "cvr": "", "late": "", "never": ""},
        own("own_encoders.0", "cvr"): {"ctr": "", "cvr": "cv", "late": "", "never": ""},
        own("own_encoders.1", "late"): {"ctr": "", "cvr": "", "late": "cv", "never": ""},
        own("own_encoders.2", "never"): {"ctr": "", "cvr": "", "late": "", "never": "cv"},
    },
    "dr-jl": three_networks(),
    "mrdr": three_networks(),
}


def group_of(name, table):
    groups = [group for group in table if any(name.startswith(f"{prefix}.") for prefix in group)]
    assert len(groups) == 1, f"{name} belongs to {len(groups)} groups"
    return groups[0]


def moved(model, toy, table):
    """What the table should say of `model`: group -> term -> situations in which any parameter has a gradient."""
    features = toy.exposures.take(np.arange(64))
    found = {}
    for letter, (click, conversion) in SITUATIONS.items():
        batch = dataclasses.replace(
            to_batch(features), click=torch.full((64,), click), conversion=torch.full((64,), conversion)
        )
        terms = model.loss(model(batch), batch).terms
        for term, value in terms.items():
            model.zero_grad()
            if value.requires_grad:
                value.backward(retain_graph=True)
            for name, parameter in model.named_parameters():
                entry = found.setdefault(group_of(name, table), {}).setdefault(term, set())
                if parameter.grad is not None and parameter.grad.abs().sum() > 0:
                    entry.add(letter)
    return {
        group: {term: "".join(s for s in "ucv" if s in on) for term, on in row.items()} for group, row in found.items()
    }


def test_every_case_has_its_table(cases):
    assert set(GRADIENTS) == {case.name for case in cases}


def test_gradients_are_those_of_the_table(case, make_model, toy):
    table = GRADIENTS[case.name]
    assert moved(make_model(case), toy, table) == table


def test_within_a_group_every_parameter_moves(case, make_model, toy):
    model = make_model(case)
    batch = to_batch(toy.exposures.take(np.arange(2000)))
    sum(model.loss(model(batch), batch).terms.values()).backward()
    still = [name for name, parameter in model.named_parameters() if not parameter.grad.abs().sum() > 0]
    assert still == []


class DetachedESMM(ESMM):
    """A bug: the product takes the CTR as given."""

    def forward(self, batch):
        outputs = super().forward(batch)
        return Outputs(outputs.ctr, outputs.cvr, ctcvr=outputs.ctr.detach() * outputs.cvr)


class ClickedESMM(ESMM):
    """A bug: the joint loss sees clicks only."""

    def loss(self, outputs, batch):
        ctcvr = batch.click * joint_loss(outputs.ctcvr, batch.click, batch.conversion)
        terms = {"ctr": mean_over_exposures(click_loss(outputs.ctr, batch.click), None)}
        return Losses({**terms, "ctcvr": mean_over_exposures(ctcvr, None)})


class LeakingMLP(MLP):
    """A bug: the conversion network takes unclicked rows for negatives."""

    def loss(self, outputs, batch):
        everywhere = dataclasses.replace(batch, click=torch.ones_like(batch.click))
        terms = {
            "ctr": super().loss(outputs, batch).terms["ctr"],
            "cvr": super().loss(outputs, everywhere).terms["cvr"],
        }
        return Losses(terms)


class SharingMLP(MLP):
    """A bug: the conversion network reads the click network's table."""

    def forward(self, batch):
        self.conversion_network.encoder.forward = self.ctr_network.encoder.forward
        return super().forward(batch)


@pytest.mark.parametrize(
    ("twin", "name"), [(DetachedESMM, "esmm"), (ClickedESMM, "esmm"), (LeakingMLP, "mlp"), (SharingMLP, "mlp")]
)
def test_the_table_tells_a_planted_bug(twin, name, toy):
    torch.manual_seed(0)
    model = twin(toy.spec).eval()
    use_sparse_gradients(model, False)
    assert moved(model, toy, GRADIENTS[name]) != GRADIENTS[name]


def test_tables_have_gradients_sparse_by_rows_that_equal_the_dense_ones(case, make_model, toy):
    few = toy.exposures.take(np.arange(50))
    batch, gradients = to_batch(few), []
    for sparse in (True, False):
        model = make_model(case)
        use_sparse_gradients(model, sparse)
        sum(model.loss(model(batch), batch).terms.values()).backward()
        tables = list(model.tables())
        assert tables
        assert all(table.grad.is_sparse == sparse for table in tables)
        gradients.append([table.grad.to_dense() if sparse else table.grad for table in tables])
        others = {id(table) for table in tables}
        assert not any(p.grad.is_sparse for p in model.parameters() if id(p) not in others)
    seen = np.zeros(toy.spec.table_rows, bool)
    for values in (few.rows.ravel(), *(sequence.values for sequence in few.sequences)):
        seen[values] = True
    assert not seen.all()
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-7)
        if len(other) == len(seen):  # a table of entities has rows of its own
            assert torch.all(other[~torch.from_numpy(seen)] == 0)
