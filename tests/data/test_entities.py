"""Entities of the training rows, against a plain loop over rows."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from postclick.data import entities as module
from postclick.data.entities import entities, entity_features
from postclick.data.prepare import PrepareOptions, prepare
from postclick.data.sources.opening import open_source
from postclick.errors import ConfigError
from postclick.schema import Columns, DenseFeature, Schema, SequenceFeature, SparseFeature

SCHEMA = Schema(
    (
        SparseFeature("city", "user", 2),
        SparseFeature("user", "user", 3),
        SparseFeature("age", "user", 1),
        DenseFeature("income", "user"),
        SequenceFeature("seen", "user", min_count=1),
        SparseFeature("item", "item", 1),
        SparseFeature("brand", "item", 1),
        SparseFeature("hour", "context", 1),
    ),
    Columns(exposure_id="id", user_id="user", item_id="item", time="when"),
)


def table(rows: int, seed: int) -> pa.Table:
    """Users and items whose features mostly stay and sometimes change; times with ties; some values missing."""
    rng = np.random.default_rng(seed)
    user, item = rng.integers(0, 60, rows), rng.integers(0, 25, rows)
    click = (rng.random(rows) < 0.4).astype(np.int64)
    moved = rng.random(rows) < 0.2
    age = pa.array([None if lost else int(who % 5) for who, lost in zip(user, rng.random(rows) < 0.1, strict=True)])
    return pa.table(
        {
            "id": np.arange(rows),
            "user": user,
            "item": item,
            "city": np.where(moved, rng.integers(0, 9, rows), user % 7),
            "age": age,
            "income": rng.normal(size=rows),
            "seen": pa.array([[1, 2]] * rows),
            "brand": item % 4,
            "hour": rng.integers(0, 24, rows),
            "when": rng.integers(0, 8, rows),
            "click": click,
            "conversion": click * (rng.random(rows) < 0.5),
        }
    )


def built(path, schema, rows, **options):
    first = len(rows) * 8 // 10
    source = open_source((), train=rows.slice(0, first), valid=rows.slice(first), schema=schema)
    return prepare(source, path, PrepareOptions(min_count=1, **options))


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    """The same rows with and without a time."""
    place, rows = tmp_path_factory.mktemp("entities"), table(900, 1)
    untimed = replace(SCHEMA, columns=replace(SCHEMA.columns, time=None))
    return {"time": built(place / "timed", SCHEMA, rows), "count": built(place / "untimed", untimed, rows)}


def by_loop(log, side):
    """The definition, a row at a time."""
    chosen = entity_features(log.schema, side)
    places = [log.schema.sparse.index(feature) for feature in chosen]
    seen = defaultdict(list)
    for block in log.split("train").blocks():
        for number in range(len(block)):
            values = [int(block.rows[number, place]) for place in places]
            if values[0] != places[0]:
                time = 0 if log.schema.columns.time is None else int(block.labels.time[number])
                seen[values[0]].append((time, values))
    answer, changing = {}, Counter()
    for one, rows in seen.items():
        picked = []
        for column, place in enumerate(places):
            candidates = [values[column] for time, values in rows if time == max(row[0] for row in rows)]
            if log.schema.columns.time is None:
                counts = Counter(values[column] for _, values in rows)
                candidates = [value for value, count in counts.items() if count == max(counts.values())]
            picked.append(min(candidates, key=lambda value, place=place: (value == place, value)))
            changing[chosen[column].name] += len({values[column] for _, values in rows}) > 1
        answer[one] = picked
    return answer, {name: count for name, count in changing.items() if count}


@pytest.mark.parametrize("by", ["time", "count"])
@pytest.mark.parametrize("side", ["user", "item"])
def test_values_and_counts_are_those_of_a_plain_loop(logs, side, by):
    found = entities(logs[by], side)
    wanted, changing = by_loop(logs[by], side)
    assert found.entity.tolist() == sorted(wanted)
    assert found.features.tolist() == [wanted[one] for one in sorted(wanted)]
    assert found.features.dtype == found.entity.dtype == np.int32
    assert found.features.flags.c_contiguous
    assert np.array_equal(found.features[:, 0], found.entity)
    assert found.changing == changing
    assert found.by == by
    assert (found.changed > 0) == (side == "user")  # an item's brand never changes here


def test_latest_and_most_frequent_differ_where_features_change(logs):
    timed, counted = (entities(log, "user") for log in logs.values())
    assert np.array_equal(timed.entity, counted.entity)
    differ = (timed.features != counted.features).any(axis=0)
    assert differ.tolist() == [False, True, True]


def test_names_excluded_features_and_rows_are_told(logs):
    found = entities(logs["time"], "user")
    assert found.names == ("user", "city", "age")
    assert found.excluded == ("income", "seen")
    assert found.rows == len(logs["time"].split("train")) == 720
    excluded, changing = found.notes()
    assert (excluded.code, excluded.count) == ("graph.excluded", 2)
    assert "income, seen" in excluded.what
    assert (changing.code, changing.count) == ("graph.changing", found.changed)
    assert "'city': the latest value" in changing.what
    assert entities(logs["time"], "item").notes() == ()


def test_unknown_ids_are_no_entities_and_are_counted(logs):
    log = logs["time"]
    users = np.concatenate([block.rows[:, 1] for block in log.split("train").blocks()])
    rare = int((users == 1).sum())
    found = entities(log, "user")
    assert found.unknown_rows == rare
    assert 1 not in found.entity
    assert len(found) == len(np.unique(users[users != 1]))


def test_rows_of_other_splits_do_not_count(tmp_path, logs):
    rows = table(900, 1)
    late = rows.slice(720).set_column(rows.schema.names.index("city"), "city", pa.array([8] * 180))
    log = built(tmp_path / "log", SCHEMA, pa.concat_tables([rows.slice(0, 720), late]))
    assert np.array_equal(entities(log, "user").features, entities(logs["time"], "user").features)


@pytest.mark.parametrize("by", ["time", "count"])
def test_the_order_of_rows_and_the_size_of_pieces_do_not_matter(tmp_path, logs, by, monkeypatch):
    rows = table(900, 1)
    order = np.concatenate([np.random.default_rng(5).permutation(720), np.arange(720, 900)])
    shuffled = built(tmp_path / "log", logs[by].schema, rows.take(order))
    monkeypatch.setattr(module, "_PENDING", 7)
    for side in ("user", "item"):
        first, second = entities(logs[by], side), entities(shuffled, side)
        assert np.array_equal(first.features, second.features)
        assert (first.changing, first.changed) == (second.changing, second.changed)


@pytest.mark.parametrize(
    ("columns", "what"),
    [
        (Columns(item_id="item"), "the schema names no user_id"),
        (Columns(user_id="income"), "its user_id 'income' is no sparse feature"),
    ],
)
def test_a_graph_without_ids_is_refused_with_what_to_do(columns, what):
    with pytest.raises(ConfigError, match=what) as caught:
        entity_features(Schema(SCHEMA.features, columns), "user")
    assert "--set migrator=off" in str(caught.value)
