"""Read a BENCHMARK into studies: one a data set, with its table, its paired comparisons and what its grid tried."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from postclick import files
from postclick.data.log import SPLITS
from postclick.report.facts import Cell, Contestant, Pair, RunFacts, Study, Trial
from postclick.report.folders import corrupt, json_lines, read_log, read_run, read_toml, remembered_log
from postclick.report.log_facts import DataTable, Funnel, LogFacts
from postclick.report.words import settled

__all__ = ["SHARED", "read_benchmark", "shared_logs"]

SHARED = "shared"
_ORACLE = "oracle"


def shared_logs(folder: Path) -> dict[str, Path]:
    """Return hash -> LOG of those that a benchmark keeps beside its runs."""
    found = {}
    for manifest in sorted((folder / SHARED).rglob(files.MANIFEST)):
        body = files.read_json(manifest)
        if isinstance(body, Mapping) and body.get("kind") == "log":
            found[str(body.get("hash"))] = manifest.parent
    return found


def read_benchmark(folder: Path, name: str, logs: Mapping[str, Path]) -> list[Study]:
    """Return the studies of a BENCHMARK; its first seed's runs are those whose curves are shown.

    Parameters
    ----------
    folder
        The BENCHMARK.
    name
        For people.
    logs
        Hash -> LOG, of those that are at hand.

    Raises
    ------
    InputMissingError
        Not a BENCHMARK.
    DataError
        A file in it is not what postclick writes.
    """
    files.read_manifest(folder, "benchmark")
    board, lines = files.read_json(folder / "leaderboard.json"), json_lines(folder / "runs.jsonl")
    experiment = read_toml(folder / "experiment.toml")
    with corrupt(folder):
        return [
            _study(folder, name, data, table, board, lines, experiment, logs) for data, table in board["tables"].items()
        ]


def _study(
    folder: Path,
    origin: str,
    data: str,
    table: Mapping[str, Any],
    board: Mapping[str, Any],
    lines: Sequence[Mapping[str, Any]],
    experiment: Mapping[str, Any],
    logs: Mapping[str, Path],
) -> Study:
    mine = [line for line in lines if line["data"] == data]
    final = [line for line in mine if line["stage"] == "final"]
    contestants = [
        _contestant(folder, label, cells, [line for line in final if line["label"] == label], board)
        for label, cells in table.items()
        if label != _ORACLE
    ]
    runs = [entry.run for entry in contestants if entry.run is not None]
    baseline = board.get("baseline")
    grid = experiment.get("grid", {})
    facts = _data_table(board.get("data", {}).get(data))
    metric = str(grid.get("metric") or "the validation loss that early stopping reads")
    return Study(
        name=data,
        origin=origin,
        log=_log(data, runs, logs, facts),
        contestants=tuple(contestants),
        metrics=_measured(board["metrics"], table),
        pairs=tuple(_pairs(table, baseline)),
        baseline=baseline,
        oracle=_oracle(table.get(_ORACLE, {})),
        trials=tuple(_trials(line for line in mine if line["stage"] == "grid")),
        grid_metric=metric,
        notes=tuple(str(note) for note in board.get("notes", ())),
        groups=board.get("groups", {}).get(data, {}),
        table=facts,
        split=str(experiment.get("table", {}).get("split", "test")),
    )


def _measured(metrics: Iterable[str], table: Mapping[str, Any]) -> tuple[str, ...]:
    """Leave out what no row of this data set has (metrics of a world, on real data)."""
    return tuple(name for name in metrics if any(row.get(name, {}).get("value") is not None for row in table.values()))


def _data_table(form: Mapping[str, Any] | None) -> DataTable | None:
    """Read Table 1; a leaderboard of an older version has none."""
    if form is None:
        return None
    splits = tuple(
        Funnel(split, int(found["rows"]), int(found["clicks"]), int(found["conversions"]), found.get("actions"))
        for split in SPLITS
        if (found := form["splits"].get(split)) is not None
    )
    return DataTable(form.get("users"), form.get("items"), form.get("features"), splits)


def _log(data: str, runs: Sequence[RunFacts], logs: Mapping[str, Path], table: DataTable | None) -> LogFacts:
    known = next((logs[run.log] for run in runs if run.log in logs), None)
    if known is not None:
        return read_log(known, data)
    found = remembered_log(runs, data) if runs else LogFacts(data, "", False, ())
    return found if table is None else replace(found, funnels=table.splits)


def _oracle(row: Mapping[str, Any]) -> dict[str, float]:
    return {name: settled(float(cell["value"])) for name, cell in row.items() if cell.get("value") is not None}


def _contestant(
    folder: Path,
    label: str,
    cells: Mapping[str, Any],
    lines: Sequence[Mapping[str, Any]],
    board: Mapping[str, Any],
) -> Contestant:
    lines = sorted(lines, key=lambda line: int(line["seed"]))
    run = None
    if lines:
        place = folder / "runs" / lines[0]["key"]
        run = read_run(place, lines[0]["key"]) if place.is_dir() else None
    read = {name: _cell(name, cell, lines) for name, cell in cells.items() if name in board["metrics"]}
    system = str(lines[0]["system"]) if lines else ""
    return Contestant(label, system, run, len(lines), read, dict(lines[0]["chosen"]) if lines else {})


def _cell(name: str, cell: Mapping[str, Any], lines: Sequence[Mapping[str, Any]]) -> Cell:
    values = [line["metrics"].get(name, {}).get("value") for line in lines]
    seeds = tuple(float(value) for value in values if value is not None)
    low = high = None
    if len(lines) == 1 and cell["value"] is not None:
        low, high = (lines[0]["metrics"][name].get(end) for end in ("low", "high"))
    return Cell(cell["value"], low, high, seeds, cell.get("seed_sd"), bool(cell["derived"]), cell.get("undefined"))


def _pairs(table: Mapping[str, Any], baseline: str | None) -> Iterable[Pair]:
    for label, cells in table.items():
        for name, cell in cells.items():
            if baseline is None or label in (baseline, _ORACLE) or cell.get("verdict") is None:
                continue
            ends = [cell.get(key) for key in ("difference", "low", "high")]
            if all(isinstance(end, int | float) and math.isfinite(end) for end in ends):
                value, low, high = map(float, ends)
                needed = str(cell.get("needed") or "")
                tested = {"gain": cell.get("gain"), "p": cell.get("p_holm"), "method": str(cell.get("method") or "")}
                seeds = int(cell["seeds"])
                yield Pair(name, label, baseline, value, low, high, cell["verdict"], needed, seeds, **tested)


def _trials(lines: Iterable[Mapping[str, Any]]) -> Iterable[Trial]:
    """Average the tries of each setting over its seeds."""
    found: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for line in lines:
        found.setdefault((line["label"], repr(sorted(line["chosen"].items()))), []).append(line)
    for (label, _), tries in found.items():
        values = [entry["valid"] for entry in tries]
        known = [float(value) for value in values if value is not None]
        whole = bool(known) and len(known) == len(values)
        yield Trial(label, dict(tries[0]["chosen"]), sum(known) / len(known) if whole else None)
