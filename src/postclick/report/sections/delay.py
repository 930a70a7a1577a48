"""How late conversions come, where the log knows it."""

from __future__ import annotations

from postclick.report.blocks import Figure, Part, Table
from postclick.report.charts import delay as drawn
from postclick.report.facts import Study
from postclick.report.words import count, percent, plain

__all__ = ["delay"]


def delay(study: Study) -> Part:
    """Return the delay curve of a log whose conversions have times; empty for others."""
    found = study.log.delay
    if found is None:
        return Part()
    label = f"Share of the conversions that have come, from {percent(found.arrived[0])} to {percent(found.arrived[-1])}"
    rows = [(age / 3600.0, share) for age, share in zip(found.age, found.arrived, strict=True)]
    table = Table.of(f"{study.name} delay", [("hours after the click", "number"), ("arrived", "percent")], rows)
    text = [plain(sentence, 300) for sentence in found.words]
    if found.immature is not None:
        text.append(f"{count(found.immature)} rows are censored: their window has not closed.")
    return Part.drawn([Figure("Conversions by age of the click", drawn(found, label), table)], text=tuple(text))
