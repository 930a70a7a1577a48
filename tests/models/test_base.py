"""The contract's defaults."""

import torch

from postclick.losses.probability import LogProbability
from postclick.models.base import Outputs
from postclick.models.esmm import ESMM


def test_outputs_name_their_heads_in_order():
    head = LogProbability.from_logit(torch.zeros(2))
    assert list(Outputs(head, head, head).heads()) == ["ctr", "cvr", "ctcvr"]
    assert list(Outputs(head, head, head, action=head, ctar=head).heads()) == ["ctr", "cvr", "ctcvr", "action", "ctar"]


def test_one_phase_over_everything_is_the_default(spec):
    model = ESMM(spec)
    (phase,) = model.phases()
    assert phase.terms == ()
    assert [id(p) for p in phase.parameters] == [id(p) for p in model.parameters()]
    assert model.shared_parameters() == ()
    assert [table.shape for table in model.tables()] == [(spec.table_rows, 8)]
