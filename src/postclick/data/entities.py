"""Entities: the users or items that the training rows hold, each with the values of its side's features.

An entity whose feature changes gets the value it has at its latest time; where the log has no time, the one it has
most often. Ties go to the smaller row of the table, known values before the unknown one, so the result depends on which
training rows there are and not on their order.

Blocks are read one at a time and several times over: for the ids, for the range of each feature, then for the latest
times, or once more for each feature that changes. Memory is some 5 bytes a table row and 8 (m + 1) bytes an entity of m
features; where there is no time, also 16 bytes a pair of an entity and a value, one feature at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from postclick import progress
from postclick.data.log import ExposureLog, LogSplit
from postclick.errors import ConfigError, Finding
from postclick.schema import Schema, SparseFeature

__all__ = ["Entities", "EntitySide", "entities", "entity_features"]

EntitySide = Literal["user", "item"]
_UNKNOWN = np.iinfo(np.int32).max
"""Stands for a field's unknown row while values are compared: it comes after all others."""
_PENDING = 1 << 22
"""Pairs of entity and value that wait, at 8 bytes each, before they are counted."""


@dataclass(frozen=True)
class Entities:
    """The N users or items of a log's training rows.

    Parameters
    ----------
    side
        Whose.
    names
        Names of the m features, the id first.
    entity
        int32 [N]: global row of each entity's id, ascending. An id in the unknown row is no entity.
    features
        int32 [N, m]: global rows; a missing or rare value is its field's unknown row.
    changing
        Feature -> entities that have more than one value of it.
    changed
        Entities of which any feature changes.
    by
        What decides where a feature changes: ``time`` or ``count``.
    excluded
        The side's features that are no single value with a row of its own: dense, sequences, embeddings.
    rows, unknown_rows
        Training rows, and those of them whose id is unknown.
    """

    side: EntitySide
    names: tuple[str, ...]
    entity: NDArray[np.int32]
    features: NDArray[np.int32]
    changing: dict[str, int]
    changed: int
    by: Literal["time", "count"]
    excluded: tuple[str, ...]
    rows: int
    unknown_rows: int

    def __len__(self) -> int:
        return len(self.entity)

    def notes(self) -> tuple[Finding, ...]:
        """Return what the user should know: features left out, entities whose features change."""
        where, found = f"{self.side} graph", []
        if self.excluded:
            what = f"dense, sequence and embedding features are no part of it: {', '.join(self.excluded)}"
            found.append(Finding("graph.excluded", what, where, len(self.excluded)))
        if self.changed:
            how = "the latest value is taken" if self.by == "time" else "the most frequent value is taken"
            most = max(self.changing, key=lambda name: self.changing[name])
            what = f"{self.changed:,} of {len(self):,} {self.side}s have features that change, mostly {most!r}: {how}"
            found.append(Finding("graph.changing", what, where, self.changed))
        return tuple(found)


def entity_features(schema: Schema, side: EntitySide) -> tuple[SparseFeature, ...]:
    """Return the side's single-valued sparse features, the one that identifies it first.

    Raises
    ------
    ConfigError
        ``config.value``: the schema names no such id, or it is no sparse feature.
    """
    role = f"{side}_id"
    column = getattr(schema.columns, role)
    own = [feature for feature in schema.sparse if feature.name == column]
    if not own:
        got = f"the schema names no {role}" if column is None else f"its {role} {column!r} is no sparse feature"
        fix = f"make the {side}'s id a sparse feature named as {role}, or switch the graph off: --set migrator=off"
        raise ConfigError(Finding("config.value", f"a graph of {side}s needs their ids: {got}", "schema", fix=fix))
    return (*own, *(feature for feature in schema.sparse if feature.side == side and feature.name != column))


def entities(log: ExposureLog, side: EntitySide) -> Entities:
    """Return the users or items of a log's training rows with their features.

    Parameters
    ----------
    log
        An encoded log; only ``train`` is read.
    side
        ``user`` or ``item``.

    Raises
    ------
    ConfigError
        As `entity_features`.
    """
    chosen, split = entity_features(log.schema, side), log.split("train")
    places = [log.schema.sparse.index(feature) for feature in chosen]
    with progress.bar(f"Reading {side}s", None) as advance:
        rows = _Rows(split, places, log.spec.table_rows, advance)
        low, high = rows.extremes()
        changes, timed = low != high, rows.timed
        if timed:
            low, _ = rows.extremes(rows.latest())
        else:
            for column in np.flatnonzero(changes.any(axis=1)):
                at = np.flatnonzero(changes[column])
                low[column, at] = rows.most_frequent(int(column), changes[column])
    features = np.where(low == _UNKNOWN, np.array(places, np.int32)[:, None], low)
    counts = changes.sum(axis=1)
    return Entities(
        side,
        tuple(feature.name for feature in chosen),
        rows.entity,
        np.ascontiguousarray(features.T),
        {feature.name: int(count) for feature, count in zip(chosen, counts, strict=True) if count},
        int(changes.any(axis=0).sum()),
        "time" if timed else "count",
        tuple(item.name for item in log.schema.features if item.side == side and not isinstance(item, SparseFeature)),
        len(split),
        rows.unknown,
    )


class _Rows:
    """The training rows as (entity, values): N entities, m features, read block by block."""

    def __init__(self, split: LogSplit, places: list[int], table_rows: int, advance: Callable[..., None]) -> None:
        self.split, self.places, self.advance = split, places, advance
        seen = np.zeros(table_rows, np.bool_)
        self.timed, self.unknown = False, 0
        for table, time in split.rows_and_times():
            seen[table[:, places[0]]] = True
            self.unknown += int((table[:, places[0]] == places[0]).sum())
            self.timed |= time is not None
        seen[places[0]] = False
        self.entity = np.flatnonzero(seen).astype(np.int32)
        self._index = np.full(table_rows, -1, np.int32)
        self._index[self.entity] = np.arange(len(self.entity), dtype=np.int32)

    def blocks(self) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int64] | None]]:
        """Yield entity [b], values [m, b] and time [b] of the rows whose entity is known."""
        for table, time in self.split.rows_and_times():
            index = self._index[table[:, self.places[0]]]
            known = np.flatnonzero(index >= 0)
            values = np.ascontiguousarray(table[known][:, self.places].T)
            values[values == np.array(self.places, np.int32)[:, None]] = _UNKNOWN
            yield index[known].astype(np.int64), values, None if time is None else time[known]
            self.advance(len(table))

    def latest(self) -> NDArray[np.int64]:
        """Return the latest time of each entity, [N]."""
        found = np.full(len(self.entity), np.iinfo(np.int64).min)
        for index, _, time in self.blocks():
            if time is not None:
                np.maximum.at(found, index, time)
        return found

    def extremes(self, at: NDArray[np.int64] | None = None) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Return the least and the largest value of each feature and entity, [m, N]; of its rows at the time `at`."""
        shape = (len(self.places), len(self.entity))
        low, high = np.full(shape, _UNKNOWN, np.int32), np.full(shape, -1, np.int32)
        for index, values, time in self.blocks():
            kept = slice(None) if at is None or time is None else np.flatnonzero(time == at[index])
            entity = index[kept]
            for column, given in enumerate(values[:, kept]):
                np.minimum.at(low[column], entity, given)
                np.maximum.at(high[column], entity, given)
        return low, high

    def most_frequent(self, column: int, wanted: NDArray[np.bool_]) -> NDArray[np.int32]:
        """Return the commonest value of one feature for each entity that is `wanted`, in order; ties to the smaller."""
        counted = _Counted()
        for index, values, _ in self.blocks():
            kept = wanted[index]
            counted.add(index[kept] << 32 | values[column][kept])
        keys, counts = counted.total()
        entity, value = keys >> 32, keys & 0xFFFFFFFF
        order = np.lexsort((value, -counts, entity))  # of each entity the first is the answer
        first = np.concatenate([[True], np.diff(entity[order]) != 0])
        answer: NDArray[np.int32] = value[order][first].astype(np.int32)
        return answer


class _Counted:
    """Counts of int64 keys that come in pieces."""

    def __init__(self) -> None:
        self._keys, self._counts = np.zeros(0, np.int64), np.zeros(0, np.int64)
        self._waiting: list[NDArray[np.int64]] = []
        self._size = 0

    def add(self, keys: NDArray[np.int64]) -> None:
        """Take in keys, a key as often as it comes."""
        self._waiting.append(keys)
        self._size += len(keys)
        if self._size >= _PENDING:
            self.total()

    def total(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the different keys, ascending, and their counts."""
        fresh, counts = np.unique(np.concatenate([*self._waiting, self._keys[:0]]), return_counts=True)
        joined, places = np.unique(np.concatenate([self._keys, fresh]), return_inverse=True)
        total = np.zeros(len(joined), np.int64)
        np.add.at(total, places[: len(self._keys)], self._counts)
        np.add.at(total, places[len(self._keys) :], counts)
        self._keys, self._counts, self._waiting, self._size = joined, total, [], 0
        return joined, total
