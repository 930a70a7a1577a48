"""DR-JL: three networks that share nothing and take turns."""

import pytest
import torch

from postclick.errors import ConfigError
from postclick.models.base import Batch
from postclick.models.batching import to_batch, to_features
from postclick.models.catalog import build
from postclick.models.dr_jl import DRJL
from postclick.nn.embedding import use_sparse_gradients


def test_nothing_is_shared(tiny):
    model = DRJL(tiny[0])
    assert len(list(model.tables())) == 3
    assert model.shared_parameters() == ()
    imputation, prediction = model.phases()
    assert {id(p) for p in imputation.parameters} == {id(p) for p in model.imputation_network.parameters()}
    assert not {id(p) for p in imputation.parameters} & {id(p) for p in prediction.parameters}


def test_each_turn_leaves_the_other_side_where_it_is_and_the_second_sees_the_first(tiny):
    spec, exposures = tiny
    torch.manual_seed(0)
    model, batch = DRJL(spec).eval(), to_batch(exposures)
    use_sparse_gradients(model, False)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    seen = []
    for phase in model.phases():
        terms = model.loss(model(batch), batch).terms
        seen.append(terms["cvr"].item())
        optimiser = torch.optim.SGD(phase.parameters, lr=0.5)
        optimiser.zero_grad()
        sum(terms[name] for name in phase.terms).backward()
        optimiser.step()
        moved = {name.split(".")[0] for name, p in model.named_parameters() if not torch.equal(p, before[name])}
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        expected = {"imputation_network"} if phase.name == "imputation" else {"ctr_network", "cvr_network"}
        assert moved == expected
    assert seen[0] != seen[1]


@pytest.mark.parametrize("key", ["dr-jl", "mrdr"])
def test_to_score_takes_two_networks(key, tiny):
    spec, exposures = tiny
    model = build(key, spec, {}).eval()
    model.imputation_network.forward = None  # calling it raises
    scored = model(Batch(to_features(exposures)))
    assert scored.extras == {}
    with pytest.raises(TypeError):
        model(to_batch(exposures))


@pytest.mark.parametrize("key", ["dr-jl", "mrdr"])
def test_experts_are_not_a_trunk_of_a_single_task(key, tiny):
    with pytest.raises(ConfigError, match=r"expected 'shared' \| 'mf' \| 'ncf'"):
        build(key, tiny[0], {"trunk": "mmoe"})
