from __future__ import annotations

import pytest

from postclick.data.options import PrepareOptions
from postclick.data.prepare import prepare
from postclick.data.sources.opening import open_source
from postclick.data.truth import world_truth
from postclick.simulation import simulate


@pytest.fixture(scope="session")
def log(tmp_path_factory):
    """A small world as a LOG."""
    folder = tmp_path_factory.mktemp("tuning")
    simulate(folder / "world", world="selection", knobs={"ctr": 0.3, "cvr": 0.3}, exposures=4000, seed=1)
    source = open_source([str(folder / "world")])
    return prepare(source, folder / "log", PrepareOptions(), truth=world_truth([str(folder / "world")]))
