"""Training curves a term, and how gates use their experts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from postclick.report.blocks import Figure, Part, Table
from postclick.report.charts import gates as gates_drawn
from postclick.report.charts import training as training_drawn
from postclick.report.facts import RunFacts, Study
from postclick.report.sections.leaderboard import ordered
from postclick.report.words import number, plain

__all__ = ["gates", "training"]

_MOST_RUNS = 12


def training(study: Study) -> Part:
    """Return the training curves of the shown run of every contestant."""
    runs = [(entry.label, entry.run) for entry in ordered(study) if entry.run is not None and entry.run.checks]
    figures = tuple(_curves(study, label, run) for label, run in runs[:_MOST_RUNS])
    rest = len(runs) - _MOST_RUNS
    text = (f"{rest} more are not drawn: pass their RUN folders to see them.",) if rest > 0 else ()
    return Part.drawn(figures, text=text)


def _curves(study: Study, label: str, run: RunFacts) -> Figure:
    best = [check for check in run.checks if check.get("best")]
    kept = best[-1] if best else run.checks[-1]
    loss = (kept.get("valid") or {}).get("logloss")
    words = f"Training of {plain(label, 40)}: {len(run.checks)} checks, kept step {kept['step']}" + (
        f" with validation loss {number(loss)}" if loss is not None else ""
    )
    names = list(dict.fromkeys(name for check in run.checks for name in _numbers(check)))
    rows = [(check["step"], *(_numbers(check).get(name) for name in names)) for check in run.checks]
    columns = [("step", "count"), *((name, "number") for name in names)]
    table = Table.of(f"{study.name} {label} training", columns, rows)
    note = f"Seed {run.seed}. Kept: step {kept['step']} of {run.checks[-1]['step']}."
    return Figure(plain(label, 40), training_drawn(run.checks, words), table, run.system, note)


def _numbers(check: Mapping[str, Any]) -> dict[str, float]:
    parts = (("train", "terms"), ("valid", "valid"), ("diagnostic", "diagnostics"))
    return {
        f"{short} {name}": float(value)
        for short, key in parts
        for name, value in (check.get(key) or {}).items()
        if isinstance(value, int | float)
    }


def gates(study: Study) -> Part:
    """Return the use of experts of every contestant that has gates."""
    return Part.drawn(_use(study))


def _use(study: Study) -> Iterator[Figure]:
    for entry in ordered(study):
        tasks = ((entry.run.experts or {}).get("tasks") if entry.run is not None else None) or {}
        if not tasks:
            continue
        label = f"Use of experts by {plain(entry.label, 40)}: " + "; ".join(
            f"{plain(task, 20)} {', '.join(f'{weight:.0%}' for weight in use['weight'])}" for task, use in tasks.items()
        )
        collapsed = [f"{plain(task, 20)} {index}" for task, use in tasks.items() for index in use.get("collapsed", ())]
        note = f"Collapsed: {', '.join(collapsed)}." if collapsed else "No expert has collapsed."
        yield Figure(plain(entry.label, 40), gates_drawn(tasks, label), _table(study, entry.label, tasks), note=note)


def _table(study: Study, label: str, tasks: Mapping[str, Mapping[str, Any]]) -> Table:
    columns = [("task", "text"), ("expert", "count"), ("mean weight", "percent"), ("rows where largest", "percent")]
    rows: list[Sequence[Any]] = [
        (task, index, weight, top, use["entropy"])
        for task, use in tasks.items()
        for index, (weight, top) in enumerate(zip(use["weight"], use["top"], strict=True))
    ]
    return Table.of(f"{study.name} {label} experts", [*columns, ("entropy of the gate", "number")], rows)
