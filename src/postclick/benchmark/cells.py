"""One cell of a leaderboard: a metric of a run over its seeds, and what its difference from the baseline means."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from postclick.benchmark.rows import RunRow
from postclick.evaluation.comparison import Difference
from postclick.evaluation.names import MetricName

__all__ = ["ABSENT", "Cell", "cell", "text"]

ABSENT = "not measured on these rows"


@dataclass(frozen=True)
class Cell:
    """One metric of one run of the table, over its seeds.

    Parameters
    ----------
    value
        Mean over seeds (geometric for ``pcoc``); None where undefined for a seed.
    seed_sd
        Standard deviation over seeds (of the logarithm for ``pcoc``).
    seeds
        How many.
    derived
        The head is a quotient of others; never called best.
    undefined
        Why there is no value.
    difference, low, high, verdict
        Against the baseline, paired; None where the metric has no paired comparison or there is no baseline.
    gain
        The difference as a share of the baseline's value; None for ``pcoc``, whose difference is one of distances.
    p_holm
        Of the paired test, adjusted over the metric's column: what the verdict is read off.
    needed
        What would tell, in words ("about 1200 more conversions"); "" where nothing is missing or known.
    method
        How the difference was made, and what it leaves out.
    """

    value: float | None
    seed_sd: float | None = None
    seeds: int = 0
    derived: bool = False
    undefined: str | None = None
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    verdict: str | None = None
    gain: float | None = None
    p_holm: float | None = None
    needed: str = ""
    method: str = ""


def cell(metric: str, rows: Sequence[RunRow], found: Difference | None) -> Cell:
    """Return the cell of a metric: the runs of its seeds, and the difference from the baseline where there is one."""
    entries = [row.metrics.get(metric) for row in rows]
    values = [None if entry is None else entry["value"] for entry in entries]
    derived = any(entry is not None and entry["derived"] for entry in entries)
    if not values or any(value is None for value in values):
        reason = next((str(entry["undefined"]) for entry in entries if entry is not None and entry["undefined"]), None)
        return Cell(None, seeds=len(rows), derived=derived, undefined=reason or ABSENT)
    logs = MetricName.parse(metric).metric == "pcoc"
    numbers = np.array(values, np.float64)
    scale = np.log(numbers) if logs else numbers
    mean = float(scale.mean())
    value, spread = math.exp(mean) if logs else mean, float(scale.std(ddof=1)) if len(scale) > 1 else None
    made = Cell(value, spread, len(rows), derived)
    if found is None:
        return made
    made = replace(made, difference=found.value, low=found.low, high=found.high, verdict=found.verdict)
    gain = found.value / abs(found.reference) if found.value is not None and found.reference and not logs else None
    return replace(made, gain=gain, p_holm=found.p_holm, needed=found.needed, method=found.method)


def text(shown: Cell) -> str:
    """Return a cell for a person: mean, deviation over seeds, sign of the verdict, a star where derived."""
    if shown.value is None:
        return f"undefined ({shown.undefined})"
    spread = "" if shown.seed_sd is None else f" ±{shown.seed_sd:.4f}"
    sign = {"better": " +", "worse": " -", "cannot tell": " ="}.get(shown.verdict or "", "")
    return f"{shown.value:.4f}{spread}{sign}{'*' if shown.derived else ''}"
