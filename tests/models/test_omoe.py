"""OMoE: its one gate; the losses are in `test_pairs`."""

import torch

from postclick.models.batching import to_batch
from postclick.models.omoe import OMoE


def test_both_tasks_read_one_mixture(spec, exposures):
    model, batch = OMoE(spec).eval(), to_batch(exposures(50))
    outputs = model(batch)
    assert torch.equal(outputs.extras["gate/ctr"], outputs.extras["gate/ctcvr"])
    assert len(model.network.trunk.gates) == 1
    (click, conversion), _ = model.network.trunk(model.network.encoder(batch.features))
    assert torch.equal(click, conversion)
