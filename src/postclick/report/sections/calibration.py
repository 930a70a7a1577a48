"""Calibration: level, curves by population, curves and levels by slice."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from postclick.report.blocks import Figure, Group, Part, Table
from postclick.report.charts import MOST_SERIES
from postclick.report.charts import calibration as drawn
from postclick.report.facts import Contestant, Curve, Study
from postclick.report.forest import Bar, forest
from postclick.report.sections.leaderboard import ordered
from postclick.report.sections.slices import slice_bullets, worst_slices
from postclick.report.sections.truth import levels
from postclick.report.words import number, place_title, plain

__all__ = ["calibration"]

_PLACES = ("cvr@click", "ctr@exposure", "ctcvr@exposure", "cvr@world", "cvr@random", "action@click", "ctar@exposure")
_LEVELS = ("cvr/pcoc@click", "ctr/pcoc@exposure", "ctcvr/pcoc@exposure")
_SLICED = ("cvr@click", "ctcvr@exposure")
_MOST_SYSTEMS = 3
"""Systems whose slices are shown, those first on the leaderboard."""
_MOST_BARS = 10
_COLD = {
    "cold-user": "users that training has not seen",
    "cold-item": "items that training has not seen",
    "new-pair": "pairs that training has not seen",
}


def calibration(study: Study) -> Part:
    """Return the calibration of a study."""
    rows = ordered(study)
    found = (
        ("Curves", [figure for place in _PLACES for figure in _curves(study, place, rows)]),
        ("Level: predicted over observed", [one for metric in _LEVELS if (one := levels(study, metric)) is not None]),
        ("Slices, tested together", [one for entry in rows[:_MOST_SYSTEMS] for one in worst_slices(study, entry)]),
        ("By slice", [figure for entry in rows[:_MOST_SYSTEMS] for figure in _sliced(study, entry)]),
    )
    groups = tuple(Group(heading, tuple(figures)) for heading, figures in found if figures)
    return Part(groups=groups, bullets=tuple(slice_bullets(rows[:_MOST_SYSTEMS])), tables=tuple(_fitted(study)))


def _curves(study: Study, place: str, rows: Sequence[Contestant]) -> Iterator[Figure]:
    """Yield the curves of one head on one population, a few systems a chart, about equally many on each."""
    found = {entry.label: curve for entry in rows if (curve := _curve(entry, place)) is not None}
    labels, charts = list(found), -(-len(found) // MOST_SERIES)
    for index in range(charts):
        some = {label: found[label] for label in labels[index::charts]}
        title = place_title(place) + (f" ({index + 1} of {charts})" if charts > 1 else "")
        yield _figure(study, title, some, place, "true" if "@world" in place else "observed")


def _curve(entry: Contestant, place: str) -> Curve | None:
    curves = () if entry.run is None else entry.run.curves
    return next((curve for curve in curves if curve.place == place), None)


def _figure(
    study: Study, title: str, curves: dict[str, Curve], name: str, observed: str, first: str = "system"
) -> Figure:
    label = f"Calibration of {title}: " + "; ".join(
        f"{plain(key, 40)} predicts {number(curve.predicted[0], 3)} to {number(curve.predicted[-1], 3)} where "
        f"{number(curve.observed[0], 3)} to {number(curve.observed[-1], 3)} is {observed}"
        for key, curve in curves.items()
    )
    columns = [(first, "text"), ("bin", "count"), ("rows", "count"), ("predicted", "percent"), (observed, "percent")]
    columns += [("low", "percent"), ("high", "percent")]
    rows = [(key, *line) for key, curve in curves.items() for line in _lines(curve)]
    table = Table.of(f"{study.name} calibration {title}", columns, rows)
    return Figure(title, drawn(curves, label, observed=observed), table, name)


def _lines(curve: Curve) -> Iterator[tuple[float | None, ...]]:
    for index, (predicted, observed, rows) in enumerate(zip(curve.predicted, curve.observed, curve.rows, strict=True)):
        ends = (curve.low[index], curve.high[index]) if curve.low else (None, None)
        yield (index + 1, rows, predicted, observed, *ends)


def _sliced(study: Study, entry: Contestant) -> Iterator[Figure]:
    """Yield one system's curves of the largest slices of a column, and its level slice by slice."""
    curves = () if entry.run is None else entry.run.curves
    for place in _SLICED:
        columns: dict[str, dict[str, Curve]] = {}
        for curve in curves:
            whole, bar, part = curve.place.partition("|")
            if bar and whole == place:
                columns.setdefault(part.partition("=")[0], {})[part] = curve
        for column, found in columns.items():
            largest = sorted(found.items(), key=lambda item: -sum(item[1].rows))
            some = dict(largest[:MOST_SERIES])
            base = _curve(entry, place)
            if len(some) == 1 and base is not None:
                some = {"all rows": base, **some}
            by = _COLD.get(column, f"by {plain(column, 24)}")
            title = f"{plain(entry.label, 30)}: {place_title(place)}, {by}"
            yield _figure(study, title, some, f"{place}|{plain(column, 24)}", "observed", "slice")
    if entry.run is None or not entry.run.slices.tested.get("cvr@click"):
        yield from _slice_levels(study, entry)


def _slice_levels(study: Study, entry: Contestant) -> Iterator[Figure]:
    metrics = {} if entry.run is None else entry.run.metrics
    found = {
        name.partition("|")[2]: form
        for name, form in metrics.items()
        if name.startswith("cvr/pcoc@click|") and form.get("value") and form.get("low") is not None
    }
    if not found:
        return
    most = sorted(found.items(), key=lambda item: -item[1]["n"])[:_MOST_BARS]
    bars = [Bar(part, form["value"], form["low"], form["high"], number(form["value"], 3)) for part, form in most]
    title = f"{plain(entry.label, 30)}: level of the CVR on clicks, by slice"
    label = f"{title}: " + "; ".join(f"{plain(bar.label, 40)} {bar.text}" for bar in bars)
    columns = [("slice", "text"), ("PCOC", "number"), ("low", "number"), ("high", "number"), ("rows", "count")]
    rows = [(part, *(form[key] for key in ("value", "low", "high", "n"))) for part, form in found.items()]
    table = Table.of(f"{study.name} {entry.label} slices", columns, rows)
    svg = forest(bars, label, axis="predicted over observed (log scale)", reference=1.0, log=True)
    note = "1 is the right level. The more slices, the likelier that one interval misses 1 by chance."
    yield Figure(title, svg, table, "cvr/pcoc@click|…", note)


def _fitted(study: Study) -> Iterator[Figure]:
    """Yield how each head was calibrated."""
    rows = [
        (
            entry.label,
            head,
            str(form.get("method", "")),
            _count(form, "rows"),
            _count(form, "positives"),
            str(form.get("reason") or ""),
        )
        for entry in study.contestants
        if entry.run is not None
        for head, form in entry.run.calibration.items()
    ]
    if rows:
        columns = [("system", "text"), ("head", "text"), ("method", "text"), ("rows", "count"), ("positives", "count")]
        table = Table.of(f"{study.name} calibrators", [*columns, ("note", "text")], rows)
        yield Figure("What was fitted, on the half of valid that early stopping does not read", "", table)


def _count(form: object, key: str) -> float | None:
    value = form.get(key) if isinstance(form, dict) else None
    return float(value) if isinstance(value, int | float) else None
