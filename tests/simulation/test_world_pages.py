"""docs/worlds.md speaks of every preset, and its table is what the script makes."""

import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from postclick.cli.world_report import world_form
from postclick.simulation import PRESETS, simulate

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "worlds.md").read_text("utf-8")


@pytest.fixture(scope="module")
def script():
    sys.path.insert(0, str(ROOT / "benchmarks"))
    import world_pages

    yield world_pages
    sys.path.remove(str(ROOT / "benchmarks"))


def rows(page):
    return {line.split("`")[1]: line for line in page.splitlines() if re.match(r"\| `[a-z-]+` \|", line)}


def test_every_preset_has_its_row_and_its_paragraph():
    assert set(rows(PAGE)) == set(PRESETS) - {"behaviour"}
    assert all(f"- **`{name}`**: " in PAGE for name in rows(PAGE))


def test_a_row_holds_the_rates_counts_and_the_oracle(tmp_path, script):
    world = simulate(tmp_path / "w", exposures=3_000, seed=0, knobs={"support_violation": 0.2})
    form, truth = world_form(world), world.truth()
    cells = [cell.strip() for cell in script.row("w", form, world).strip("|").split("|")]
    assert len(cells) == len(script.COLUMNS)
    assert cells[:3] == ["`w`", "10.0 %", "10.0 %"]
    assert cells[5:7] == [f"{world.counts['clicks']:,}", f"{world.counts['conversions']:,}"]
    possible = truth.ctr > 0
    p, q = truth.ctr[possible], truth.cvr_do[possible]
    alike = np.corrcoef(np.log(p / (1 - p)), np.log(q / (1 - q)))[0, 1]
    assert float(cells[9]) == pytest.approx(alike, abs=0.0051)
    assert float(cells[10]) == pytest.approx(len(p) ** 2 / ((1 / p).sum() * p.sum()), abs=0.0051)
    assert float(cells[12]) == pytest.approx(form["oracle"]["cvr/auc@world"]["value"], abs=0.00051)


def test_the_table_replaces_what_stands_between_its_marks(script):
    page = script.made(PAGE, "a table")
    assert "\n\na table\n\n" in page
    assert not rows(page)
    assert script.made(page, "a table") == page
    assert page.partition(script.BEGIN)[0] == PAGE.partition(script.BEGIN)[0]
    assert page.partition(script.END)[2] == PAGE.partition(script.END)[2]


@pytest.mark.slow
def test_the_table_is_what_the_worlds_are(script):
    assert script.made(PAGE, script.table()) == PAGE


def test_shop_path_makes_the_rows_of_behaviour(tmp_path):
    new, old = (simulate(tmp_path / name, world=name, exposures=2_000, seed=4) for name in ("shop-path", "behaviour"))
    assert new.counts == old.counts
    assert replace(new, path=old.path, preset=old.preset, hash=old.hash) == old
    for part in ("exposures/part-00000.parquet", "truth.parquet"):
        assert (new.path / part).read_bytes() == (old.path / part).read_bytes()
