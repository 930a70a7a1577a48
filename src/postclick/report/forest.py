"""The charts: one small form each, drawn for a phone's width so that a desktop sets several side by side.

Colours are the page's own variables (``var(--ink)``), which is how one drawing serves light, dark and paper.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from postclick.report.svg import rendered
from postclick.report.words import plain

__all__ = ["FAINT", "INK", "SERIES", "SOFT", "WIDTH", "Bar", "domain_of", "forest", "themed", "values"]

WIDTH = 356
"""Pixels of a whole chart: a phone of 390 without its margins."""
SERIES = tuple(f"var(--s{index})" for index in range(1, 5))
"""Colours of lines in one chart: no more can be told apart."""
INK, SOFT, FAINT = "var(--ink)", "var(--ink-2)", "var(--line)"
_VERDICT = {"better": "var(--good)", "worse": "var(--bad)"}
_ROW = 40
_LABEL = 42
"""Characters of a label over a row."""


@dataclass(frozen=True)
class Bar:
    """One row of a forest chart: a value with its interval.

    Parameters
    ----------
    label
        Over the row.
    value, low, high
        Where the dot and the line stand.
    text
        At the right end of the label's line.
    verdict
        ``better``, ``worse`` or else: the colour.
    seeds
        Values of single seeds, faint.
    mark
        ``dot``, or ``diamond`` for what is no system.
    """

    label: str
    value: float
    low: float | None = None
    high: float | None = None
    text: str = ""
    verdict: str = ""
    seeds: tuple[float, ...] = ()
    mark: str = "dot"


def themed(chart: Any) -> Any:
    """Set what all charts share."""
    axis = {
        "labelColor": SOFT,
        "titleColor": SOFT,
        "gridColor": FAINT,
        "domainColor": FAINT,
        "tickColor": FAINT,
        "labelFontSize": 11,
        "titleFontSize": 11.5,
        "titleFontWeight": "normal",
        "titlePadding": 8,
        "labelPadding": 5,
        "tickSize": 4,
    }
    legend = {"labelColor": INK, "labelFontSize": 11.5, "title": None, "orient": "top", "labelLimit": 150}
    legend |= {
        "symbolSize": 60,
        "columnPadding": 26,
        "symbolOpacity": 1,
        "symbolStrokeWidth": 0,
        "rowPadding": 3,
        "columns": 2,
        "padding": 0,
        "offset": 8,
    }
    return (
        chart.configure(
            background="transparent", font="Liberation Sans", padding={"left": 2, "top": 2, "right": 6, "bottom": 2}
        )
        .configure_view(stroke=None)
        .configure_axis(**axis)
        .configure_legend(**legend)
    )


def values(rows: Sequence[Mapping[str, Any]]) -> Any:
    """Return rows as the data of a chart."""
    import altair as alt

    data: Any = alt.Data
    return data(values=list(rows))


def domain_of(values: Sequence[float], *, log: bool = False) -> list[float]:
    """Return the range of an axis with a margin of 6 % on both sides."""
    low, high = min(values), max(values)
    if log:
        low, high = math.log(low), math.log(high)
    margin = 0.06 * (high - low) or 0.05 * abs(high) or 0.1
    ends = [low - margin, high + margin]
    return [math.exp(end) for end in ends] if log else ends


def forest(
    bars: Sequence[Bar],
    label: str,
    *,
    axis: str,
    reference: float | None = None,
    log: bool = False,
    share: bool = False,
) -> str:
    """Draw values with their intervals, a row each, its name over it; `reference` is a dashed line through all.

    Parameters
    ----------
    bars
        The rows, top to bottom.
    label
        For those who do not see it.
    axis
        What the numbers are.
    reference
        Where the dashed line stands.
    log
        Ratios: the axis is logarithmic, and shows a tenth on both sides of 1 at least.
    share
        Rates: the axis is in per cent.
    """
    import altair as alt

    rows = [_bar_row(index, bar) for index, bar in enumerate(bars)]
    numbers = [end for bar in bars for end in (bar.value, bar.low, bar.high, *bar.seeds) if end is not None]
    numbers += [] if reference is None else [reference]
    domain = domain_of([*numbers, *((0.9, 1.1) if log else ())], log=log)
    scale = alt.Scale(domain=domain, nice=False, **({"type": "log"} if log else {"zero": False}))
    form: dict[str, Any] = {"format": "~%"} if share else {"format": "~g"} if log else {}
    x = alt.X("value:Q", scale=scale, title=axis, axis=alt.Axis(tickCount=5, **form))
    y = alt.Y("row:Q", scale=alt.Scale(domain=[len(bars) - 0.5, -0.5], nice=False), axis=None)
    paint = alt.Color("paint:N", scale=None)
    base = alt.Chart(values(rows)).encode(x=x, y=y)
    layers = []
    if reference is not None:
        rule = alt.Chart(values([{"value": reference}]))
        layers.append(rule.mark_rule(color=SOFT, strokeDash=[4, 3], opacity=0.8).encode(x=x))
    ticks = [{"value": seed, "row": index} for index, bar in enumerate(bars) for seed in bar.seeds]
    if ticks:
        seeds = alt.Chart(values(ticks)).encode(x=x, y=y)
        layers.append(seeds.mark_tick(color=SOFT, opacity=0.55, thickness=1.2, size=9, yOffset=9))
    lines = base.transform_filter("datum.low !== null").mark_rule(strokeWidth=2.5, opacity=0.75, yOffset=9)
    layers.append(lines.encode(x=alt.X("low:Q", scale=scale, title=axis), x2="high:Q", color=paint))
    for mark, shape in (("dot", "circle"), ("diamond", "diamond")):
        some = base.transform_filter(f"datum.mark == '{mark}'")
        layers.append(some.mark_point(filled=True, size=70, shape=shape, opacity=1, yOffset=9).encode(color=paint))
    inside = WIDTH - 20
    left = base.mark_text(align="left", baseline="middle", dy=-8, color=INK, fontSize=12.5, limit=inside - 130)
    right = base.mark_text(align="right", baseline="middle", dy=-8, fontSize=11.5)
    layers.append(left.encode(x=alt.value(0), text="label:N"))
    layers.append(right.encode(x=alt.value(inside), text="text:N", color=alt.Color("tint:N", scale=None)))
    chart = alt.layer(*layers).properties(width=inside, height=_ROW * len(bars))
    return rendered(themed(chart), label)


def _bar_row(index: int, bar: Bar) -> dict[str, Any]:
    return {
        "row": index,
        "label": plain(bar.label, _LABEL),
        "text": bar.text,
        "value": bar.value,
        "low": bar.low,
        "high": bar.high,
        "tint": _VERDICT.get(bar.verdict, SOFT),
        "paint": _VERDICT.get(bar.verdict, INK if bar.mark == "dot" else SOFT),
        "mark": bar.mark,
    }
