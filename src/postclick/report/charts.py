"""The other charts: calibration, overlap, training, gates, settings, delay."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from postclick.report.facts import Curve
from postclick.report.forest import FAINT, INK, SERIES, SOFT, WIDTH, domain_of, themed, values
from postclick.report.log_facts import Delay
from postclick.report.svg import rendered
from postclick.report.words import plain

__all__ = ["MOST_SERIES", "calibration", "delay", "gates", "overlap", "sweep", "training"]

MOST_SERIES = len(SERIES)
"""Lines that one chart can hold and still be read."""
_ACCENT = "var(--accent)"
_PLOT = WIDTH - 60
_HOURS = (1 / 60, 0.1, 1, 6, 24, 72, 240, 720, 2160, 8760)


def _names(names: Sequence[str]) -> dict[str, str]:
    """Return name -> what a legend shows of it, all different."""
    shown: dict[str, str] = {}
    for name in names:
        short = plain(name, 24)
        shown[name] = short if short not in shown.values() else f"{plain(name, 20)} ({len(shown) + 1})"
    return shown


def _paint(names: Sequence[str]) -> Any:
    import altair as alt

    legend = alt.Legend() if len(names) > 1 else None
    return alt.Color("name:N", scale=alt.Scale(domain=list(names), range=list(SERIES[: len(names)])), legend=legend)


def calibration(curves: Mapping[str, Curve], label: str, *, observed: str) -> str:
    """Draw predicted against observed rates; a system on the diagonal promises what happens.

    Parameters
    ----------
    curves
        System -> its curve, `MOST_SERIES` at most.
    label
        For those who do not see it.
    observed
        What the vertical axis is.
    """
    import altair as alt

    names = _names(list(curves))
    rows: list[dict[str, Any]] = [
        {
            "name": names[name],
            "predicted": curve.predicted[index],
            "observed": curve.observed[index],
            "low": curve.low[index] if curve.low else None,
            "high": curve.high[index] if curve.high else None,
        }
        for name, curve in curves.items()
        for index in range(len(curve.predicted))
    ]
    top = 1.08 * max([row[key] or 0.0 for row in rows for key in ("predicted", "observed")] or [1.0]) or 1.0
    scale = alt.Scale(type="sqrt", domain=[0.0, top], nice=False, clamp=True)
    axis = alt.Axis(format="~%", tickCount=6, labelOverlap=True)
    x = alt.X("predicted:Q", scale=scale, axis=axis, title="predicted")
    y = alt.Y("observed:Q", scale=scale, axis=axis, title=observed)
    paint = _paint(list(names.values()))
    diagonal = alt.Chart(values([{"predicted": end, "observed": end} for end in (0.0, top)]))
    base = alt.Chart(values(rows)).encode(x=x)
    bands = base.transform_filter("datum.low !== null").mark_rule(strokeWidth=1.2, opacity=0.45)
    chart = alt.layer(
        diagonal.mark_line(color=SOFT, strokeDash=[4, 3], strokeWidth=1.2).encode(x=x, y=y),
        bands.encode(y=alt.Y("low:Q", scale=scale, axis=axis, title=observed), y2="high:Q", color=paint),
        base.mark_line(strokeWidth=1.6, opacity=0.9).encode(y=y, color=paint, order="predicted:Q"),
        base.mark_point(filled=True, size=34, opacity=1).encode(y=y, color=paint),
    )
    return rendered(themed(chart.properties(width=_PLOT, height=_PLOT - 40)), label)


def overlap(found: Mapping[str, Mapping[str, Any]], label: str) -> str:
    """Draw the propensity by click: 1 % to 99 % thin, 25 % to 75 % thick, the median a dot."""
    import altair as alt

    rows = [row for index, (name, form) in enumerate(found.items()) for row in _strips(index, name, form)]
    floors = sorted({form["floor"] for form in found.values()})
    ends = [row[key] for row in rows for key in ("outer", "far") if row["outer"] is not None] + floors
    span = domain_of([max(end, 1e-9) for end in ends], log=True)
    scale = alt.Scale(type="log", domain=span, nice=False)
    decades = [10.0**power for power in range(-9, 1) if span[0] <= 10.0**power <= span[1]]
    ticks: dict[str, Any] = {"values": decades} if len(decades) > 1 else {}
    axis = alt.Axis(format="~%", labelOverlap=True, **ticks)
    x = alt.X("middle:Q", scale=scale, axis=axis, title="propensity, the chance of a click (log scale)")
    y = alt.Y("row:Q", scale=alt.Scale(domain=[len(found) - 0.5, -0.5], nice=False), axis=None)
    layers = [
        alt.Chart(values([{"middle": floor} for floor in floors])).mark_rule(color=SOFT, strokeDash=[4, 3]).encode(x=x)
    ]
    inside = WIDTH - 20
    for kind, color, offset in (("clicked", _ACCENT, 4), ("unclicked", SOFT, 19)):
        base = alt.Chart(values([row for row in rows if row["kind"] == kind])).encode(y=y)
        for near, far, width in (("outer", "far", 1.6), ("inner", "end", 6.0)):
            lines = base.mark_rule(color=color, strokeWidth=width, opacity=0.7, yOffset=offset)
            layers.append(lines.encode(x=alt.X(f"{near}:Q", scale=scale, axis=axis), x2=f"{far}:Q"))
        dot = base.mark_point(filled=True, size=44, color=color, opacity=1, yOffset=offset, stroke="var(--paper)")
        layers.append(dot.encode(x=x))
    names = alt.Chart(values([row for row in rows if row["kind"] == "clicked"])).encode(y=y)
    text = names.mark_text(align="left", dy=-14, color=INK, fontSize=12.5).encode(x=alt.value(0), text="name:N")
    chart = alt.layer(*layers, text).properties(width=inside, height=58 * len(found))
    return rendered(themed(chart), label)


def _strips(index: int, name: str, form: Mapping[str, Any]) -> list[dict[str, Any]]:
    levels = {round(level, 4): place for place, level in enumerate(form["quantiles"]["levels"])}
    keys = {"outer": 0.01, "inner": 0.25, "middle": 0.5, "end": 0.75, "far": 0.99}
    found = []
    for kind in ("clicked", "unclicked"):
        marks = form["quantiles"][kind]
        at = {key: max(marks[levels[level]], 1e-9) if marks else None for key, level in keys.items()}
        found.append({"row": index, "name": plain(name, 42), "kind": kind, **at})
    return [entry for entry in found if entry["middle"] is not None]


def training(checks: Sequence[Mapping[str, Any]], label: str) -> str:
    """Draw each term of the loss, and the validation loss that belongs to it, over the steps; best check marked."""
    import altair as alt

    panels = []
    best = [check["step"] for check in checks if check.get("best")]
    for name, rows in _panels(checks).items():
        x = alt.X("step:Q", axis=alt.Axis(tickCount=4, format="~s"), title=None)
        y = alt.Y("value:Q", scale=alt.Scale(zero=False), axis=alt.Axis(tickCount=3, format="~g"), title=None)
        scale = alt.Scale(domain=["train", "valid"], range=[SOFT, _ACCENT])
        layers = [
            alt.Chart(values(rows))
            .mark_line(strokeWidth=1.7, point=alt.OverlayMarkDef(size=14) if len(checks) < 30 else False)
            .encode(x=x, y=y, color=alt.Color("kind:N", scale=scale))
        ]
        if best:
            rule = alt.Chart(values([{"step": best[-1]}])).mark_rule(color=FAINT, strokeWidth=2)
            layers.insert(0, rule.encode(x=x))
        heading = alt.TitleParams(
            plain(name, 46), anchor="start", fontSize=12, fontWeight="normal", color=INK, offset=4
        )
        panels.append(alt.layer(*layers).properties(width=_PLOT + 6, height=74, title=heading))
    return rendered(themed(alt.vconcat(*panels, spacing=10)), label)


def _panels(checks: Sequence[Mapping[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Return panel -> rows: each term with the validation log-loss of its head, then the other validation losses."""
    found: dict[str, list[dict[str, Any]]] = {}
    for check in checks:
        valid = dict(check.get("valid") or {})
        for term, value in (check.get("terms") or {}).items():
            rows = found.setdefault(f"loss of {term}", [])
            rows.append({"kind": "train", "step": check["step"], "value": value})
            for name in [name for name in valid if name.startswith(f"{term}/logloss@")]:
                rows.append({"kind": "valid", "step": check["step"], "value": valid.pop(name)})
        for name, value in valid.items():
            if value is not None:
                shown = "validation loss that stops" if name == "logloss" else name
                found.setdefault(shown, []).append({"kind": "valid", "step": check["step"], "value": value})
    finite = {name: [row for row in rows if _finite(row["value"])] for name, rows in found.items()}
    return {name: rows for name, rows in finite.items() if rows}


def _finite(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def gates(tasks: Mapping[str, Mapping[str, Any]], label: str) -> str:
    """Draw the mean weight that each task's gate gives each expert."""
    import altair as alt

    rows = [
        {"task": plain(task, 16), "expert": index, "weight": weight, "text": f"{weight:.0%}"}
        for task, use in tasks.items()
        for index, weight in enumerate(use["weight"])
    ]
    x = alt.X("expert:O", title="expert", axis=alt.Axis(labelAngle=0, domain=False, ticks=False))
    y = alt.Y("task:N", title=" ", sort=None, axis=alt.Axis(domain=False, ticks=False, labelFontSize=12))
    base = alt.Chart(values(rows)).encode(x=x, y=y)
    shade = alt.Opacity("weight:Q", scale=alt.Scale(domain=[0, 1], range=[0.04, 0.75]), legend=None)
    many = max(len(use["weight"]) for use in tasks.values()) > 9
    text = base.mark_text(color=INK, fontSize=9 if many else 11.5).encode(text="text:N")
    chart = alt.layer(base.mark_rect(color=_ACCENT, cornerRadius=2).encode(opacity=shade), text)
    return rendered(themed(chart.properties(width=_PLOT - 20, height=34 * len(tasks))), label)


def sweep(rows: Sequence[Mapping[str, Any]], label: str, *, setting: str, metric: str) -> str:
    """Draw a metric over the values of one setting, a line a system.

    Parameters
    ----------
    rows
        ``name, x, value``, and ``low, high`` or None.
    label
        For those who do not see it.
    setting, metric
        What the axes are.
    """
    import altair as alt

    names = _names(list(dict.fromkeys(str(row["name"]) for row in rows)))
    shown = [{**row, "name": names[str(row["name"])]} for row in rows]
    numeric = all(isinstance(row["x"], int | float) and not isinstance(row["x"], bool) for row in rows)
    if numeric:
        points = [float(row["x"]) for row in rows]
        wide = min(points) > 0 and max(points) / min(points) >= 4
        ticks = alt.Axis(values=sorted(set(points)), format="~g" if min(points) >= 1e-3 or not min(points) else ".0e")
        scale = alt.Scale(type="log" if wide else "linear", domain=domain_of(points, log=wide), nice=False)
        x = alt.X("x:Q", scale=scale, axis=ticks, title=setting)
    else:
        shown = [{**row, "x": plain(row["x"], 18)} for row in shown]
        x = alt.X("x:N", sort=None, title=setting, axis=alt.Axis(labelAngle=0))
    y = alt.Y("value:Q", scale=alt.Scale(zero=False), axis=alt.Axis(tickCount=5), title=metric)
    paint = _paint(list(names.values()))
    base = alt.Chart(values(shown)).encode(x=x)
    bars = base.transform_filter("datum.low !== null").mark_rule(strokeWidth=1.4, opacity=0.5)
    chart = alt.layer(
        bars.encode(y=alt.Y("low:Q", scale=alt.Scale(zero=False), title=metric), y2="high:Q", color=paint),
        base.mark_line(strokeWidth=1.6).encode(y=y, color=paint),
        base.mark_point(filled=True, size=44, opacity=1).encode(y=y, color=paint),
    )
    return rendered(themed(chart.properties(width=_PLOT - 10, height=190)), label)


def delay(found: Delay, label: str) -> str:
    """Draw the share of the conversions that has come by each age of the click."""
    import altair as alt

    rows = [{"hours": age / 3600.0, "arrived": share} for age, share in zip(found.age, found.arrived, strict=True)]
    first, last = rows[0]["hours"], rows[-1]["hours"]
    wide = first > 0 and last / first > 50
    marks = [mark for mark in _HOURS if first <= mark <= last] if wide else []
    axis = alt.Axis(values=marks, format="~g") if len(marks) > 1 else alt.Axis(tickCount=5)
    scale = alt.Scale(type="log", domain=[first, last], nice=False) if wide else alt.Scale(type="linear")
    x = alt.X("hours:Q", scale=scale, axis=axis, title="hours after the click" + (" (log scale)" if wide else ""))
    y = alt.Y(
        "arrived:Q", scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(format="~%"), title="conversions that have come"
    )
    chart = alt.Chart(values(rows)).mark_line(color=_ACCENT, strokeWidth=2, interpolate="monotone").encode(x=x, y=y)
    return rendered(themed(chart.properties(width=_PLOT, height=180)), label)
