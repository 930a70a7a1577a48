"""Later copies of an exposure id, and ids in several splits."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from postclick.data import duplicates
from postclick.data.duplicates import find_duplicates
from postclick.data.staged import column_types
from postclick.data.staging import StageTask, stage
from postclick.schema import Columns, Schema, SparseFeature

SCHEMA = Schema((SparseFeature("f"),), Columns(exposure_id="id"))
ROLES = ("train", "valid", "test")


def staged(folder, make_source, rows, text):
    """One piece a role; `rows` are (role, id, click)."""
    tables = []
    for role in ROLES:
        mine = [row for row in rows if row[0] == role]
        ids = [f"x{i}" if text else i for _, i, _ in mine]
        columns = {"f": [1] * len(mine), "id": pa.array(ids, pa.large_string() if text else pa.int64())}
        click = [c for _, _, c in mine]
        tables.append(
            pa.table(
                {**columns, "click": pa.array(click, pa.int8()), "conversion": pa.array([0] * len(mine), pa.int8())}
            )
        )
    source = make_source(SCHEMA, tables, ROLES, batch_rows=3)
    pieces = [stage(StageTask(source, piece, i, i, folder, "reject")) for i, piece in enumerate(source.pieces())]
    return pieces, column_types(pieces)


def plain(rows, by_role):
    """Return dropped (role, place), exact and conflicting copies, and overlaps, by a plain loop."""
    first, dropped, exact, conflicting = {}, set(), 0, 0
    for role in ROLES:
        mine = [row for row in rows if row[0] == role]
        for place, (_, key, click) in enumerate(mine):
            known = first.setdefault((role if by_role else None, key), click)
            if (role, place) != first.setdefault(("at", role if by_role else None, key), (role, place)):
                dropped.add((role, place))
                exact, conflicting = exact + (known == click), conflicting + (known != click)
    return dropped, exact, conflicting


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.tuples(st.sampled_from(ROLES), st.integers(0, 8), st.integers(0, 1)), min_size=1, max_size=25),
    by_role=st.booleans(),
    text=st.booleans(),
    partition_rows=st.sampled_from([1, 7, 1_000]),
)
def test_it_equals_a_plain_loop(tmp_path, make_source, rows, by_role, text, partition_rows):
    pieces, types = staged(tmp_path, make_source, rows, text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(duplicates, "_PARTITION_ROWS", partition_rows)
        found = find_duplicates(pieces, types, by_role=by_role)
    dropped, exact, conflicting = plain(rows, by_role)
    places = {(ROLES[piece], int(row)) for (piece, _), part in found.drop.items() for row in part}
    assert places == dropped
    assert (found.exact, found.conflicting, found.rows) == (exact, conflicting, len(dropped))
    ids = {role: {key for other, key, _ in rows if other == role} for role in ROLES}
    pairs = (("train", "valid"), ("train", "test"), ("valid", "test"))
    wanted = {f"{a}-{b}": len(ids[a] & ids[b]) for a, b in pairs if ids[a] & ids[b]}
    assert found.overlap == (wanted if by_role else {})


def test_neighbours_beyond_the_precision_of_floats_are_no_copies(tmp_path, make_source):
    rows = [("train", 2**53, 0), ("train", 2**53 + 1, 0), ("train", 2**24 + 1, 0), ("train", 2**24, 0)]
    pieces, types = staged(tmp_path, make_source, rows, False)
    assert find_duplicates(pieces, types, by_role=True).rows == 0
