"""Ablations and hyper-parameters: rows that differ by one setting, and what a grid saw on the validation rows."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import Any

from postclick.evaluation.choice import merit
from postclick.report.blocks import Figure, Group, Part, Table
from postclick.report.charts import MOST_SERIES, sweep
from postclick.report.facts import Contestant, Study
from postclick.report.words import interval, meaning, number, plain, setting, title

__all__ = ["differing", "settings"]

_METRICS = 2
"""The first metrics of the leaderboard are drawn over a setting."""


def settings(study: Study) -> Part:
    """Return ablations, hyper-parameter figures and the grid of a study."""
    groups = (("Over one setting", _sweeps(study)), ("The grid, on validation rows", _grid(study)))
    found = [Group(heading, tuple(figures)) for heading, figures in groups]
    tables = (*_ablations(study), *_tried(study))
    return Part(groups=tuple(group for group in found if group.figures), tables=tables)


def differing(one: Contestant, other: Contestant) -> str | None:
    """Return the one setting by which two rows of the same system differ, None where it is none or several.

    What a grid chose for either does not count: it tunes both alike.
    """
    if one.run is None or other.run is None or one.system != other.system:
        return None
    left, right = one.run.config, other.run.config
    tuned = {f"{part}{name}" for name in {*one.chosen, *other.chosen} for part in ("", "arguments.")}
    keys = [key for key in sorted({*left, *right} - tuned) if left.get(key) != right.get(key)]
    return keys[0] if len(keys) == 1 else None


def _short(name: str) -> str:
    return name.removeprefix("arguments.")


def _value(entry: Contestant, key: str) -> Any:
    return None if entry.run is None else entry.run.config.get(key)


def _groups(study: Study) -> dict[tuple[str, str], list[Contestant]]:
    """Return (system, setting) -> the rows that differ by that setting alone, each from each."""
    found: dict[tuple[str, str], list[Contestant]] = {}
    for one, other in combinations(study.contestants, 2):
        key = differing(one, other)
        if key is not None:
            group = found.setdefault((one.system, key), [])
            group += [entry for entry in (one, other) if entry not in group]
    return found


def _sweeps(study: Study) -> Iterator[Figure]:
    for (system, key), group in _groups(study).items():
        values = [_value(entry, key) for entry in group]
        numeric = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
        if len(group) < 3 or not numeric:
            continue
        for metric in study.metrics[:_METRICS]:
            rows = [row for entry in group if (row := _point(system, entry, key, metric)) is not None]
            rows.sort(key=lambda row: float(row["x"]))
            if len(rows) >= 3:
                yield _sweep(study, _short(key), metric, rows)


def _point(system: str, entry: Contestant, key: str, metric: str) -> dict[str, Any] | None:
    cell = entry.cells.get(metric)
    if cell is None or cell.value is None:
        return None
    low = high = None
    if cell.seed_sd is not None:
        ratio = "/pcoc" in metric
        low = cell.value * math.exp(-cell.seed_sd) if ratio else cell.value - cell.seed_sd
        high = cell.value * math.exp(cell.seed_sd) if ratio else cell.value + cell.seed_sd
    return {
        "name": system,
        "x": _value(entry, key),
        "value": cell.value,
        "low": low,
        "high": high,
        "label": entry.label,
    }


def _sweep(study: Study, key: str, metric: str, rows: list[dict[str, Any]]) -> Figure:
    label = f"{title(metric)} over {key}: " + "; ".join(f"{setting(row['x'])}: {number(row['value'])}" for row in rows)
    columns = [
        ("row", "text"),
        (key, "number"),
        (metric, "number"),
        ("minus one sd", "number"),
        ("plus one sd", "number"),
    ]
    lines = [tuple(row[name] for name in ("label", "x", "value", "low", "high")) for row in rows]
    table = Table.of(f"{study.name} {key} {metric}", columns, lines)
    svg = sweep(rows, label, setting=plain(key, 40), metric=plain(metric, 30))
    return Figure(
        f"{title(metric)} over {plain(key, 40)}",
        svg,
        table,
        metric,
        "Bars: ± one standard deviation over seeds.",
        meaning(metric),
    )


def _ablations(study: Study) -> Iterator[Figure]:
    if not study.metrics:
        return
    metric = study.metrics[0]
    rows = []
    for (_, key), group in _groups(study).items():
        for one, other in combinations(group, 2):
            cells = [entry.cells.get(metric) for entry in (one, other)]
            values = [None if cell is None else cell.value for cell in cells]
            if None in values:
                continue
            change = f"{_short(key)}: {setting(_value(one, key))} → {setting(_value(other, key))}"
            rows.append(
                (
                    f"{one.label} → {other.label}",
                    change,
                    (values[1] or 0.0) - (values[0] or 0.0),
                    *_judged(study, metric, one, other),
                )
            )
    if rows:
        columns = [("rows", "text"), ("what changes", "text"), (f"change of {metric}", "signed")]
        columns += [("95 % interval, paired", "text"), ("verdict", "text")]
        table = Table.of(f"{study.name} ablations", columns, rows)
        note = "Only rows that were compared with the baseline have a paired interval; without one no verdict is given."
        yield Figure("One setting at a time", "", table, metric, note)


def _judged(study: Study, metric: str, one: Contestant, other: Contestant) -> tuple[str, str]:
    """Return the paired interval and the verdict of the change, where one of the two is the baseline."""
    pair, sign = study.pair(metric, other.label), 1.0
    if one.label != study.baseline:
        pair, sign = study.pair(metric, one.label), -1.0
        if other.label != study.baseline:
            return "", "not compared in pairs"
    if pair is None:
        return "", "not compared in pairs"
    ends = sorted((sign * pair.low, sign * pair.high))
    turned = {"better": "worse", "worse": "better"}
    verdict = pair.verdict if sign > 0 else turned.get(pair.verdict, pair.verdict)
    return interval(sign * pair.value, *ends, sign=True), verdict


def _grid(study: Study) -> Iterator[Figure]:
    """Yield what the validation rows said over each setting of the grid, the best over the others."""
    names = list(dict.fromkeys(name for trial in study.trials for name in trial.setting))
    labels = list(dict.fromkeys(trial.label for trial in study.trials))
    for name in names:
        charts = -(-len(labels) // MOST_SERIES)
        for index in range(charts):
            some = labels[index::charts]
            rows = [row for label in some for row in _best_over(study, label, name)]
            if len({str(row["x"]) for row in rows}) > 1:
                yield _grid_figure(study, name, rows, f" ({index + 1} of {charts})" if charts > 1 else "")


def _best_over(study: Study, label: str, name: str) -> list[dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for trial in study.trials:
        if trial.label != label or trial.value is None or name not in trial.setting:
            continue
        key = setting(trial.setting[name])
        known = found.get(key)
        if known is None or _merit(study, trial.value) < _merit(study, known["value"]):
            raw = trial.setting[name]
            x = raw if isinstance(raw, int | float) and not isinstance(raw, bool) else key
            found[key] = {"name": label, "x": x, "value": trial.value, "low": None, "high": None}
    return list(found.values())


def _merit(study: Study, value: float) -> float:
    """Return what the grid minimised: the loss itself, or the merit of its metric."""
    return merit(study.grid_metric, value) if "/" in study.grid_metric else value


def _grid_figure(study: Study, name: str, rows: list[dict[str, Any]], part: str) -> Figure:
    heading = f"The grid over {plain(_short(name), 40)}{part}"
    label = f"{heading}: " + "; ".join(
        f"{plain(row['name'], 30)} at {setting(row['x'])}: {number(row['value'])}" for row in rows
    )
    columns = [("system", "text"), (name, "text"), (study.grid_metric, "number")]
    table = Table.of(
        f"{study.name} grid {name}{part}", columns, [(row["name"], setting(row["x"]), row["value"]) for row in rows]
    )
    svg = sweep(rows, label, setting=plain(_short(name), 40), metric="on validation rows")
    note = f"Chosen by {plain(study.grid_metric, 60)}; the test rows never choose. The best over all other settings."
    return Figure(heading, svg, table, note=note)


def _tried(study: Study) -> Iterator[Figure]:
    chosen: Mapping[str, Mapping[str, Any]] = {entry.label: entry.chosen for entry in study.contestants}
    rows = [
        (
            trial.label,
            ", ".join(f"{_short(name)} = {setting(value)}" for name, value in trial.setting.items()),
            trial.value,
            "chosen" if dict(chosen.get(trial.label, {})) == dict(trial.setting) else "",
        )
        for trial in study.trials
    ]
    if rows:
        columns = [("system", "text"), ("setting", "text"), ("on validation rows", "number"), ("", "text")]
        yield Figure("Every setting that was tried", "", Table.of(f"{study.name} grid", columns, rows))
