"""What DFM and ES-DFM share: where heads start, what is given on, and the window in days."""

import dataclasses

import pytest
import torch

from postclick.models.batching import to_batch
from postclick.models.delayed import DelayedConversion
from postclick.models.dfm import DFM
from postclick.models.es_dfm import ESDFM
from postclick.schema import Columns

SYSTEMS = ((DFM, {"delay": 0.9}), (ESDFM, {"late": 0.125, "never": 0.875}))


@pytest.mark.parametrize(("system", "more"), SYSTEMS)
def test_networks_start_at_their_rates_and_the_further_ones_are_extras(system, more, spec, exposures):
    model = system(spec)
    assert isinstance(model, DelayedConversion)
    assert spec.cvr == 0.25
    for name, rate in {"ctr": spec.ctr, "cvr": spec.cvr, **more}.items():
        assert torch.sigmoid(model.network.heads[name].linear.bias).item() == pytest.approx(rate, rel=1e-5)
    assert set(model(to_batch(exposures())).extras) == set(more)


@pytest.mark.parametrize(("system", "more"), SYSTEMS)
def test_the_window_is_that_of_the_schema_in_days(system, more, spec):
    assert system(spec).days == 1.0
    columns = Columns(conversion_time="b", observed_until="u", attribution_window=3 * 86_400.0, immature="censor")
    assert system(dataclasses.replace(spec, schema=dataclasses.replace(spec.schema, columns=columns))).days == 3.0
