"""MRDR: the imputation's weights are those of the variance, and each epoch it starts as a copy of the CVR network."""

import pytest
import torch

from postclick.models.batching import to_batch
from postclick.models.dr_jl import DRJL
from postclick.models.mrdr import MRDR


def parameters(network):
    return [parameter.detach().clone() for parameter in network.parameters()]


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("double_learning", [True, False])
def test_double_learning_copies_the_cvr_network_at_each_epochs_start(tiny, double_learning):
    torch.manual_seed(0)
    model = MRDR(tiny[0], double_learning=double_learning)
    for epoch in range(2):
        before, cvr = parameters(model.imputation_network), parameters(model.cvr_network)
        assert not same(before, cvr)
        model.on_epoch_start(epoch)
        assert same(parameters(model.cvr_network), cvr)
        assert same(parameters(model.imputation_network), cvr if double_learning else before)
        with torch.no_grad():
            for parameter in model.cvr_network.parameters():
                parameter.add_(0.1)
    held = {id(parameter) for parameter in model.cvr_network.parameters()}
    assert not held & {id(parameter) for parameter in model.imputation_network.parameters()}


def test_the_imputation_leaves_rows_alone_that_are_always_clicked(tiny):
    spec, exposures = tiny
    batch = to_batch(exposures)
    for system, silent in ((MRDR, True), (DRJL, False)):
        torch.manual_seed(0)
        model = system(spec, propensity="one")
        term = model.loss(model(batch), batch).terms["imputation"]
        assert (term.item() == 0.0) == silent


def test_everything_but_the_imputations_weights_is_dr_jl(tiny):
    spec, exposures = tiny
    batch, found = to_batch(exposures), []
    for system in (MRDR, DRJL):
        torch.manual_seed(0)
        model = system(spec).eval()
        found.append({name: value.item() for name, value in model.loss(model(batch), batch).terms.items()})
    mrdr, dr_jl = found
    assert mrdr["ctr"] == dr_jl["ctr"]
    assert mrdr["cvr"] == dr_jl["cvr"]
    assert mrdr["imputation"] != pytest.approx(dr_jl["imputation"], rel=0.01)
