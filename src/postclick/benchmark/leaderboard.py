"""The tables of an experiment: means over seeds, paired tests against the baseline, who cannot be told apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from postclick.benchmark.cells import ABSENT, Cell, cell
from postclick.benchmark.data_facts import DataFacts
from postclick.benchmark.experiment import ORACLE, Experiment, TableSpec
from postclick.benchmark.markdown import markdown, tables_of
from postclick.benchmark.measured import Measured, comparable
from postclick.benchmark.pieces import Outcome
from postclick.benchmark.rows import RunRow
from postclick.data.log import ExposureLog
from postclick.errors import DataError, Finding
from postclick.evaluation import oracle
from postclick.evaluation.compare import compare_readings
from postclick.evaluation.comparison import Difference
from postclick.evaluation.readings import Reading

__all__ = ["Leaderboard"]

FORMAT = 1


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
        Data set -> label -> metric -> `Cell`; in a world the last label is `ORACLE`.
    chosen
        Data set -> label -> what the grid chose.
    notes
        What was left out.
    layout
        Whether rows are runs or metrics.
    groups
        Data set -> metric -> label -> letters: runs that share one cannot be told apart, over all pairs by Holm. Runs
        whose head is derived are compared among themselves, under ``derived``; the rest is under ``head``.
    data
        Data set -> what it is.
    """

    baseline: str | None
    metrics: tuple[str, ...]
    tables: Mapping[str, Mapping[str, Mapping[str, Cell]]]
    chosen: Mapping[str, Mapping[str, Mapping[str, Any]]]
    notes: tuple[str, ...] = ()
    layout: str = "run"
    groups: Mapping[str, Mapping[str, Mapping[str, Mapping[str, str]]]] = field(default_factory=dict)
    data: Mapping[str, DataFacts] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        experiment: Experiment,
        logs: Mapping[str, ExposureLog],
        outcomes: Sequence[Outcome],
        notes: Sequence[str] = (),
    ) -> Leaderboard:
        """Put finished runs in tables; what their comparison needs is read from disk a metric at a time."""
        table = experiment.table
        tables, chosen, groups = {}, {}, {}
        for name, log in logs.items():
            mine: dict[str, list[Outcome]] = {run.label: [] for run in experiment.runs}
            for found in outcomes:
                if found.piece.stage == "final" and found.row is not None and found.piece.data == name:
                    mine[found.piece.label].append(found)
            tables[name], groups[name] = _table(table, mine)
            truth = _oracle(table, log)
            if truth:
                tables[name][ORACLE] = truth
            picked = {label: seeds[0].piece.chosen for label, seeds in mine.items() if seeds}
            chosen[name] = {label: dict(setting) for label, setting in picked.items() if setting}
        facts = {name: DataFacts.of(log) for name, log in logs.items()}
        return cls(table.baseline, table.metrics, tables, chosen, tuple(notes), table.rows, groups, facts)

    def to_dict(self) -> dict[str, Any]:
        """Return the plain form, ``leaderboard.json``."""
        tables = {
            data: {label: {metric: asdict(entry) for metric, entry in cells.items()} for label, cells in table.items()}
            for data, table in self.tables.items()
        }
        form: dict[str, Any] = {"format": FORMAT, "baseline": self.baseline, "metrics": list(self.metrics)}
        form |= {"tables": tables, "chosen": self.chosen, "notes": list(self.notes)}
        return form | {"groups": self.groups, "data": {name: facts.to_dict() for name, facts in self.data.items()}}

    def tables_markdown(self) -> str:
        """Return the tables of means alone, as the command prints them."""
        return tables_of(self.tables, self.metrics, self.baseline, self.layout, self.notes)

    def to_markdown(self) -> str:
        """Return ``leaderboard.md``: the data, the tables of means, the test behind each sign, the groups."""
        means = self.tables_markdown()
        return markdown(means, self.data, self.tables, self.metrics, self.baseline, self.groups)


Groups = dict[str, dict[str, dict[str, str]]]


def _table(table: TableSpec, runs: Mapping[str, Sequence[Outcome]]) -> tuple[dict[str, dict[str, Cell]], Groups]:
    """Return the cells of one data set, and its groups by metric."""
    rows: dict[str, list[RunRow]] = {
        label: [found.row for found in seeds if found.row is not None] for label, seeds in runs.items()
    }
    cells: dict[str, dict[str, Cell]] = {label: {} for label in runs}
    groups: Groups = {}
    paired = comparable(table.metrics)
    for metric in table.metrics:
        found = _readings(metric, runs) if metric in paired else {}
        against = {entry.system: entry for entry in _against(metric, table.baseline, found)}
        for label, seeds in rows.items():
            cells[label][metric] = cell(metric, seeds, against.get(label))
        apart = _groups(metric, found)
        if apart:
            groups[metric] = apart
    return cells, groups


def _readings(metric: str, runs: Mapping[str, Sequence[Outcome]]) -> dict[str, list[dict[str, Reading]]]:
    """Return the readings of one metric by label; a file that went missing since is an error, not a gap."""
    found: dict[str, list[dict[str, Reading]]] = {}
    for label, seeds in runs.items():
        for outcome in seeds:
            kept = None if outcome.measured is None else Measured.load(outcome.measured, only=metric)
            if kept is None or metric not in kept.readings:
                fix = "run again with --resume"
                raise DataError(Finding("data.corrupt_file", "a run's readings are gone", outcome.piece.key, fix=fix))
            found.setdefault(label, []).append(dict(kept.readings))
    return found


def _against(
    metric: str, baseline: str | None, found: Mapping[str, Sequence[Mapping[str, Reading]]]
) -> Sequence[Difference]:
    if baseline not in found or len(found) < 2:
        return ()
    return compare_readings(found, metrics=[metric], baseline=baseline).differences[metric]


def _groups(metric: str, found: Mapping[str, Sequence[Mapping[str, Reading]]]) -> dict[str, dict[str, str]]:
    """Return letters over all pairs: of runs with a head of their own, and apart from them of derived ones."""
    derived = {label for label, seeds in found.items() if any(seed[metric].derived for seed in seeds)}
    parts = {"head": found.keys() - derived, "derived": derived}
    groups = {}
    for name, labels in parts.items():
        if len(labels) > 1:
            own = {label: seeds for label, seeds in found.items() if label in labels}
            groups[name] = compare_readings(own, metrics=[metric]).groups(metric)
    return groups


def _oracle(table: TableSpec, log: ExposureLog) -> dict[str, Cell]:
    """Return the metrics of a world's true probabilities; empty where there is no truth.

    Slices, whose rows the table's runs know by their own logs, have none.
    """
    truth = log.truth(table.split)
    names = [name for name in table.metrics if "|" not in name]
    if truth is None or not names:
        return {}
    found = oracle(log.split(table.split).labels(), truth, metrics=names, population=log.schema.population)
    cells = {metric: Cell(None, undefined=ABSENT) for metric in table.metrics}
    for name, entry in found.metrics.items():
        if name in cells:
            cells[name] = Cell(entry.value, undefined=entry.undefined)
    return cells
