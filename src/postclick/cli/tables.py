"""The tables that commands share: metrics with their intervals, the ledger, the funnel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from postclick.cli.output import number, table

if TYPE_CHECKING:
    from rich.console import RenderableType

Metrics: TypeAlias = Mapping[str, Mapping[str, Any]]
"""Name -> plain form of a metric, as ``evaluate --json`` prints it."""

__all__ = ["Metrics", "headline", "interval", "ledger_parts", "metrics_parts", "metrics_table"]

_HEADLINE = ("auc", "logloss", "ne", "pcoc", "ece")


def interval(entry: Mapping[str, Any], digits: int = 4) -> str:
    """Return ``value [low, high]`` of a metric's plain form, or why it has no value."""
    if entry["value"] is None:
        return f"undefined ({entry['undefined']})"
    value = number(entry["value"], digits)
    if entry["low"] is None:
        return value
    return f"{value} [{number(entry['low'], digits)}, {number(entry['high'], digits)}]"


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
