"""REES46 events to rows: one a (session, product), with the label that each kind of event gives it.

Events are columns (`EVENT_TYPES`), in any order; whole sessions at a time. No loop over rows or sessions: events are
sorted by session, product and time, and summed up between the places where a new pair begins.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from postclick.data.columns import at_row, column, ids, numbers, require_columns
from postclick.data.labels import NO_TIME, to_microseconds
from postclick.data.sources.base import ValueCounts
from postclick.errors import DataError, Finding
from postclick.schema.sampling import without_zone

__all__ = [
    "CLICK_TIMES",
    "EVENTS",
    "EVENT_TYPES",
    "KINDS",
    "NOT_OPENED",
    "EventRows",
    "event_table",
    "session_rows",
    "unknown_event",
]

KINDS = ("view", "cart", "remove_from_cart", "purchase")
"""What an event may be. A removal takes nothing back: the action has happened."""
EVENTS = "events"
"""In the value ledger: events read, kept (the first of its kind in its row), replaced (later ones, and removals),
rejected (without a session or a product)."""
CLICK_TIMES = "click times"
"""In the value ledger: rows with a view, kept (it is their first event), replaced (a cart or purchase comes before)."""
NOT_OPENED = "neither viewed nor bought in the session"
"""Rule of the ledger: pairs that are no click of this log."""
_VIEW, _CART, _PURCHASE = KINDS.index("view"), KINDS.index("cart"), KINDS.index("purchase")
EVENT_TYPES: dict[str, pa.DataType] = {
    "user_session": pa.large_string(),
    "product_id": pa.int64(),
    "user_id": pa.int64(),
    "category_id": pa.int64(),
    "category_code": pa.large_string(),
    "brand": pa.large_string(),
    "price": pa.float64(),
    "kind": pa.int8(),
    "time": pa.int64(),
    "place": pa.int64(),
}
"""Columns of events: `kind` is a position in `KINDS`, `time` microseconds (`NO_TIME` where it is missing), `place` the
number of the file << 40 | the number of the event in it."""
_RAW = ("event_time", "event_type", *(name for name in EVENT_TYPES if name not in ("kind", "time", "place")))
_LATEST = np.iinfo(np.int64).max
_DAY, _HOUR = 86_400_000_000, 3_600_000_000


@dataclass(frozen=True)
class EventRows:
    """Rows of some sessions, in the order of their first events.

    Parameters
    ----------
    table
        One row a (session, product).
    values, filtered
        As `SourceBatch`.
    """

    table: pa.Table
    values: dict[str, ValueCounts] = field(default_factory=dict)
    filtered: dict[str, int] = field(default_factory=dict)


def event_table(batch: pa.RecordBatch, label: str, places: NDArray[np.int64]) -> pa.Table:
    """Return raw events in the columns and types of `EVENT_TYPES`.

    Parameters
    ----------
    batch
        Raw columns.
    label
        Their file, for messages.
    places
        int64 [B]: where each event is.

    Raises
    ------
    DataError
        ``data.schema_mismatch``: a column is missing, a product, user or category is no whole number, a time no time;
        ``data.label_domain``: an event of another kind, which would be a label that nobody knows.
    """
    require_columns(batch, _RAW, label)
    columns: dict[str, pa.Array] = {"kind": _kinds(column(batch, "event_type")), "place": pa.array(places)}
    columns["time"] = pa.array(to_microseconds(_times(column(batch, "event_time")), "s", "event_time")[0])
    columns["price"] = pa.array(numbers(column(batch, "price"), "price"))
    for name, kind in EVENT_TYPES.items():
        if name not in columns:
            columns[name] = _typed(ids(column(batch, name), name)[0], kind, name)
    return pa.table({name: columns[name] for name in EVENT_TYPES})


def _times(array: pa.Array) -> pa.Array:
    """Return text without the zone that REES46 writes behind its times, anything else as it is."""
    kind = array.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return without_zone(array.cast(pa.large_string()))
    return array


def _typed(array: pa.Array, kind: pa.DataType, name: str) -> pa.Array:
    if pa.types.is_int64(kind) and pa.types.is_large_string(array.type):
        examples = tuple(array.drop_null()[:3].to_pylist())
        what = "expected whole numbers, found text"
        raise DataError(Finding("data.schema_mismatch", what, name, examples=examples, fix="REES46 ids are integers"))
    if pa.types.is_large_string(kind):
        text = array.cast(kind)
        return pc.if_else(pc.equal(text, ""), pa.scalar(None, kind), text)
    return array.cast(kind)


def _kinds(words: pa.Array) -> pa.Array:
    """Return positions in `KINDS`; another kind of event is refused."""
    words = ids(words, "event_type")[0].cast(pa.large_string())
    found = pc.index_in(words, pa.array(KINDS, pa.large_string()))
    if found.null_count:
        other = words.filter(found.is_null())
        examples = tuple("no kind" if word is None else word for word in other.unique()[:3].to_pylist())
        what = f"events that are none of {', '.join(KINDS)}"
        first = int(np.flatnonzero(np.asarray(found.is_null()))[0])
        fix = "leave them out of the file, or call them what they are"
        place = at_row(first, "event_type")
        raise DataError(Finding("data.label_domain", what, place, len(other), examples, fix))
    return found.cast(pa.int8())


def unknown_event(place: int) -> pa.Table:
    """Return an event of which nothing is known (its line is cut off): `session_rows` counts it as rejected."""
    known = {"kind": 0, "time": NO_TIME, "place": place}
    return pa.table({name: pa.array([known.get(name)], kind) for name, kind in EVENT_TYPES.items()})


def session_rows(events: pa.Table) -> EventRows:
    """Sum the events of whole sessions up.

    The first view is the click, a cart the action, a purchase the conversion. A pair that was bought without a view is
    a conversion without click, whatever the caller makes of it; one that was neither viewed nor bought is left out.
    What was put into the cart or bought before its first view had been opened before (its page was viewed before the
    file begins, or the view was not logged): the time of the row and of its click is that of its first event.
    """
    known = np.asarray(pc.and_(events["user_session"].is_valid(), events["product_id"].is_valid()))
    count = len(events)
    if not known.all():
        events = events.filter(pa.array(known))
    pairs = _Pairs.of(events)
    view, cart, purchase = (pairs.any(kind) for kind in (_VIEW, _CART, _PURCHASE))
    first, viewed, bought = pairs.time, pairs.earliest(_VIEW), pairs.earliest(_PURCHASE)
    distinct = int(view.sum() + cart.sum() + purchase.sum())
    late = int((view & (first < viewed)).sum())
    values = {
        EVENTS: ValueCounts(count, distinct, 0, len(events) - distinct, count - len(events)),
        CLICK_TIMES: ValueCounts(int(view.sum()), int(view.sum()) - late, 0, late),
    }
    keep = np.flatnonzero(view | purchase)
    keep = keep[np.lexsort((pairs.place[keep], first[keep]))]
    table = events.take(pa.array(pairs.first[keep]))
    first, opened = first[keep], view[keep]
    columns = {
        "exposure_id": pa.array(pairs.place[keep]),
        "click": pa.array(opened.astype(np.int8)),
        "action": pa.array(cart[keep].astype(np.int8)),
        "conversion": pa.array(purchase[keep].astype(np.int8)),
        "time": _stamps(first),
        "click_time": _stamps(np.where(opened, first, _LATEST)),
        "conversion_time": _stamps(bought[keep]),
        **{name: table[name].combine_chunks() for name in EVENT_TYPES if name not in ("kind", "time", "place")},
        **_of_time(first),
    }
    columns |= _levels(columns["category_code"])
    filtered = len(view) - len(keep)
    return EventRows(pa.table(columns), values, {NOT_OPENED: filtered} if filtered else {})


@dataclass(frozen=True)
class _Pairs:
    """Events in the order of session, product, time and place.

    Parameters
    ----------
    kinds, times
        [events], sorted so; a time that is missing is the latest of all.
    starts
        [pairs]: where each begins.
    first
        [pairs]: position of its first event in the unsorted table.
    place
        [pairs]: the place of that event.
    """

    kinds: NDArray[np.int8]
    times: NDArray[np.int64]
    starts: NDArray[np.int64]
    first: NDArray[np.int64]
    place: NDArray[np.int64]

    @classmethod
    def of(cls, events: pa.Table) -> _Pairs:
        """Sort."""
        session = np.asarray(events["user_session"].combine_chunks().dictionary_encode().indices)
        product, kinds, times, place = (events[name].to_numpy() for name in ("product_id", "kind", "time", "place"))
        times = np.where(times == NO_TIME, _LATEST, times)
        order = np.lexsort((place, times, product, session))
        session, product = session[order], product[order]
        new = np.ones(len(order), np.bool_)
        new[1:] = (session[1:] != session[:-1]) | (product[1:] != product[:-1])
        starts = np.flatnonzero(new)
        first = order[starts]
        return cls(kinds[order], times[order], starts, first, place[first])

    @property
    def time(self) -> NDArray[np.int64]:
        """[pairs]: time of the first event."""
        return self.times[self.starts]

    def any(self, kind: int) -> NDArray[np.bool_]:
        """[pairs]: whether an event is of this kind."""
        if not len(self.starts):  # reduceat wants a place
            return np.zeros(0, np.bool_)
        return np.asarray(np.logical_or.reduceat(self.kinds == kind, self.starts), np.bool_)

    def earliest(self, kind: int) -> NDArray[np.int64]:
        """[pairs]: when the first event of this kind was, the latest time where there is none."""
        if not len(self.starts):
            return np.zeros(0, np.int64)
        return np.asarray(np.minimum.reduceat(np.where(self.kinds == kind, self.times, _LATEST), self.starts))


def _stamps(times: NDArray[np.int64]) -> pa.Array:
    return pa.array(times, pa.timestamp("us"), mask=times == _LATEST)


def _of_time(times: NDArray[np.int64]) -> dict[str, pa.Array]:
    """Return the hour of the day and the weekday, Monday 0, UTC."""
    absent = times == _LATEST
    day, rest = np.divmod(np.where(absent, 0, times), _DAY)
    # 1970-01-01 was a Thursday
    return {"hour": pa.array(rest // _HOUR, mask=absent), "weekday": pa.array((day + 3) % 7, mask=absent)}


def _levels(codes: pa.Array) -> dict[str, pa.Array]:
    """Return the first level of a dotted category and the first two, null where there is no second."""
    deep = pc.match_substring(codes, ".")
    first = pc.replace_substring_regex(codes, r"^([^.]*)\..*$", r"\1")
    two = pc.replace_substring_regex(codes, r"^([^.]*\.[^.]*).*$", r"\1")
    return {"category_1": first, "category_2": pc.if_else(deep, two, pa.scalar(None, two.type))}
