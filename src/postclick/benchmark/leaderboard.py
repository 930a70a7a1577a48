"""The table of an experiment: means over seeds, paired against the baseline, in words."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from postclick.benchmark.experiment import Experiment
from postclick.bundle import Bundle, Scorer
from postclick.data.log import ExposureLog
from postclick.data.scores import Scores
from postclick.evaluation.compare import compare
from postclick.evaluation.comparison import Comparison, Difference
from postclick.evaluation.names import MetricName
from postclick.metrics.influence import COMPARED
from postclick.run.assessment import judged_rows

__all__ = ["Cell", "Leaderboard", "RunRow"]

FORMAT = 1
_ABSENT = "not measured on these rows"


@dataclass(frozen=True)
class RunRow:
    """One run: what it is, what chose it, what it measured.

    Parameters
    ----------
    key
        ``DATA/LABEL/seed-NNN``, or ``DATA/LABEL/SETTING/seed-NNN`` under a grid, SETTING a hash: its folder under
        ``runs/``. A run that tried the setting which was then chosen is a final one, too, on a line of its own.
    data, label, system, stage, seed
        Which; `stage` is ``grid`` or ``final``.
    bundle
        Hash of its bundle.
    settings
        Its whole configuration.
    chosen
        The part of it that the grid varies.
    valid
        What the choice looked at; None for a final run.
    metrics
        Of the judged split, final runs only.
    """

    key: str
    data: str
    label: str
    system: str
    stage: str
    seed: int
    bundle: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    chosen: Mapping[str, Any] = field(default_factory=dict)
    valid: float | None = None
    metrics: Mapping[str, Any] = field(default_factory=dict)

    def line(self) -> str:
        """Return its line of ``runs.jsonl``."""
        return json.dumps(asdict(self), sort_keys=True, allow_nan=False, ensure_ascii=False)


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


@dataclass(frozen=True)
class Leaderboard:
    """The tables of an experiment.

    Parameters
    ----------
    baseline
        Label compared against.
    metrics
        Names, in order.
    tables
        Data set -> label -> metric -> `Cell`.
    chosen
        Data set -> label -> what the grid chose.
    notes
        What was left out.
    layout
        Whether rows are runs or metrics.
    """

    baseline: str | None
    metrics: tuple[str, ...]
    tables: Mapping[str, Mapping[str, Mapping[str, Cell]]]
    chosen: Mapping[str, Mapping[str, Mapping[str, Any]]]
    notes: tuple[str, ...] = ()
    layout: str = "run"

    @classmethod
    def of(
        cls,
        experiment: Experiment,
        logs: Mapping[str, ExposureLog],
        rows: Sequence[RunRow],
        out: Path,
        notes: Sequence[str] = (),
    ) -> Leaderboard:
        """Put finished runs in tables; those of a paired comparison are scored anew from their bundles."""
        final = [row for row in rows if row.stage == "final"]
        tables, chosen = {}, {}
        for name, log in logs.items():
            mine = {
                run.label: [row for row in final if (row.data, row.label) == (name, run.label)]
                for run in experiment.runs
            }
            compared = _compared(experiment, log, mine, out)
            tables[name] = {
                label: {metric: _cell(metric, label, seeds, compared) for metric in experiment.table.metrics}
                for label, seeds in mine.items()
            }
            chosen[name] = {label: dict(seeds[0].chosen) for label, seeds in mine.items() if seeds and seeds[0].chosen}
        table = experiment.table
        return cls(table.baseline, table.metrics, tables, chosen, tuple(notes), table.rows)

    def to_dict(self) -> dict[str, Any]:
        """Return the plain form, ``leaderboard.json``."""
        tables = {
            data: {label: {metric: asdict(cell) for metric, cell in cells.items()} for label, cells in table.items()}
            for data, table in self.tables.items()
        }
        form: dict[str, Any] = {"format": FORMAT, "baseline": self.baseline, "metrics": list(self.metrics)}
        return form | {"tables": tables, "chosen": self.chosen, "notes": list(self.notes)}

    def to_markdown(self) -> str:
        """Return the tables as Markdown: mean, seed deviation, and the verdict against the baseline as a sign.

        ``+`` is better than the baseline, ``-`` worse, ``=`` cannot tell; * marks a derived head. A metric that the
        rows of a table do not have, such as those of a world on real data, is left out of it.
        """
        parts = []
        for data, table in self.tables.items():
            cells = {(label, metric): _text(cell) for label, row in table.items() for metric, cell in row.items()}
            shown = [name for name in self.metrics if any(row[name].undefined != _ABSENT for row in table.values())]
            if self.layout == "run":
                head = shown
                body = [[label, *(cells[label, metric] for metric in shown)] for label in table]
            else:
                head = list(table)
                body = [[metric, *(cells[label, metric] for label in table)] for metric in shown]
            lines = [f"| {data} | " + " | ".join(head) + " |", "|---" * (len(head) + 1) + "|"]
            parts.append("\n".join([*lines, *("| " + " | ".join(row) + " |" for row in body)]))
        signs = f"Against {self.baseline}: + better, - worse, = cannot tell. " if self.baseline else ""
        return "\n\n".join([*parts, f"{signs}Mean over seeds ± their standard deviation; * derived.", *self.notes])


def _compared(
    experiment: Experiment, log: ExposureLog, rows: Mapping[str, Sequence[RunRow]], out: Path
) -> Comparison | None:
    table = experiment.table
    names = [name for name in table.metrics if _comparable(name)]
    if table.baseline is None or not names or len(rows) < 2:
        return None
    scored: dict[str, list[Scores]] = {}
    labels = truth = None
    for label, seeds in rows.items():
        for row in seeds:
            found, _, _ = judged_rows(Scorer(Bundle.load(out / "runs" / row.key), "cpu"), log, table.split)
            scored.setdefault(label, []).append(found.scores)
            labels, truth = found.labels, found.truth
    assert labels is not None
    population = log.schema.population
    return compare(scored, labels, truth=truth, metrics=names, baseline=table.baseline, population=population)


def _comparable(name: str) -> bool:
    parsed = MetricName.parse(name)
    return parsed.metric in COMPARED and not parsed.slice


def _cell(metric: str, label: str, rows: Sequence[RunRow], compared: Comparison | None) -> Cell:
    entries = [row.metrics.get(metric) for row in rows]
    values = [None if entry is None else entry["value"] for entry in entries]
    derived = any(entry is not None and entry["derived"] for entry in entries)
    if not values or any(value is None for value in values):
        reason = next((str(entry["undefined"]) for entry in entries if entry is not None and entry["undefined"]), None)
        return Cell(None, seeds=len(rows), derived=derived, undefined=reason or _ABSENT)
    logs = MetricName.parse(metric).metric == "pcoc"
    numbers = np.array(values, np.float64)
    scale = np.log(numbers) if logs else numbers
    mean = float(scale.mean())
    value, spread = math.exp(mean) if logs else mean, float(scale.std(ddof=1)) if len(scale) > 1 else None
    cell = Cell(value, spread, len(rows), derived)
    found = _difference(metric, label, compared)
    if found is None:
        return cell
    return replace(cell, difference=found.value, low=found.low, high=found.high, verdict=found.verdict)


def _difference(metric: str, label: str, compared: Comparison | None) -> Difference | None:
    if compared is None or metric not in compared.differences:
        return None
    return next((found for found in compared.differences[metric] if found.system == label), None)


def _text(cell: Cell) -> str:
    if cell.value is None:
        return f"undefined ({cell.undefined})"
    spread = "" if cell.seed_sd is None else f" ±{cell.seed_sd:.4f}"
    sign = {"better": " +", "worse": " -", "cannot tell": " ="}.get(cell.verdict or "", "")
    return f"{cell.value:.4f}{spread}{sign}{'*' if cell.derived else ''}"
