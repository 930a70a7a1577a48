"""PLE: its levels, and MMoE as its limit; the losses are in `test_pairs`."""

import torch

from postclick.models.batching import to_batch
from postclick.models.mmoe import MMoE
from postclick.models.ple import PLE
from postclick.nn.experts import Experts


def test_levels_by_default_and_one_for_cgc(spec, exposures):
    batch = to_batch(exposures(10))
    assert len(PLE(spec).network.trunk.levels) == 2
    assert len(PLE(spec, experts=Experts(levels=1)).network.trunk.levels) == 1
    assert PLE(spec, experts=Experts(specific=2, shared=3))(batch).extras["gate/ctr"].shape == (10, 5)


def test_one_level_without_specific_experts_is_mmoe(spec, exposures):
    ple = PLE(spec, experts=Experts(levels=1, specific=0, shared=4)).eval()
    mmoe, batch = MMoE(spec, experts=Experts(count=4)).eval(), to_batch(exposures(50))
    renamed = {
        name.replace("levels.0.shared.", "bank.").replace("levels.0.gates", "gates"): weight
        for name, weight in ple.state_dict().items()
    }
    mmoe.load_state_dict(renamed)
    for name, head in ple(batch).heads().items():
        torch.testing.assert_close(head.log_p, mmoe(batch).heads()[name].log_p)
