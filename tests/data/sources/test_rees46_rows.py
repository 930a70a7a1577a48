"""Events to rows against a plain loop over sessions."""

from __future__ import annotations

import datetime as dt
from collections import defaultdict

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from postclick.data.labels import NO_TIME
from postclick.data.sources.base import ValueCounts
from postclick.data.sources.rees46_rows import (
    CLICK_TIMES,
    EVENT_TYPES,
    EVENTS,
    KINDS,
    NOT_OPENED,
    event_table,
    session_rows,
    unknown_event,
)
from postclick.errors import DataError

MONDAY = dt.datetime(2024, 1, 1, 10, 30)


def stored(events):
    """Events (session, product, kind, seconds after Monday or None) in the columns of `EVENT_TYPES`."""
    rows = []
    for place, (session, product, kind, second) in enumerate(events):
        time = NO_TIME if second is None else int(np.datetime64(MONDAY, "us").astype(int)) + second * 1_000_000
        rows.append(
            {
                **dict.fromkeys(EVENT_TYPES),
                "user_session": session,
                "product_id": product,
                "user_id": 7,
                "kind": KINDS.index(kind),
                "time": time,
                "place": place,
                "category_code": f"a.b.c{product}",
                "price": float(place),
            }
        )
    return pa.table({name: pa.array([row[name] for row in rows], kind) for name, kind in EVENT_TYPES.items()})


def by_loop(events):
    """The rows by walking through the events of each pair."""
    pairs = defaultdict(list)
    for place, (session, product, kind, second) in enumerate(events):
        if session is not None and product is not None:
            pairs[session, product].append((np.inf if second is None else second, place, kind))
    rows, opened_late, kinds = [], 0, 0
    for (_, product), found in pairs.items():
        found.sort()
        first = {kind: next((second for second, _, other in found if other == kind), None) for kind in KINDS}
        kinds += sum(kind in {other for _, _, other in found} for kind in ("view", "cart", "purchase"))
        opened_late += first["view"] is not None and found[0][0] < first["view"]
        if first["view"] is None and first["purchase"] is None:
            continue
        rows.append(
            {
                "exposure_id": found[0][1],
                "product_id": product,
                "click": int(first["view"] is not None),
                "action": int(first["cart"] is not None),
                "conversion": int(first["purchase"] is not None),
                "time": found[0][0],
                "click_time": found[0][0] if first["view"] is not None else None,
                "conversion_time": first["purchase"],
                "price": float(found[0][1]),
            }
        )
    rows.sort(key=lambda row: (row["time"], row["exposure_id"]))
    for row in rows:
        for name in ("time", "click_time", "conversion_time"):
            lost = row[name] is None or row[name] == np.inf
            row[name] = None if lost else MONDAY + dt.timedelta(seconds=row[name])
    return rows, opened_late, kinds, len(pairs)


event = st.tuples(
    st.sampled_from(["s", "t", "", None]),
    st.sampled_from([1, 2, None]),
    st.sampled_from(KINDS),
    st.one_of(st.none(), st.integers(0, 5)),
)


@given(st.lists(event, max_size=25))
def test_rows_are_those_of_a_loop_over_the_events(events):
    found = session_rows(stored(events))
    rows, late, kinds, pairs = by_loop(events)
    assert found.table.select(list(rows[0]) if rows else []).to_pylist() == rows
    known = sum(session is not None and product is not None for session, product, _, _ in events)
    assert found.values[EVENTS] == ValueCounts(len(events), kinds, 0, known - kinds, len(events) - known)
    assert found.values[CLICK_TIMES].replaced == late
    assert found.filtered == ({NOT_OPENED: pairs - len(rows)} if pairs > len(rows) else {})


def test_the_first_of_each_kind_gives_its_label():
    events = [
        ("s", 1, "view", 5),
        ("s", 1, "purchase", 9),
        ("s", 1, "view", 3),
        ("s", 1, "cart", 4),
        ("s", 1, "remove_from_cart", 6),  # the action has happened all the same
        ("t", 1, "view", 8),  # another session
        ("s", 2, "cart", 0),  # never opened here
        ("t", 2, "purchase", 1),  # a conversion without click
    ]
    found = session_rows(stored(events))
    shown = found.table.select(["exposure_id", "click", "action", "conversion"]).to_pylist()
    assert [tuple(row.values()) for row in shown] == [(7, 0, 0, 1), (2, 1, 1, 1), (5, 1, 0, 0)]
    assert found.filtered == {NOT_OPENED: 1}
    bought = found.table.to_pylist()[1]
    seconds = {name: (bought[name] - MONDAY).seconds for name in ("time", "click_time", "conversion_time")}
    assert seconds == {"time": 3, "click_time": 3, "conversion_time": 9}


def test_what_was_bought_before_its_first_view_had_been_opened_before():
    found = session_rows(stored([("s", 1, "purchase", 2), ("s", 1, "view", 30)]))
    (row,) = found.table.to_pylist()
    assert row["click"] == row["conversion"] == 1
    assert row["time"] == row["click_time"] == row["conversion_time"] == MONDAY + dt.timedelta(seconds=2)
    assert found.values[CLICK_TIMES] == ValueCounts(1, 0, 0, 1)


def test_hour_weekday_and_levels_of_the_category():
    events = stored(
        [("s", 1, "view", 0), ("s", 2, "view", 15 * 3600), ("s", 3, "view", None), ("s", 4, "view", 90_000)]
    )
    codes = pa.array(["shoes", "shoes.men.boots", None, "shoes.men"], pa.large_string())
    place = events.schema.get_field_index("category_code")
    rows = session_rows(events.set_column(place, "category_code", codes)).table
    shown = rows.select(["hour", "weekday", "category_1", "category_2"]).to_pylist()
    assert [tuple(row.values()) for row in shown] == [
        (10, 0, "shoes", None),
        (1, 1, "shoes", "shoes.men"),
        (11, 1, "shoes", "shoes.men"),
        (None, None, None, None),  # without a time it comes last, and is a row fault later
    ]


def raw(**changes):
    columns = {
        "event_time": ["2019-10-01 00:00:01 UTC"],
        "event_type": ["view"],
        "product_id": [1],
        "category_id": [2_053_013_555_631_882_655],
        "category_code": [None],
        "brand": ["acme"],
        "price": [1.5],
        "user_id": [3],
        "user_session": ["s"],
    }
    columns = {name: values for name, values in (columns | changes).items() if values is not None}
    return pa.RecordBatch.from_pydict(columns)


def test_raw_events_become_columns():
    table = event_table(raw(), "a.csv", np.array([9]))
    assert {item.name: item.type for item in table.schema} == EVENT_TYPES
    (row,) = table.to_pylist()
    assert (row["kind"], row["place"], row["category_id"], row["brand"]) == (0, 9, 2_053_013_555_631_882_655, "acme")
    assert row["time"] == int(np.datetime64("2019-10-01T00:00:01", "us").astype(int))
    empty = event_table(raw(product_id=pa.nulls(1), brand=pa.nulls(1)), "a.csv", np.array([0]))
    assert {item.name: item.type for item in empty.schema} == EVENT_TYPES


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"event_type": ["wish"]}, r"data\.label_domain events that are none of view, .*wish"),
        ({"event_type": [None]}, r"data\.label_domain .*row 0:event_type.*no kind"),
        ({"product_id": ["p1"]}, r"data\.schema_mismatch expected whole numbers, found text \| product_id.*p1"),
        ({"event_time": None}, r"data\.schema_mismatch .*event_time"),
        ({"event_time": ["soon"]}, r"data\.schema_mismatch expected times"),
        ({"price": ["free"]}, r"data\.schema_mismatch .*price"),
    ],
)
def test_what_is_no_event(changes, words):
    with pytest.raises(DataError, match=words):
        event_table(raw(**changes), "a.csv", np.array([0]))


def test_an_event_of_which_nothing_is_known_is_rejected():
    found = session_rows(pa.concat_tables([stored([("s", 1, "view", 0)]), unknown_event(1)]))
    assert found.values[EVENTS] == ValueCounts(2, 1, 0, 0, 1)
    assert len(found.table) == 1
