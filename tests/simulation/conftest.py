from pathlib import Path

import pytest

from postclick.simulation import World, simulate


@pytest.fixture(scope="session")
def selection(tmp_path_factory: pytest.TempPathFactory) -> World:
    return simulate(tmp_path_factory.mktemp("worlds") / "selection", exposures=80_000, seed=3)


@pytest.fixture(scope="session")
def no_bias(tmp_path_factory: pytest.TempPathFactory) -> World:
    return simulate(tmp_path_factory.mktemp("worlds") / "no-bias", world="no-bias", exposures=80_000, seed=3)


@pytest.fixture(scope="session")
def acting(tmp_path_factory: pytest.TempPathFactory) -> World:
    knobs = {"purchase_outside_window": 0.2, "orphan_actions": 0.01}
    return simulate(
        tmp_path_factory.mktemp("worlds") / "behaviour", world="behaviour", exposures=70_000, seed=3, knobs=knobs
    )


@pytest.fixture(scope="session")
def raw(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A raw Ali-CCP world over two chunks, cut within one."""
    out: Path = tmp_path_factory.mktemp("worlds") / "raw"
    return simulate(out, exposures=70_001, seed=4, layout="ali-ccp", knobs={"orphan_conversions": 0.01})
