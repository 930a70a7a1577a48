"""Level slice by slice: the worst slices of a system, tested all together, and how far slices differ at all."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from postclick.evaluation.calibration import MOST_LISTED
from postclick.evaluation.tables import SliceRatio
from postclick.report.blocks import Bullet, Figure, Table
from postclick.report.facts import Contestant, Slices, Study
from postclick.report.forest import Bar, forest
from postclick.report.words import count, number, percent, place_title, plain

__all__ = ["slice_bullets", "worst_slices"]

_PLACES = ("cvr@click", "ctr@exposure", "ctcvr@exposure", "action@click", "ctar@exposure", "cvr@random")
_MOST = 8
"""Slices that are drawn, the surest to be off first."""
_OFF_HIGH, _OFF_LOW, _OPEN, _UNTESTED = "too high", "too low", "cannot tell", "not tested"

_MEANING = (
    "All slices of all columns are tested together: lines hold for all at once (Bonferroni, {level:.0%}), the verdict "
    "is by the p of Holm, which can be sharper than the line."
)

Found = tuple[str, SliceRatio]


def worst_slices(study: Study, entry: Contestant) -> Iterator[Figure]:
    """Yield a chart a head of the slices that are the least likely to be calibrated, all of them in its table."""
    slices = Slices() if entry.run is None else entry.run.slices
    for place in _PLACES:
        found = _of(slices, place)
        if found:
            yield _figure(study, entry, place, found, slices)


def slice_bullets(rows: Sequence[Contestant]) -> Iterator[Bullet]:
    """Yield, for every system and head, whether any slice is off, and which one the surest."""
    for entry in rows:
        slices = Slices() if entry.run is None else entry.run.slices
        for place in _PLACES:
            found = _of(slices, place)
            if found and slices.tested.get(place, 0):
                yield _bullet(entry.label, place, found, slices)


def _of(slices: Slices, place: str) -> list[Found]:
    """Return the slices of all columns of a head, the least likely to be calibrated first; not tested ones last."""
    found = [
        (name.partition("|")[2], each)
        for name, listed in slices.ratios.items()
        if name.partition("|")[0] == place
        for each in listed
    ]
    return sorted(found, key=lambda one: (2.0 if one[1].p is None else one[1].p, -_distance(one[1]), -one[1].rows))


def _distance(each: SliceRatio) -> float:
    return abs(math.log(each.pcoc)) if each.pcoc else 0.0


def _verdict(each: SliceRatio, level: float) -> str:
    """Return what the test of a slice says; the adjusted p-value decides and not the interval."""
    if each.p is None:
        return _UNTESTED
    if each.p > 1.0 - level or each.pcoc is None:
        return _OPEN
    return _OFF_HIGH if each.pcoc > 1.0 else _OFF_LOW


def _name(column: str, each: SliceRatio, limit: int = 34) -> str:
    return plain(f"{column}={each.value}", limit)


def _bullet(label: str, place: str, found: Sequence[Found], slices: Slices) -> Bullet:
    tested = slices.tested[place]
    off = [(column, each) for column, each in found if _verdict(each, slices.level) in (_OFF_HIGH, _OFF_LOW)]
    who = f"{plain(label, 40)}, {place_title(place)}"
    if not off:
        text = f"{who}: no slice of {count(tested)} can be told apart from calibrated."
        return Bullet("unsure", "cannot tell", text)
    column, worst = off[0]
    least = "at least " if len(off) >= MOST_LISTED else ""  # of a column no more are listed
    text = (
        f"{who}: {least}{count(len(off))} of {count(tested)} slices are off, most surely {_name(column, worst)}, "
        f"{_verdict(worst, slices.level)} (PCOC {number(worst.pcoc, 3)}, p {number(worst.p, 2)} by Holm over all)."
    )
    return Bullet("bad", "slices", text)


def _figure(study: Study, entry: Contestant, place: str, found: Sequence[Found], slices: Slices) -> Figure:
    title = f"{plain(entry.label, 30)}: worst slices of the {place_title(place)}"
    shown = [(column, each) for column, each in found if each.p is not None and each.pcoc][:_MOST]
    bars = [
        Bar(
            _name(column, each),
            each.pcoc or 1.0,
            each.low if each.low else None,
            each.high if each.low else None,
            f"{number(each.pcoc, 3)} · {_verdict(each, slices.level)}",
            "worse" if _verdict(each, slices.level) in (_OFF_HIGH, _OFF_LOW) else "",
        )
        for column, each in shown
    ]
    label = f"{title}: " + "; ".join(f"{bar.label} {bar.text}" for bar in bars)
    axis = "predicted over observed (log scale)"
    svg = forest(bars, label, axis=axis, reference=1.0, log=True) if bars else ""
    note = _note(place, slices, len(found), len(bars))
    meaning = _MEANING.format(level=slices.level) if bars else ""
    return Figure(title, svg, _table(study, entry, place, found, slices), f"{place}|…", note, meaning)


def _note(place: str, slices: Slices, listed: int, drawn: int) -> str:
    tested = slices.tested.get(place, 0)
    if not tested:
        return f"None of {count(listed)} slices has the 10 predicted and 10 observed positives that a test needs."
    spreads = [
        f"by {plain(name.partition('|')[2], 24)} differ by {percent(spread, 2)} (one standard deviation)"
        for name, spread in slices.spread.items()
        if name.partition("|")[0] == place
    ]
    seen = f"{count(drawn)} of {count(tested)}" if drawn < tested else f"All {count(tested)}"
    text = f"{seen} tested slices, the surest to be off first."
    return text + (f" Noise taken out, slices {' and '.join(spreads)}." if spreads else "")


def _table(study: Study, entry: Contestant, place: str, found: Sequence[Found], slices: Slices) -> Table:
    columns = [("column", "text"), ("value", "text"), ("rows", "count"), ("predicted", "number")]
    columns += [("observed", "number"), ("PCOC", "number"), ("low", "number"), ("high", "number")]
    columns += [("p (Holm)", "number"), ("verdict", "text"), ("PCOC, shrunk", "number")]
    columns += [("shrunk low", "number"), ("shrunk high", "number")]
    rows = [
        (
            column,
            each.value,
            each.rows,
            each.predicted,
            each.observed,
            each.pcoc,
            each.low,
            each.high,
            each.p,
            _verdict(each, slices.level),
            each.shrunk,
            each.shrunk_low,
            each.shrunk_high,
        )
        for column, each in found
    ]
    return Table.of(f"{study.name} {entry.label} slices {place}", columns, rows)
