"""The tables that commands share: metrics with their intervals, the ledger, the funnel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from postclick.cli.output import number, table

if TYPE_CHECKING:
    from rich.console import RenderableType

Metrics: TypeAlias = Mapping[str, Mapping[str, Any]]
"""Name -> plain form of a metric, as ``evaluate --json`` prints it."""

__all__ = [
    "Metrics",
    "experts_parts",
    "headline",
    "interval",
    "ledger_parts",
    "metrics_parts",
    "metrics_table",
    "overlap_parts",
]

_HEADLINE = ("auc", "logloss", "ne", "pcoc", "ece")


def interval(entry: Mapping[str, Any], digits: int = 4) -> str:
    """Return ``value [low, high]`` of a metric's plain form, or why it has no value.

    Where the ends are a null band, in which the value need not lie, ``value (if calibrated: low to high)``.
    """
    if entry["value"] is None:
        return f"undefined ({entry['undefined']})"
    value = number(entry["value"], digits)
    if entry["low"] is None:
        return value
    ends = number(entry["low"], digits), number(entry["high"], digits)
    band = entry.get("method", "").startswith("null band")
    return f"{value} (if calibrated: {' to '.join(ends)})" if band else f"{value} [{', '.join(ends)}]"


def metrics_table(title: str, metrics: Metrics) -> RenderableType:
    """Build the table of metrics: value with its interval, rows, positives."""
    rows = [
        (
            name + (" (derived)" if entry["derived"] else ""),
            interval(entry),
            number(entry["n"]),
            number(entry["positives"], 1),
        )
        for name, entry in metrics.items()
    ]
    return table(title, ("metric", "value [95 % interval]", "rows", "positives"), rows)


def headline(metrics: Metrics) -> Metrics:
    """Return the few metrics that a run is looked at for first: no variants, no slices."""
    return {name: entry for name, entry in metrics.items() if _is_headline(name)}


def _is_headline(name: str) -> bool:
    return "|" not in name and name.partition("/")[2].partition("@")[0] in _HEADLINE


def metrics_parts(title: str, metrics: Metrics) -> list[RenderableType]:
    """Build the table of all metrics; slices without a row are counted in a sentence instead of shown."""
    empty = [name for name, entry in metrics.items() if "|" in name and not entry["n"]]
    shown = {name: entry for name, entry in metrics.items() if name not in empty}
    parts = [metrics_table(title, shown)]
    if empty:
        slices = sorted({name.partition("|")[2] for name in empty})
        parts.append(f"slices without rows, where metrics are undefined: {', '.join(slices)}")
    return parts


def experts_parts(form: Mapping[str, Any] | None) -> list[RenderableType]:
    """Build the table of experts from its plain form in ``evaluate --json``; nothing for a system without gates."""
    if not form:
        return []
    rows: list[tuple[str, ...]] = []
    for task, use in form["tasks"].items():
        for index, (weight, top) in enumerate(zip(use["weight"], use["top"], strict=True)):
            verdict = "collapsed" if index in use["collapsed"] else ""
            rows.append((task, str(index), verdict, f"{weight:.1%}", f"{top:.1%}", number(use["entropy"], 3)))
    columns = ("task", "expert", "", "mean weight", "rows where largest", "entropy of the gate")
    below = f"{form['collapsed_below']:g}/K of the weight"
    # what has collapsed is said in the notes of the evaluation
    healthy = [] if form["verdict"] else [f"no expert has collapsed: each gets at least {below}"]
    return [table("Experts", columns, rows, texts=3), *healthy]


def overlap_parts(form: Mapping[str, Any] | None) -> list[RenderableType]:
    """Build what is shown of the overlap that debiased estimates rest on; nothing where there is none."""
    if not form:
        return []
    quantiles = form["quantiles"]
    kept = [index for index, level in enumerate(quantiles["levels"]) if level in (0.01, 0.25, 0.5, 0.75, 0.99)]
    columns = ("exposures", *(f"{quantiles['levels'][index]:.0%}" for index in kept))
    rows = [
        (name, *(number(quantiles[name][index], 3) for index in kept))
        for name in ("clicked", "unclicked")
        if quantiles[name]
    ]
    balance = (f"{name} {off['before']:+.2f} to {off['after']:+.2f} sd" for name, off in form["balance"].items())
    words = (form["verdict"], f"clicks against exposures, before and after weighting: {', '.join(balance)}")
    return [table(f"Propensity by click ({form['propensity']})", columns, rows), *words]


def ledger_parts(ledger: Mapping[str, Any]) -> list[RenderableType]:
    """Build what is shown of a ledger: the sentences, and the funnel of each split."""
    from postclick.data.ledger import Ledger

    read = Ledger.from_dict(ledger)
    rows = []
    for name, funnel in read.kept.items():
        rates = (_rate(funnel.clicks, funnel.rows), _rate(funnel.conversions, funnel.clicks))
        counts = (funnel.rows, funnel.clicks, funnel.conversions)
        rows.append((name, *(number(count) for count in counts), *(number(rate) for rate in rates)))
    columns = ("split", "exposures", "clicks", "conversions", "CTR", "CVR on clicks")
    return ["\n".join(read.lines()), table("Funnel", columns, rows)]


def _rate(part: int, whole: int) -> float | None:
    return part / whole if whole else None
