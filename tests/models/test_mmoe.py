"""MMoE: what its gates tell, and OMoE as its limit; the losses are in `test_pairs`."""

import numpy as np
import pytest
import torch

from postclick.models.batching import to_batch
from postclick.models.mmoe import MMoE
from postclick.models.omoe import OMoE
from postclick.nn.experts import Experts


def test_diagnostics_are_of_the_gates(spec, exposures):
    model, batch = MMoE(spec, experts=Experts(count=3)), to_batch(exposures(50))
    outputs = model(batch)
    diagnostics = model.loss(outputs, batch).diagnostics
    assert set(diagnostics) == {f"gate_{what}/{task}" for what in ("entropy", "largest") for task in ("ctr", "ctcvr")}
    for task in ("ctr", "ctcvr"):
        gate = outputs.extras[f"gate/{task}"].detach().double().numpy()
        assert gate.shape == (50, 3)
        assert diagnostics[f"gate_largest/{task}"].item() == pytest.approx(gate.mean(axis=0).max(), rel=1e-5)
        share = -(gate * np.log(gate)).sum(axis=1).mean() / np.log(3)
        assert diagnostics[f"gate_entropy/{task}"].item() == pytest.approx(share, rel=1e-5)


def test_tied_gates_make_it_omoe(spec, exposures):
    mmoe, omoe, batch = MMoE(spec).eval(), OMoE(spec).eval(), to_batch(exposures(50))
    gate = omoe.state_dict()["network.trunk.gates.0.linear.weight"]
    mmoe.load_state_dict(omoe.state_dict() | {"network.trunk.gates.1.linear.weight": gate})
    for name, head in mmoe(batch).heads().items():
        assert torch.equal(head.log_p, omoe(batch).heads()[name].log_p)
    mmoe.load_state_dict(omoe.state_dict() | {"network.trunk.gates.1.linear.weight": 1 - gate})
    assert torch.equal(mmoe(batch).ctr.log_p, omoe(batch).ctr.log_p)
    assert not torch.equal(mmoe(batch).ctcvr.log_p, omoe(batch).ctcvr.log_p)  # so untied gates are told
