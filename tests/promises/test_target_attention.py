"""A sequence pooled by target attention under every system: what holds for the others holds for it."""

import dataclasses

import numpy as np
import pytest
import torch

from postclick.data.log import LogSpec
from postclick.models.batching import to_batch
from postclick.models.catalog import build
from postclick.models.scoring import score
from postclick.nn.embedding import use_sparse_gradients
from postclick.schema import Schema


@pytest.fixture(scope="module")
def attending(toy) -> LogSpec:
    """The toy's log, each of its sequences held against the item."""
    features = tuple(
        dataclasses.replace(feature, pooling="target-attention", target="item")
        if feature in toy.spec.schema.sequences
        else feature
        for feature in toy.spec.schema.features
    )
    return dataclasses.replace(toy.spec, schema=Schema(features, toy.spec.schema.columns))


def system(case, spec, *, sparse=True):
    torch.manual_seed(0)
    model = build(case.key, spec, case.arguments).eval()
    use_sparse_gradients(model, sparse)
    return model


def test_a_row_does_not_depend_on_its_batch(case, attending, toy):
    few, model, order = (
        toy.exposures.take(np.arange(40)),
        system(case, attending),
        np.random.default_rng(0).permutation(40),
    )
    together, alone, shuffled = score(model, few), score(model, few, batch_size=1), score(model, few.take(order))
    for head in together.heads:
        np.testing.assert_allclose(alone.odds[head], together.odds[head], atol=1e-5)
        np.testing.assert_allclose(shuffled.odds[head], together.odds[head][order], atol=1e-5)


def test_sparse_and_dense_gradients_agree_and_the_attention_moves(case, attending, toy):
    batch, gradients = to_batch(toy.exposures.take(np.arange(500))), []
    for sparse in (True, False):
        model = system(case, attending, sparse=sparse)
        sum(model.loss(model(batch), batch).terms.values()).backward()
        gradients.append([table.grad.to_dense() for table in model.tables()])
        learned = [parameter for name, parameter in model.named_parameters() if ".attention." in name]
        assert bool(learned) == (case.arguments.get("trunk") not in ("mf", "ncf"))  # which read no sequence
        assert all(parameter.grad.abs().sum() > 0 for parameter in learned)
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-7)


def test_weights_go_into_a_system_of_the_meta_device(case, attending, toy):
    few, model = toy.exposures.take(np.arange(20)), system(case, attending)
    with torch.device("meta"):
        other = build(case.key, attending, case.arguments).eval()
    other.load_state_dict(model.state_dict(), assign=True)
    for head in model.heads:
        np.testing.assert_array_equal(score(other, few).odds[head], score(model, few).odds[head])
