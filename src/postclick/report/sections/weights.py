"""Overlap and weights: can clicks speak for all exposures, and what they say where they can."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from postclick.report.blocks import Bullet, Figure, Part, Table
from postclick.report.charts import overlap
from postclick.report.facts import Contestant, Study
from postclick.report.forest import Bar, forest
from postclick.report.sections.leaderboard import ordered
from postclick.report.sections.truth import true_mean
from postclick.report.words import percent, plain

__all__ = ["weights"]

_ESTIMATORS = {
    "naive": "clicks as they are",
    "ips": "IPS, weighted clicks",
    "snips": "SNIPS, weights scaled to 1",
    "dr": "DR, model plus IPS",
}
_A_CHART = 6
_MOST_ESTIMATES = 3


def weights(study: Study) -> Part:
    """Return overlap, weights and debiased estimates of a study."""
    rows = [entry for entry in ordered(study) if entry.run is not None and entry.run.overlap]
    figures = [_strips(study, rows[start : start + _A_CHART]) for start in range(0, len(rows), _A_CHART)]
    for entry in rows[:_MOST_ESTIMATES]:
        figures += _estimates(study, entry)
    return Part.drawn(figures, bullets=tuple(_doubts(rows)), tables=tuple(_tables(study, rows)))


def _form(entry: Contestant) -> Mapping[str, Any]:
    assert entry.run is not None
    assert entry.run.overlap is not None
    return entry.run.overlap


def _doubts(rows: Sequence[Contestant]) -> Iterator[Bullet]:
    for entry in rows:
        for doubt in _form(entry).get("doubts", ()):
            yield Bullet("unsure", "doubt", f"{plain(entry.label, 40)}: {plain(doubt, 200)}.")


def _strips(study: Study, rows: Sequence[Contestant]) -> Figure:
    found = {entry.label: _form(entry) for entry in rows}
    label = "Propensity of clicked and unclicked exposures: " + "; ".join(
        f"{plain(name, 40)}: {plain(form['verdict'], 160)}" for name, form in found.items()
    )
    lines = [
        (name, kind, level, value)
        for name, form in found.items()
        for kind in ("clicked", "unclicked")
        for level, value in zip(form["quantiles"]["levels"], form["quantiles"][kind] or (), strict=False)
    ]
    columns = [("system", "text"), ("exposures", "text"), ("quantile", "percent"), ("propensity", "percent")]
    table = Table.of(f"{study.name} propensity", columns, lines)
    note = (
        "Blue: clicked exposures; grey: unclicked. Thin line: 1 % to 99 %, thick: the middle half, dot: the median. "
        "Left of the dashed floor no weight grows further."
    )
    return Figure("Propensity by click", overlap(found, label), table, note=note)


def _estimates(study: Study, entry: Contestant) -> Iterator[Figure]:
    """Yield the mean CVR over all exposures by every estimator, the truth beside them where it is known."""
    metrics = {} if entry.run is None else entry.run.metrics
    bars, rows = [], []
    for key, words in _ESTIMATORS.items():
        form = metrics.get(f"cvr/mean[estimator={key}]@exposure")
        if form is None:
            continue
        rows.append((words, form["value"], form["low"], form["high"], form["undefined"] or ""))
        if form["value"] is not None:
            bars.append(Bar(words, form["value"], form["low"], form["high"], percent(form["value"])))
    true = true_mean(metrics, "cvr")
    if true is not None:
        rows.append(("the truth of the world", true, None, None, ""))
        bars.append(Bar("the truth of the world", true, text=percent(true), mark="diamond"))
    if len(bars) < 2:
        return
    title = f"{plain(entry.label, 30)}: mean CVR over all exposures, estimated from clicks"
    label = f"{title}: " + "; ".join(f"{bar.label} {bar.text}" for bar in bars)
    columns = [("estimator", "text"), ("mean CVR", "percent"), ("low", "percent"), ("high", "percent")]
    table = Table.of(f"{study.name} {entry.label} estimates", [*columns, ("withheld", "text")], rows)
    withheld = [words.partition(",")[0] for words, value, *_ in rows if value is None]
    note = f"Withheld, overlap is too thin: {', '.join(withheld)}." if withheld else ""
    svg = forest(bars, label, axis="mean CVR", reference=true, share=True)
    yield Figure(title, svg, table, "cvr/mean[estimator=…]@exposure", note)


def _tables(study: Study, rows: Sequence[Contestant]) -> Iterator[Figure]:
    if not rows:
        return
    lines = [_line(entry.label, _form(entry)) for entry in rows]
    columns = [("system", "text"), ("propensity", "text"), ("clicks", "count"), ("effective clicks", "count")]
    columns += [("worth of a click", "percent"), ("out of reach", "percent"), ("floor", "percent")]
    columns += [("exposures under it", "percent"), ("clicks under it", "percent"), ("largest weight", "number")]
    columns += [("largest share", "percent"), ("PCOC of the propensity", "number"), ("weights sum to", "number")]
    yield Figure("Weights", "", Table.of(f"{study.name} weights", columns, lines))
    balance = [
        (entry.label, column, off["before"], off["after"])
        for entry in rows
        for column, off in _form(entry)["balance"].items()
    ]
    heads = [("system", "text"), ("column", "text"), ("before weighting", "signed"), ("after", "signed")]
    table = Table.of(f"{study.name} balance", heads, balance)
    yield Figure("Clicks against exposures, in standard deviations of the exposures", "", table)


def _line(label: str, form: Mapping[str, Any]) -> tuple[Any, ...]:
    under, own = form["under_floor"], form["calibration"]
    counts = (form["clicks"], form["effective_clicks"], form["effective_share"], form["left_out"], form["floor"])
    rest = (under["exposures"], under["clicks"], form["largest_weight"], form["largest_share"])
    return (label, str(form["propensity"]), *counts, *rest, own["pcoc"], own["weight_ratio"])
