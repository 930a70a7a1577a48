"""What is said of a world: the oracle covers the heads whose truth the world knows."""

from pathlib import Path

import pytest

from postclick.cli.world_report import world_form, world_parts
from postclick.simulation import simulate


@pytest.mark.parametrize(("world", "acts"), [("selection", False), ("behaviour", True)])
def test_the_oracle_covers_actions_where_there_are_any(tmp_path: Path, world: str, acts: bool) -> None:
    form = world_form(simulate(tmp_path / "w", world=world, exposures=3_000))
    heads = {name.split("/")[0] for name in form["oracle"]}
    assert heads == {"ctr", "cvr", "ctcvr"} | ({"action", "ctar"} if acts else set())
    assert ("conversions_without_action" in form["counts"]) == acts
    assert len(world_parts(form)) == 2
