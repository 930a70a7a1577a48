"""Against the truth of a world: the level of every head over all exposures, clicked or not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from postclick.report.blocks import Facts, Figure, Part, Table
from postclick.report.facts import Contestant, Study
from postclick.report.forest import Bar, forest
from postclick.report.sections.leaderboard import ordered
from postclick.report.verdicts import near
from postclick.report.words import HEADS, number, percent, plain, title

__all__ = ["levels", "true_mean", "truth"]

_PLACES = ("ctr/pcoc@world", "cvr/pcoc@world", "ctcvr/pcoc@world")


def truth(study: Study) -> Part:
    """Return what is known of the truth of a study's rows; empty for real logs."""
    figures = [found for place in _PLACES if (found := levels(study, place)) is not None]
    facts = tuple(_means(study))
    return Part.drawn(figures, facts=Facts(facts) if facts else None)


def _means(study: Study) -> Iterator[tuple[str, str]]:
    """Yield the true means of the test rows: the mass of the soft labels over the rows."""
    for head, (short, words) in HEADS.items():
        for entry in study.contestants:
            mean = None if entry.run is None else true_mean(entry.run.metrics, head)
            if mean is not None:
                yield f"true mean {short}", f"{percent(mean)} — {words}"
                break


def true_mean(metrics: Mapping[str, Mapping[str, Any]], head: str) -> float | None:
    """Return the mean true probability of a head over the test rows; None on real logs."""
    metric = metrics.get(f"{head}/pcoc@world", {})
    if not metric.get("n") or metric.get("positives") is None:
        return None
    return float(metric["positives"] / metric["n"])


def levels(study: Study, metric: str) -> Figure | None:
    """Return predicted over observed of every contestant's shown run, 1 marked; None where nobody has it."""
    found: list[tuple[Contestant, dict[str, float]]] = []
    for entry in ordered(study):
        form = {} if entry.run is None else dict(entry.run.metrics.get(metric, {}))
        if form.get("value"):
            found.append((entry, form))
    if not found:
        return None
    bars = [_bar(entry.label, form) for entry, form in found]
    label = f"{title(metric)}: " + "; ".join(f"{plain(bar.label, 40)} {bar.text}" for bar in bars)
    svg = forest(bars, label, axis="predicted over observed (log scale)", reference=1.0, log=True)
    columns = [("system", "text"), ("value", "number"), ("low", "number"), ("high", "number"), ("rows", "count")]
    rows = [(entry.label, *(form.get(key) for key in ("value", "low", "high", "n"))) for entry, form in found]
    note = (
        "First seed’s run. 1 is the right level."
        if any(entry.seeds > 1 for entry, _ in found)
        else "1 is the right level."
    )
    return Figure(title(metric), svg, Table.of(f"{study.name} {metric}", columns, rows), metric, note)


def _bar(label: str, form: dict[str, float]) -> Bar:
    low, high = form.get("low"), form.get("high")
    return Bar(label, form["value"], low, high, number(form["value"], 3), "" if near(form) else "worse")
