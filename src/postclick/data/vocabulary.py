"""Vocabulary: which row of the fused embedding table each value of each field owns.

Unknown rows come first (field f's is row f), then the values of field after field, most frequent first, ties by value:
an order that depends on the training rows alone, not on files or processes. `extend` puts new values at the end, so
rows never move.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from postclick import files
from postclick.data.columns import IdKind, as_kind, id_kind, ids
from postclick.data.counts import VocabularyCounts
from postclick.data.ipc import read_table, write_table
from postclick.data.lookup import BucketLookup, IntegerLookup, Lookup, NoLookup, TextLookup
from postclick.errors import DataError, Finding, InputMissingError
from postclick.schema import Schema

__all__ = ["FieldVocabulary", "Vocabulary", "VocabularyCounts"]

VOCABULARY_FORMAT = 1
_INDEX = "vocabulary.json"
_LARGEST_TABLE = int(np.iinfo(np.int32).max)


@dataclass(frozen=True)
class FieldVocabulary:
    """The values of one field.

    Parameters
    ----------
    name
        Field name.
    unknown
        The field's unknown row, which is its position.
    kind
        ``int64``, ``text``, or ``none`` where the training rows held no value.
    values
        Arrow array in the order of rows; empty with hash buckets.
    rows
        int32 global rows beside `values`.
    counts
        int64 occurrences in the training rows beside `values`.
    min_count
        The floor that was applied.
    buckets, first_bucket
        Number of hash buckets and the first one's row, or None.
    """

    name: str
    unknown: int
    kind: IdKind
    values: pa.Array
    rows: NDArray[np.int32]
    counts: NDArray[np.int64]
    min_count: int
    buckets: int | None = None
    first_bucket: int | None = None

    @property
    def size(self) -> int:
        """Rows of the table that the field owns, its unknown row apart."""
        return len(self.rows) if self.buckets is None else self.buckets

    @cached_property
    def lookup(self) -> Lookup:
        """The index from value to row, built at first use."""
        if self.buckets is not None:
            assert self.first_bucket is not None
            return BucketLookup(self.first_bucket, self.buckets, self.unknown)
        if not len(self.rows):
            return NoLookup(self.unknown)
        if self.kind == "int64":
            return IntegerLookup(np.asarray(self.values), self.rows, self.unknown)
        return TextLookup(self.values, self.rows, self.unknown)


def _with_values(old: FieldVocabulary, table: pa.Table, first: int) -> FieldVocabulary:
    """Append the values of `table` (value, count) that reach the floor, at rows from `first`."""
    kept = table.filter(pc.greater_equal(table.column("count"), old.min_count))
    if not kept.num_rows:
        return old
    kept = kept.take(pc.sort_indices(kept, [("count", "descending"), ("value", "ascending")]))
    if first + kept.num_rows > _LARGEST_TABLE:
        what = f"the fused table would have {first + kept.num_rows:,} rows"
        fix = "raise min_count or use hash_buckets"
        raise DataError(Finding("data.cardinality", what, old.name, fix=fix))
    values = kept.column("value").combine_chunks()
    values = values.chunk(0) if isinstance(values, pa.ChunkedArray) else values
    fresh = np.arange(first, first + len(values), dtype=np.int32)
    return replace(
        old,
        kind=id_kind(values),
        values=pa.concat_arrays([old.values.cast(values.type), values]),
        rows=np.concatenate([old.rows, fresh]),
        counts=np.concatenate([old.counts, np.asarray(kept.column("count"), np.int64)]),
    )


@dataclass(frozen=True)
class Vocabulary:
    """The fields in the order of `Schema.fields`.

    Parameters
    ----------
    fields
        One `FieldVocabulary` a field.
    table_rows
        Rows of the fused table: unknown rows and all values and buckets.
    """

    fields: tuple[FieldVocabulary, ...]
    table_rows: int

    @classmethod
    def build(cls, schema: Schema, counts: VocabularyCounts, *, min_count: int = 10) -> Vocabulary:
        """Give every value that occurs often enough a row.

        Parameters
        ----------
        schema
            Names the fields, their floors and buckets.
        counts
            Counts over the training rows.
        min_count
            Floor of fields that declare none; rarer values go to the unknown row.
        """
        first, built = len(schema.fields), []
        for position, feature in enumerate(schema.fields):
            table = counts.fields[feature.name]
            floor = min_count if feature.min_count is None else feature.min_count
            empty = pa.array([], table.schema.field("value").type)
            no_rows, no_counts = np.zeros(0, np.int32), np.zeros(0, np.int64)
            entry = FieldVocabulary(feature.name, position, id_kind(empty), empty, no_rows, no_counts, floor)
            if feature.hash_buckets is None:
                entry = _with_values(entry, table, first)
            else:
                entry = replace(entry, buckets=feature.hash_buckets, first_bucket=first)
            first += entry.size
            built.append(entry)
        return cls(tuple(built), first)

    def extend(self, counts: VocabularyCounts) -> Vocabulary:
        """Return a vocabulary with the values of `counts` that are new and frequent enough appended; old rows stay.

        Counts of values that are known already are added up.
        """
        first, grown = self.table_rows, []
        for entry in self.fields:
            table = counts.fields[entry.name]
            kind = id_kind(table.column("value"))
            if entry.buckets is not None or kind == "none":
                grown.append(entry)
                continue
            wanted: IdKind = kind if entry.kind == "none" else entry.kind
            values = as_kind(table.column("value").combine_chunks(), wanted)
            table = pa.table({"value": values, "count": table.column("count")}).filter(pc.is_valid(values))
            places = entry.lookup.rows(as_kind(table.column("value").combine_chunks(), wanted))
            known = places != entry.unknown
            total = np.zeros(self.table_rows, np.int64)
            total[places[known]] = np.asarray(table.column("count"))[known]
            counted = replace(entry, counts=entry.counts + total[entry.rows])
            grown.append(_with_values(counted, table.filter(pa.array(~known)), first))
            first += grown[-1].size - entry.size
        return Vocabulary(tuple(grown), first)

    def extends(self, base: Vocabulary) -> bool:
        """Return whether every row of `base` means the same here: this is `base`, or `base` grown."""
        pairs = zip(self.fields, base.fields, strict=False)
        return len(self.fields) == len(base.fields) and all(_continues(new, old) for new, old in pairs)

    def field(self, name: str) -> FieldVocabulary:
        """Return one field.

        Raises
        ------
        DataError
            Where there is no such field.
        """
        for entry in self.fields:
            if entry.name == name:
                return entry
        known = ", ".join(entry.name for entry in self.fields)
        raise DataError(Finding("data.schema_mismatch", f"there is no field {name!r}", fix=f"fields: {known}"))

    def rows_of(self, name: str, array: pa.Array) -> NDArray[np.int32]:
        """Return the global rows of raw ids: the field's unknown row for null and for values that are not known.

        Text that is exactly an integer counts as one for an integer field, and the other way round for a text field.
        """
        entry = self.field(name)
        return entry.lookup.rows(as_kind(ids(array, name)[0], entry.kind))

    def decode(self, name: str, rows: NDArray[Any]) -> pa.Array:
        """Return the values that own `rows`: null for the unknown row; of a hashed field the number of the bucket."""
        entry = self.field(name)
        if entry.buckets is not None:
            assert entry.first_bucket is not None
            return pa.array(rows.astype(np.int64) - entry.first_bucket, mask=rows == entry.unknown)
        order = np.argsort(entry.rows, kind="stable")
        at = np.searchsorted(entry.rows, rows, sorter=order)
        places = np.append(order, -1)[at]
        known = (places >= 0) & (np.append(entry.rows, -1)[places] == rows)
        return entry.values.take(pa.array(np.where(known, places, 0), mask=~known))

    def save(self, folder: Path) -> None:
        """Write ``vocabulary.json`` and one Arrow file a field (value, row, count)."""
        entries = []
        for position, entry in enumerate(self.fields):
            name = f"{position:03d}.arrow"
            body = {"value": entry.values, "row": entry.rows, "count": entry.counts}
            write_table(folder / name, pa.table(body))
            description: dict[str, Any] = {"name": entry.name, "dtype": entry.kind, "size": entry.size, "file": name}
            description["min_count"] = entry.min_count
            if entry.buckets is not None:
                description |= {"hash_buckets": entry.buckets, "first_bucket": entry.first_bucket}
            entries.append(description)
        body = {"format": VOCABULARY_FORMAT, "table_rows": self.table_rows, "fields": entries}
        files.write_json(folder / _INDEX, body)

    @classmethod
    def load(cls, folder: Path, contents: Mapping[str, bytes] | None = None) -> Vocabulary:
        """Read what `save` wrote.

        Parameters
        ----------
        folder
            Where it is.
        contents
            The folder's files by name where they were read and checked already (a bundle); then nothing is read.

        Raises
        ------
        InputMissingError
            Where there is no vocabulary.
        DataError
            Where it is damaged or of another format.
        """
        if _INDEX not in contents if contents is not None else not (folder / _INDEX).is_file():
            fix = "pass the folder of a LOG or a BUNDLE"
            raise InputMissingError(Finding("input.missing", "no vocabulary here", str(folder), fix=fix))
        body = files.read_json(folder / _INDEX) if contents is None else json.loads(contents[_INDEX])
        if body.get("format") != VOCABULARY_FORMAT:
            what = f"vocabulary format {body.get('format')!r} is not {VOCABULARY_FORMAT}"
            raise DataError(Finding("data.corrupt_file", what, str(folder / _INDEX), fix="upgrade postclick"))
        held = contents or {}
        built = [
            _load_field(folder / Path(entry["file"]).name, held.get(entry["file"]), position, entry)
            for position, entry in enumerate(body["fields"])
        ]
        return cls(tuple(built), int(body["table_rows"]))


def _load_field(path: Path, data: bytes | None, position: int, entry: dict[str, Any]) -> FieldVocabulary:
    table = read_table(path, data)
    arrays = [table.column(name).combine_chunks() for name in ("value", "row", "count")]
    values, rows, counts = (item.chunk(0) if isinstance(item, pa.ChunkedArray) else item for item in arrays)
    return FieldVocabulary(
        entry["name"],
        position,
        entry["dtype"],
        values,
        np.asarray(rows),
        np.asarray(counts),
        int(entry["min_count"]),
        entry.get("hash_buckets"),
        entry.get("first_bucket"),
    )


def _continues(new: FieldVocabulary, old: FieldVocabulary) -> bool:
    same = (new.name, new.unknown, new.buckets, new.first_bucket) == (
        old.name,
        old.unknown,
        old.buckets,
        old.first_bucket,
    )
    size = len(old.rows)
    rows_stay = np.array_equal(new.rows[:size], old.rows)
    return same and rows_stay and (not size or new.values[:size].equals(old.values))
