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

GRADIENTS = {
    # Two networks; the conversion one learns from clicks only.
    "mlp": {
        ("ctr_encoder", "ctr_tower", "ctr_head"): {"ctr": "ucv", "cvr": ""},
        ("conversion_encoder", "conversion_tower", "conversion_head"): {"ctr": "", "cvr": "cv"},
    },
    "mlp-conversion=exposure": {
        ("ctr_encoder", "ctr_tower", "ctr_head"): {"ctr": "ucv", "ctcvr": ""},
        ("conversion_encoder", "conversion_tower", "conversion_head"): {"ctr": "", "ctcvr": "ucv"},
    },
    # Nothing is detached: the product moves both towers, on every row (Ma et al. 2018).
    "esmm": {
        ("encoder",): {"ctr": "ucv", "ctcvr": "ucv"},
        ("ctr_tower", "ctr_head"): {"ctr": "ucv", "ctcvr": "ucv"},
        ("cvr_tower", "cvr_head"): {"ctr": "", "ctcvr": "ucv"},
    },
    "esmm-shared_embedding=False": {
        ("encoder", "ctr_tower", "ctr_head"): {"ctr": "ucv", "ctcvr": "ucv"},
        ("cvr_encoder", "cvr_tower", "cvr_head"): {"ctr": "", "ctcvr": "ucv"},
    },
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
        self.conversion_encoder.forward = self.ctr_encoder.forward
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
        assert torch.all(other[~torch.from_numpy(seen)] == 0)
