"""How late conversions come, where the log knows it."""

from __future__ import annotations

from postclick.report.blocks import Figure, Part, Table
from postclick.report.charts import delay as drawn
from postclick.report.facts import Study
from postclick.report.log_facts import Delay
from postclick.report.words import count, number, percent, plain

__all__ = ["delay"]


def _pace(found: Delay) -> str:
    """Say by when half, and nine tenths, of the conversions have come."""
    half, most = (
        next(age for age, share in zip(found.age, found.arrived, strict=True) if share >= wanted)
        for wanted in (0.5, 0.9)
    )
    return f"Of the conversions that came, half came within {_span(half)} of the click and 90 % within {_span(most)}."


def _span(seconds: float) -> str:
    """Return a time as a person says it."""
    for size, word in ((86400.0, "days"), (3600.0, "hours"), (60.0, "minutes")):
        if seconds >= 2 * size:
            return f"{number(seconds / size, 2)} {word}"
    return f"{number(seconds, 2)} seconds"


def _open_clicks(study: Study) -> list[str]:
    """Say where clicks are still open, so that nobody reads conversions over clicks as a rate."""
    parts = [f"{count(each.open)} of {count(each.clicks)} in {each.split}" for each in study.log.funnels if each.open]
    return [f"Clicks that may still convert: {', '.join(parts)}."] if parts else []


def delay(study: Study) -> Part:
    """Return the delay curve of a log whose conversions have times; empty for others."""
    found = study.log.delay
    if found is None:
        return Part()
    label = f"Share of the conversions that have come, from {percent(found.arrived[0])} to {percent(found.arrived[-1])}"
    rows = [(age / 3600.0, share) for age, share in zip(found.age, found.arrived, strict=True)]
    table = Table.of(f"{study.name} delay", [("hours after the click", "number"), ("arrived", "percent")], rows)
    text = [_pace(found), *(plain(sentence, 300) for sentence in found.words)]
    if found.immature:
        text.append(
            f"{count(found.immature)} training rows are censored: their window has not closed, so that no conversion "
            "yet is not taken for none."
        )
    text += _open_clicks(study)
    return Part.drawn([Figure("Conversions by age of the click", drawn(found, label), table)], text=tuple(text))
