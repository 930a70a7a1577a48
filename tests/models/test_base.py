"""The contract's defaults."""

from dataclasses import replace

import pytest
import torch

from postclick.binding import parameters
from postclick.losses.probability import LogProbability
from postclick.models.base import NeighbourGraph, Outputs, Pretraining
from postclick.models.catalog import build
from postclick.models.esmm import ESMM
from postclick.models.systems import MODELS


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


@pytest.mark.parametrize("key", MODELS)
def test_a_system_reads_logged_propensities_where_its_argument_says_so(key, spec):
    spec = replace(spec, actions=10.0, given_propensity=True)
    with torch.device("meta"):
        assert not build(key, spec, {}).reads_propensity
        if "propensity" in parameters(MODELS[key]):
            assert build(key, spec, {"propensity": "logged"}).reads_propensity


def test_nothing_is_prepared_by_default(spec):
    assert ESMM(spec).requires() == ()


def test_requirements_are_named_compared_and_hashed():
    table = Pretraining("mlp", {"embedding_size": 4})
    graphs = [NeighbourGraph(side, table) for side in ("user", "item")]
    assert [table.name, *(graph.name for graph in graphs)] == ["pretraining", "user-graph", "item-graph"]
    assert Pretraining("mlp", {"embedding_size": 4}) == table != Pretraining("mlp")
    assert len({*graphs, NeighbourGraph("user", Pretraining("mlp", {"embedding_size": 4}))}) == 2
