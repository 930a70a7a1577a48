"""Clocks (D17, D19): the order of a row's times, times far from all others, outcomes whose window is still open."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from postclick.data.arrays import CENSORED
from postclick.data.columns import at_row
from postclick.data.faults import RowFaults
from postclick.errors import Finding
from postclick.schema import Columns

__all__ = [
    "LATEST",
    "NO_TIME",
    "TimeSpan",
    "censor",
    "find_span",
    "mark_disorder",
    "open_outcomes",
    "when",
    "window_start",
]

NO_TIME = int(np.iinfo(np.int64).min)
"""A click, conversion or cut-off time that is missing (no click, no conversion)."""
LATEST = int(np.datetime64("2100-01-01", "us").astype(np.int64))
"""No log holds later times: milliseconds read as seconds lie beyond it by far (D17)."""
_EARLIEST = int(np.datetime64("1900-01-01", "us").astype(np.int64))
_EPOCH_ENDS, _PRESENT_BEGINS = (int(np.datetime64(year, "us").astype(np.int64)) for year in ("1975", "1990"))
_SECOND = 1_000_000
_DAY = 86_400 * _SECOND
_FAR_SPANS, _FAR_AT_LEAST = 10, 3 * 365 * _DAY
_BULK = (0.005, 0.995)
_SAMPLE = 100_000

Times = NDArray[np.int64]


def when(microseconds: int) -> str:
    """Return a time in words, UTC."""
    return str(np.datetime64(int(microseconds), "us").astype("datetime64[s]")).replace("T", " ")


def mark_disorder(found: Mapping[str, Any], columns: Columns, faults: RowFaults) -> None:
    """Mark the rows whose times are out of order by more than ``columns.clock_tolerance``, or in no present century.

    A click time counts where there is a click, a conversion time where there is a conversion.

    Parameters
    ----------
    found
        Role -> its values: labels as 0/1, times in microseconds.
    columns
        Their names, and the tolerance.
    faults
        Rows are marked ``data.time_order`` here.
    """
    slack = round(columns.clock_tolerance * _SECOND)
    happened = {"click_time": found["click"] == 1, "conversion_time": found["conversion"] == 1}
    names = columns.named()
    for role in ("time", "click_time", "conversion_time"):
        if role in names:
            times = found[role]
            beyond = (times > LATEST) | ((times < _EARLIEST) & (times != NO_TIME))
            beyond &= happened.get(role, True)
            faults.mark("data.time_order", beyond, names[role], show=_shown(names[role], times))
    for earlier, later in _pairs(names):
        first, second = found[earlier], found[later]
        wrong = (first != NO_TIME) & (second != NO_TIME) & (second < first - slack) & happened.get(later, True)
        if wrong.any():
            show = _shown(names[later], second, names[earlier], first)
            faults.mark("data.time_order", wrong, names[later], show=show)


def _pairs(names: Mapping[str, str]) -> list[tuple[str, str]]:
    pairs = [("time", "click_time"), ("click_time", "conversion_time"), ("time", "observed_until")]
    if "click_time" not in names:
        pairs.append(("time", "conversion_time"))
    return [pair for pair in pairs if set(pair) <= names.keys()]


def _shown(name: str, times: Times, other: str = "", before: Times | None = None) -> Callable[[int], str]:
    """Return how a faulty row is put in words."""

    def show(row: int) -> str:
        if before is None:
            return f"{name} {when(times[row])}"
        gap = (int(before[row]) - int(times[row])) / _SECOND
        return f"{name} {gap:,.6g} s before {other}"

    return show


def open_outcomes(
    found: Mapping[str, Any], columns: Columns, sound: NDArray[np.bool_]
) -> tuple[NDArray[np.int8] | None, Finding | None]:
    """Return which rows have an attribution window that is still open (D19), or the finding that refuses them.

    The window of a clicked row starts at its click, that of an unclicked one at its exposure: of a recent exposure
    neither the conversion nor its absence is final. Without a declared window no click can be told to be final, and
    without a time of exposure an unclicked row is.

    Parameters
    ----------
    found
        Role -> its values, as `mark_disorder`.
    columns
        Their names, the window, and what to do with open ones.
    sound
        bool [B]: rows without a fault.

    Returns
    -------
    tuple
        int8 [B] as `Labels.immature`, None where ``columns.immature`` lets no open window in; and the finding, or None.
        Its place is a row of the batch.
    """
    if columns.observed_until is None:
        return None, None
    clicked = found["click"] == 1
    if columns.attribution_window is None:
        still_open = sound & clicked
        what = "clicks without conversion whose outcome may still be open: no attribution window is declared"
        fix = "set columns.attribution_window (seconds) in the schema, or drop columns.observed_until if all are final"
    else:
        still_open = sound & _within_window(found, columns, clicked)
        what = "clicks without conversion whose attribution window was still open at observed_until"
        fix = "wait for the window to close, leave those rows out, or set columns.immature = 'censor' in the schema"
        if columns.immature != "refuse":
            return still_open * np.int8(1 if columns.immature == "censor" else 2), None
    pending = still_open & clicked & (found["conversion"] == 0)
    if not pending.any():
        return None, None
    place = at_row(int(np.flatnonzero(pending)[0]), columns.observed_until)
    return None, Finding("data.immature_labels", what, place, int(pending.sum()), fix=fix)


def _within_window(found: Mapping[str, Any], columns: Columns, clicked: NDArray[np.bool_]) -> NDArray[np.bool_]:
    assert columns.attribution_window is not None
    until, start = found["observed_until"], window_start(clicked, found.get("time"), found.get("click_time"))
    window = round(columns.attribution_window * _SECOND)
    within: NDArray[np.bool_] = (start == NO_TIME) | (until == NO_TIME) | (until - window < start)
    return within if "time" in found else within & clicked


def window_start(clicked: NDArray[np.bool_], time: Times | None, click_time: Times | None) -> Times:
    """Return when the attribution window of each row began, or `NO_TIME`.

    With the click; where the row was not clicked, or its click has no time of its own, with the exposure.

    Parameters
    ----------
    clicked
        bool [B].
    time, click_time
        Microseconds [B], or None where there is no such column.
    """
    exposed = np.full(len(clicked), NO_TIME) if time is None else time
    return exposed if click_time is None else np.where(clicked & (click_time != NO_TIME), click_time, exposed)


def censor(
    click: NDArray[np.int8], conversion: NDArray[np.int8], immature: NDArray[np.int8] | None
) -> NDArray[np.int8]:
    """Return the conversion with that of every click which may yet convert as `CENSORED`."""
    if immature is None:
        return conversion
    return np.where((immature == 1) & (click == 1) & (conversion == 0), np.int8(CENSORED), conversion)


@dataclass(frozen=True)
class TimeSpan:
    """Where the times of a log lie, microseconds.

    Parameters
    ----------
    first, last
        The earliest and the latest of all.
    low, high
        Times outside lie far from the bulk: by more than ten times the span of the middle 99 %, and three years. Where
        some times lie about 1970 and some after 1990, as with mixed units, those that are fewer lie outside.
    """

    first: int
    last: int
    low: int
    high: int

    @property
    def strays(self) -> bool:
        """Whether a time lies outside."""
        return self.first < self.low or self.last > self.high


def find_span(parts: Iterable[Times]) -> TimeSpan | None:
    """Return where times lie, in one pass and bounded memory; None without a time.

    The middle 99 % is judged from an evenly spaced sample of at most 200,000 times. Seconds among milliseconds, or a
    row of the year 2031 among rows of 2024, lie far outside.

    Parameters
    ----------
    parts
        Times of all rows, in the order of the rows.
    """
    kept: list[Times] = []
    step, position, held, early, present = 1, 0, 0, 0, 0
    first, last = np.iinfo(np.int64).max, np.iinfo(np.int64).min
    for part in parts:
        known = part[part != NO_TIME]
        if not len(known):
            continue
        first, last = min(first, int(known.min())), max(last, int(known.max()))
        early += int(np.count_nonzero(known < _EPOCH_ENDS))
        present += int(np.count_nonzero(known > _PRESENT_BEGINS))
        kept.append(known[-position % step :: step])
        position += len(known)
        held += len(kept[-1])
        while held > 2 * _SAMPLE:  # halving keeps the spacing even
            step *= 2
            kept = [np.concatenate(kept)[::2]]
            held = len(kept[0])
    if not kept:
        return None
    low, high = np.quantile(np.concatenate(kept), _BULK, method="nearest")
    far = max(_FAR_SPANS * (int(high) - int(low)), _FAR_AT_LEAST)
    low, high = int(low) - far, int(high) + far
    if early and present:
        low, high = (max(low, _EPOCH_ENDS), high) if early <= present else (low, min(high, _EPOCH_ENDS))
    return TimeSpan(int(first), int(last), low, high)
