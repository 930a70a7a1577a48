"""The common-feature file of Ali-CCP as arrays, found by the hash of its key."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from postclick.data.sources.ali_ccp_text import Features, Lines, Places, Words, line_chunks

__all__ = ["MISSING", "Common", "CommonPart", "Ragged", "common_parts", "index_keys", "read_common", "select"]

MISSING = int(np.iinfo(np.int64).min)
"""A single-valued field that a row does not have."""


@dataclass(frozen=True)
class Ragged:
    """Weighted lists, R of them: list i holds ``values[offsets[i]:offsets[i + 1]]``.

    Parameters
    ----------
    values
        int64, or int32 where they fit (a train file holds some hundred million).
    weights
        float32 beside `values`.
    offsets
        int64 [R + 1].
    cut
        int64 [R]: values past the maximal length, which were cut off.
    """

    values: NDArray[np.signedinteger[Any]]
    weights: NDArray[np.float32]
    offsets: Places
    cut: Places

    @classmethod
    def build(
        cls, line: Places, values: NDArray[Any], weights: NDArray[np.float32], rows: int, longest: int | None = None
    ) -> Ragged:
        """Group values by their (ascending) line; at most `longest` a list, the first ones."""
        lengths = np.bincount(line, minlength=rows)
        cut = np.zeros(rows, np.int64)
        if longest is not None and lengths.max(initial=0) > longest:
            rank = np.arange(len(line)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
            kept = rank < longest
            values, weights = values[kept], weights[kept]
            cut = np.maximum(lengths - longest, 0)
            lengths = lengths - cut
        return cls(values, weights, _offsets(lengths), cut)

    @property
    def cut_total(self) -> int:
        """Values cut off, all lists together."""
        return int(self.cut.sum())

    def take(self, index: Places) -> Ragged:
        """Return the lists at `index`; a negative index is an empty list."""
        if len(self.values) == 0 and not self.cut_total:
            nothing = np.zeros(len(index), np.int64)
            return Ragged(self.values, self.weights, _offsets(nothing), nothing)
        there = index >= 0
        place = np.where(there, index, 0)
        lengths = np.where(there, self.offsets[place + 1] - self.offsets[place], 0)
        offsets = _offsets(lengths)
        source = np.arange(offsets[-1]) + np.repeat(self.offsets[place] - offsets[:-1], lengths)
        return Ragged(self.values[source], self.weights[source], offsets, np.where(there, self.cut[place], 0))

    def join(self, other: Ragged) -> Ragged:
        """Return each list with the other's list behind it."""
        if len(other.values) == 0 or len(self.values) == 0:
            full = self if len(self.values) else other
            return Ragged(full.values, full.weights, full.offsets, self.cut + other.cut)
        mine, theirs = np.diff(self.offsets), np.diff(other.offsets)
        offsets = _offsets(mine + theirs)
        places = [
            np.arange(len(part.values)) + np.repeat(start - part.offsets[:-1], lengths)
            for part, start, lengths in ((self, offsets[:-1], mine), (other, offsets[:-1] + mine, theirs))
        ]
        values, weights = np.empty(offsets[-1], np.int64), np.empty(offsets[-1], np.float32)
        for place, part in zip(places, (self, other), strict=True):
            values[place], weights[place] = part.values, part.weights
        return Ragged(values, weights, offsets, self.cut + other.cut)


def _offsets(lengths: Places) -> Places:
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def select(features: Features, rows: int, fields: int) -> tuple[Places, Places | None]:
    """Return [rows, fields] of the last value of each single-valued field, and how many earlier ones it replaced.

    The second is None where no field occurred twice in a row.
    """
    chosen = np.flatnonzero(features.field < fields)
    cell = features.line[chosen] * fields + features.field[chosen]
    values = np.full(rows * fields, MISSING)
    values[cell] = features.value[chosen]  # of equal cells the last assignment stays
    if np.count_nonzero(values != MISSING) == len(cell):
        return values.reshape(rows, fields), None
    replaced = np.maximum(np.bincount(cell, minlength=rows * fields) - 1, 0)
    return values.reshape(rows, fields), replaced.reshape(rows, fields)


@dataclass(frozen=True)
class Common:
    """What U keys stand for.

    Parameters
    ----------
    keys
        First hash of each key, ascending [U].
    checks
        Second hash beside it; both equal is taken as the same key (two of a million keys agree in 128 bits with
        probability 1e-27).
    order
        Row in the tables below of each sorted key [U].
    replaced_keys
        Keys that occurred again; their last line counts.
    single
        int64 [U, F], `MISSING` where the key lacks the field.
    replaced
        int32 [U, F]: earlier values that the last one replaced; None where there were none.
    lists
        One a sequence field.
    """

    keys: Words
    checks: Words
    order: Places
    replaced_keys: int
    single: Places
    replaced: NDArray[np.int32] | None
    lists: tuple[Ragged, ...]

    def find(self, keys: Words, checks: Words) -> Places:
        """Return the table row of each key, -1 where it is not there."""
        if len(self.keys) == 0:
            return np.full(len(keys), -1)
        place = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        known = (self.keys[place] == keys) & (self.checks[place] == checks)
        return np.where(known, self.order[place], -1)

    def take(self, rows: Places) -> tuple[Places, Places]:
        """Return the single-valued fields [B, F] at table rows (`MISSING` at -1), and how many values each replaced."""
        fields = self.single.shape[1]
        if len(self.single) == 0:
            return np.full((len(rows), fields), MISSING), np.zeros(fields, np.int64)
        found = self.single[rows]
        found[rows < 0] = MISSING
        replaced = np.zeros(fields, np.int64) if self.replaced is None else self.replaced[rows[rows >= 0]].sum(axis=0)
        return found, replaced


@dataclass(frozen=True)
class CommonPart:
    """Some lines of the file: keys as in `Common`, and beside them `single`, `replaced` and `lists`."""

    keys: Words
    checks: Words
    single: Places
    replaced: Places | None
    lists: tuple[Ragged, ...]


def common_parts(
    path: Path, single: Sequence[str], lists: Sequence[tuple[str, int]], start: int, end: int, first_line: int
) -> Iterator[CommonPart]:
    """Read the bytes [start, end) of a common-feature file in chunks.

    Parameters
    ----------
    path
        The file.
    single
        Names of single-valued fields, F.
    lists
        Names and maximal lengths of sequence fields.
    start, end
        Of whole lines.
    first_line
        Number of the first one, from 0, for messages.
    """
    names = [*single, *(name for name, _ in lists)]
    for data in line_chunks(path, start, end):
        lines = Lines(data, 2, path.name, first_line)
        features = lines.features(names, weights=bool(lists))
        found = tuple(
            _list(features, len(single) + place, len(lines), longest) for place, (_, longest) in enumerate(lists)
        )
        yield CommonPart(*lines.digests(0), *select(features, len(lines), len(single)), found)
        first_line += len(lines)


def read_common(path: Path, single: Sequence[str], lists: Sequence[tuple[str, int]]) -> Common:
    """Read a whole common-feature file into memory; `single` and `lists` as in `common_parts`."""
    parts: list[CommonPart] = []
    ragged: list[list[Ragged]] = [[] for _ in lists]
    for part in common_parts(path, single, lists, 0, path.stat().st_size, 0):
        parts.append(replace(part, lists=()))
        for place, found in enumerate(part.lists):
            ragged[place].append(found)
    if not parts:
        return _empty(len(single), len(lists))
    replaced = None
    if any(part.replaced is not None for part in parts):
        shapes = [np.zeros(part.single.shape, np.int32) if part.replaced is None else part.replaced for part in parts]
        replaced = np.concatenate([counts.astype(np.int32) for counts in shapes])
    keys, checks = np.concatenate([part.keys for part in parts]), np.concatenate([part.checks for part in parts])
    values = np.concatenate([part.single for part in parts])
    # field by field, each freed as it is stacked: the lists of all fields twice would be several GB
    return Common(*index_keys(keys, checks), values, replaced, tuple(_stack(ragged.pop(0)) for _ in lists))


def _list(features: Features, field: int, rows: int, longest: int) -> Ragged:
    chosen = np.flatnonzero(features.field == field)
    assert features.weight is not None
    values: NDArray[Any] = features.value[chosen]
    if values.max(initial=0) < 2**31:
        values = values.astype(np.int32)
    return Ragged.build(features.line[chosen], values, features.weight[chosen], rows, longest)


def _stack(parts: Sequence[Ragged]) -> Ragged:
    lengths = np.concatenate([np.diff(part.offsets) for part in parts])
    values = np.concatenate([part.values for part in parts])
    weights = np.concatenate([part.weights for part in parts])
    return Ragged(values, weights, _offsets(lengths), np.concatenate([part.cut for part in parts]))


def index_keys(keys: Words, checks: Words) -> tuple[Words, Words, Places, int]:
    """Sort the keys; of a key that occurs twice the last line stays.

    Returns
    -------
    tuple
        Sorted keys, their checks, the row that each stands for, and how many keys occurred again.
    """
    order = np.lexsort((np.arange(len(keys)), checks, keys))
    keys, checks = keys[order], checks[order]
    last = np.ones(len(keys), np.bool_)
    last[:-1] = (keys[1:] != keys[:-1]) | (checks[1:] != checks[:-1])
    return keys[last], checks[last], order[last], int((~last).sum())


def _empty(single: int, lists: int) -> Common:
    nothing = np.zeros(0, np.uint64)
    whole = np.zeros(0, np.int64)
    ragged = Ragged(whole, np.zeros(0, np.float32), np.zeros(1, np.int64), whole)
    return Common(nothing, nothing, whole, 0, np.zeros((0, single), np.int64), None, (ragged,) * lists)
