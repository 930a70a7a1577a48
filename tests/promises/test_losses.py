"""Losses stay finite where data and logits are extreme, count sample weights as rows, and ignore what is no label."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch

from postclick.losses.entire_space import click_loss
from postclick.models.base import Losses
from postclick.models.batching import to_batch
from postclick.models.mlp import MLP
from postclick.models.scoring import score
from postclick.nn.embedding import use_sparse_gradients
from postclick.nn.factorisation import DotHead
from postclick.nn.tower import Head

EXTREMES = (-1e4, -100.0, 100.0, 1e4)


def labelled(toy, click, conversion, rows=40):
    batch = to_batch(toy.exposures.take(np.arange(rows)))
    full = torch.ones(rows)
    return dataclasses.replace(batch, click=full * click, conversion=full * conversion)


def gradients(model, batch):
    model.zero_grad()
    terms = model.loss(model(batch), batch).terms
    sum(terms.values()).backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return {name: term.item() for name, term in terms.items()}, found


def assert_finite(terms, found):
    assert all(np.isfinite(value) for value in terms.values()), terms
    assert all(torch.isfinite(gradient).all() for gradient in found.values())


@pytest.mark.parametrize("rows", [1, 40])
@pytest.mark.parametrize(("click", "conversion"), [(0.0, 0.0), (1.0, 0.0), (1.0, 1.0)])
def test_batches_of_one_class_are_finite(case, make_model, toy, click, conversion, rows):
    terms, found = gradients(make_model(case), labelled(toy, click, conversion, rows))
    assert_finite(terms, found)
    assert len(terms) >= 2


def test_terms_are_scalars_and_diagnostics_carry_no_gradient(case, make_model, toy):
    model, batch = make_model(case), to_batch(toy.exposures.take(np.arange(40)))
    losses = model.loss(model(batch), batch)
    assert all(term.shape == () for term in losses.terms.values())
    assert not any(value.requires_grad for value in losses.diagnostics.values())


def test_logits_of_ten_thousand_are_finite(case, make_model, toy):
    model = make_model(case)
    heads = [module for module in model.modules() if isinstance(module, Head | DotHead)]
    assert len(heads) >= 2
    for biases in itertools.product(EXTREMES, repeat=len(heads)):
        with torch.no_grad():
            for head, bias in zip(heads, biases, strict=True):
                (head.linear.bias if isinstance(head, Head) else head.bias).fill_(bias)
        for click, conversion in ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0)):
            assert_finite(*gradients(model, labelled(toy, click, conversion, 8)))
        scores = score(model, toy.exposures.take(np.arange(8)))
        for head in scores.heads:
            assert np.isfinite(scores.odds[head]).all(), (head, biases)


def test_a_weight_of_two_is_a_row_twice(case, make_model, toy):
    model = make_model(case)
    assert_weight_is_duplication(model, toy)


def assert_weight_is_duplication(model, toy):
    rows = np.arange(60)
    copies = np.random.default_rng(0).integers(0, 4, 60)  # 0 is a row that is not there
    labels = dataclasses.replace(toy.labels.take(rows), sample_weight=copies.astype(np.float64))
    weighted = to_batch(dataclasses.replace(toy.exposures.take(rows), labels=labels))
    repeated = to_batch(toy.exposures.take(np.repeat(rows, copies)))
    (terms, found), (expected, wanted) = gradients(model, weighted), gradients(model, repeated)
    assert terms == pytest.approx(expected, rel=1e-5)
    for name in wanted:
        torch.testing.assert_close(found[name], wanted[name], rtol=1e-3, atol=1e-6)


class UnweightedMLP(MLP):
    """A bug: one term forgets the sample weights."""

    def loss(self, outputs, batch):
        terms = dict(super().loss(outputs, batch).terms)
        return Losses({**terms, "ctr": click_loss(outputs.ctr, batch.click).mean()})


def test_the_check_of_weights_tells_a_planted_bug(toy):
    torch.manual_seed(0)
    model = UnweightedMLP(toy.spec).eval()
    use_sparse_gradients(model, False)
    with pytest.raises(AssertionError):
        assert_weight_is_duplication(model, toy)


def test_a_view_through_is_never_a_label(case, make_model, toy):
    model, batch = make_model(case), to_batch(toy.exposures.take(np.arange(60)))
    view_through = dataclasses.replace(batch, conversion=torch.where(batch.click == 0, 1.0, batch.conversion))
    assert (view_through.conversion != batch.conversion).any()
    assert gradients(model, view_through)[0] == gradients(model, batch)[0]


def test_an_action_without_a_click_is_never_a_label(case, make_model, toy):
    model, batch = make_model(case), to_batch(toy.exposures.take(np.arange(60)))
    outside = dataclasses.replace(batch, action=torch.where(batch.click == 0, 1.0 - batch.action, batch.action))
    assert (outside.action != batch.action).any()
    assert gradients(model, outside)[0] == gradients(model, batch)[0]


def test_the_loss_is_an_average_over_exposures(case, make_model, toy):
    model, rows = make_model(case), np.arange(50)
    once, twice = (to_batch(toy.exposures.take(index)) for index in (rows, np.tile(rows, 2)))
    assert gradients(model, twice)[0] == pytest.approx(gradients(model, once)[0], rel=1e-5)
