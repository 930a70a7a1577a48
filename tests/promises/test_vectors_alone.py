"""A log of vectors alone, without an id, a category or a sequence: every system that reads features learns from it."""

import dataclasses

import numpy as np
import pytest
import torch

from postclick.data.arrays import Exposures
from postclick.errors import ConfigError
from postclick.models.batching import to_batch
from postclick.models.catalog import build
from postclick.models.scoring import score
from postclick.schema import EmbeddingFeature, Schema


@pytest.fixture
def vectors(toy):
    """Exposures of the toy with a vector alone, and the spec of their log."""
    rng = np.random.default_rng(0)
    labels = dataclasses.replace(toy.labels.take(np.arange(300)))
    nothing = np.empty((300, 0))
    vector = rng.normal(size=(300, 5)).astype(np.float32)
    exposures = Exposures(nothing.astype(np.int32), nothing.astype(np.float32), vector, (), labels)
    return exposures, dataclasses.replace(toy.spec, schema=Schema((EmbeddingFeature("text", 5),)), table_rows=0)


def test_every_system_takes_a_step_and_scores(case, vectors):
    exposures, spec = vectors
    torch.manual_seed(0)
    if case.arguments.get("trunk") in ("mf", "ncf"):
        with pytest.raises(ConfigError, match="user"):  # they read a user and an item, and say so
            build(case.key, spec, case.arguments)
        return
    model = build(case.key, spec, case.arguments)
    batch = to_batch(exposures)
    before = score(model, exposures)
    for phase in model.phases():
        optimiser = torch.optim.SGD([p for p in phase.parameters if p.numel()], lr=0.1)
        terms = model.loss(model(batch), batch).terms
        sum(terms[name] for name in phase.terms or terms).backward()
        optimiser.step()
        model.zero_grad()
    after = score(model, exposures)
    for head in after.heads:
        assert np.isfinite(after.odds[head]).all()
    assert not np.array_equal(before.odds["cvr"], after.odds["cvr"])
    assert all(table.numel() == 0 for table in model.tables())
