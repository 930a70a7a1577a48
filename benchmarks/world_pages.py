"""Write the table of the worlds' statistics into docs/worlds.md.

    python benchmarks/world_pages.py            # half a minute
    python benchmarks/world_pages.py --check    # exit 1 where the page says something else

Each preset is simulated with its own knobs, seed 0. Rates, the correlation of the logits and the effective share of the
clicks are of the true probabilities; the ceilings are the oracle's: what the true probabilities themselves score
against one another over all exposures (`@world`), and the CVR on the clicks that were drawn.
"""

from __future__ import annotations

import math
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from postclick.cli.world_report import world_form
from postclick.simulation import PRESETS, World, simulate

PAGE = Path(__file__).resolve().parent.parent / "docs" / "worlds.md"
BEGIN, END = "<!-- statistics:begin -->", "<!-- statistics:end -->"
EXPOSURES = 100_000
COLUMNS = (
    "world",
    "CTR",
    "CVR over clicks",
    "CVR over exposures",
    "CTCVR",
    "clicks",
    "conversions",
    "users",
    "items",
    "correlation",
    "effective share",
    "`ctr/auc@world`",
    "`cvr/auc@world`",
    "`ctcvr/auc@world`",
    "`cvr/auc@click`",
)
CEILINGS = ("ctr/auc@world", "cvr/auc@world", "ctcvr/auc@world", "cvr/auc@click")


def agreement(world: World) -> tuple[float, float]:
    """Return the correlation of the true logits of CTR and CVR, and the effective share of clicks weighted by 1 / p."""
    truth = world.truth()
    possible = truth.ctr > 0.0
    ctr, cvr = truth.ctr[possible], truth.cvr_do[possible]
    logits = [np.log(share) - np.log1p(-share) for share in (ctr, cvr)]
    effective = len(ctr) ** 2 / ((1.0 / ctr).sum() * ctr.sum())
    return float(np.corrcoef(*logits)[0, 1]), float(effective)


def percent(share: float) -> str:
    """Return a share with three significant digits."""
    return f"{100.0 * share:#.3g}".rstrip(".") + " %"


def row(name: str, form: dict[str, Any], world: World) -> str:
    """Return the row of a world."""
    rates, counts = form["rates"], form["counts"]
    alike, effective = agreement(world)
    cells = [f"`{name}`", *(percent(rates[rate]) for rate in ("ctr", "cvr_click", "cvr_do", "ctcvr"))]
    cells += [f"{counts[what]:,}" if what in counts else "" for what in ("clicks", "conversions", "users", "items")]
    cells += [f"{alike:.2f}", f"{effective:.2f}"]
    for metric in CEILINGS:
        value = form["oracle"].get(metric, {}).get("value")
        cells.append("" if value is None or math.isnan(value) else f"{value:.3f}")
    return f"| {' | '.join(cells)} |"


def table() -> str:
    """Simulate every preset and return the table."""
    lines = [f"| {' | '.join(COLUMNS)} |", "|---|" + "---:|" * (len(COLUMNS) - 1)]
    seen: list[Any] = []
    for name, knobs in PRESETS.items():
        if any(knobs is other for other in seen):
            continue  # another name of a world that is there
        seen.append(knobs)
        with tempfile.TemporaryDirectory() as scratch:
            world = simulate(Path(scratch) / "world", world=name, exposures=EXPOSURES, seed=0)
            lines.append(row(name, world_form(world), world))
    return "\n".join(lines)


def made(page: str, text: str) -> str:
    """Return the page with the table between its marks."""
    before, _, rest = page.partition(BEGIN)
    return f"{before}{BEGIN}\n\n{text}\n\n{END}{rest.partition(END)[2]}"


def main() -> int:
    """Write the table, or compare it."""
    page = PAGE.read_text("utf-8")
    wanted = made(page, table())
    if wanted == page:
        print("docs/worlds.md is up to date")
        return 0
    if "--check" in sys.argv[1:]:
        print("docs/worlds.md is out of date: run benchmarks/world_pages.py")
        return 1
    PAGE.write_text(wanted, "utf-8")
    print("wrote docs/worlds.md")
    return 0


if __name__ == "__main__":
    sys.exit(main())
