"""How often each value of each field occurs: partial counts of pieces, merged in any order to the same result."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from postclick.data.columns import column, id_kind, ids
from postclick.data.sequences import read_sequence
from postclick.errors import DataError, Finding
from postclick.schema import Schema, SequenceFeature

__all__ = ["CountMerger", "VocabularyCounts"]

_MERGE_AT = 4_000_000


def _table(values: pa.Array, counts: pa.Array) -> pa.Table:
    return pa.table({"value": values, "count": counts})


@dataclass(frozen=True)
class VocabularyCounts:
    """Values and how often they occur, a field; null is no value.

    Parameters
    ----------
    fields
        Field name -> table of ``value`` (int64, text, or null where there was none) and ``count`` (int64). For fields
        with hash buckets the table is empty and only its type counts.
    """

    fields: Mapping[str, pa.Table] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Values of all fields together."""
        return sum(table.num_rows for table in self.fields.values())

    @classmethod
    def of(cls, batch: pa.RecordBatch | pa.Table, schema: Schema) -> VocabularyCounts:
        """Count the values of a batch."""
        found = {}
        for feature in schema.fields:
            if isinstance(feature, SequenceFeature):
                values = read_sequence(batch, feature).values
            else:
                values, _ = ids(column(batch, feature.name), feature.name)
            if feature.hash_buckets is not None or pa.types.is_null(values.type):
                empty = pa.array([], values.type)
                found[feature.name] = _table(empty, pa.array([], pa.int64()))
                continue
            pairs = pc.value_counts(values.drop_null())
            found[feature.name] = _table(pairs.field("values"), pairs.field("counts"))
        return cls(found)

    @classmethod
    def merge(cls, parts: Sequence[VocabularyCounts]) -> VocabularyCounts:
        """Add partial counts.

        Raises
        ------
        DataError
            ``data.schema_mismatch`` where a field is a number in one part and text in another.
        """
        merged, problems = {}, []
        for name in parts[0].fields if parts else ():
            tables = [part.fields[name] for part in parts]
            kinds = {id_kind(table.column("value")): table.schema.field("value").type for table in tables}
            typed = [table for table in tables if id_kind(table.column("value")) != "none"]
            if len(kinds.keys() - {"none"}) > 1:
                what = f"the ids of {name!r} are numbers in some rows and text in others"
                problems.append(Finding("data.schema_mismatch", what, name, fix="deliver one type"))
            elif len(typed) < 2:
                merged[name] = typed[0] if typed else tables[0]
            else:
                merged[name] = _sum(pa.concat_tables(typed))
        if problems:
            raise DataError(*problems)
        return cls(merged)


def _sum(table: pa.Table) -> pa.Table:
    grouped = table.group_by("value", use_threads=False).aggregate([("count", "sum")])
    return _table(grouped.column("value").combine_chunks(), grouped.column("count_sum").combine_chunks())


class CountMerger:
    """Merges a stream of partial counts, each value touched a logarithmic number of times."""

    def __init__(self) -> None:
        self._parts: list[VocabularyCounts] = []
        self._largest = 0

    def add(self, part: VocabularyCounts) -> None:
        """Take one partial count in."""
        self._parts.append(part)
        if sum(item.size for item in self._parts) > max(_MERGE_AT, 2 * self._largest):
            self._parts = [VocabularyCounts.merge(self._parts)]
            self._largest = self._parts[0].size

    def result(self) -> VocabularyCounts:
        """Return the merged counts."""
        return VocabularyCounts.merge(self._parts)

    @classmethod
    def merge(cls, parts: Iterable[VocabularyCounts]) -> VocabularyCounts:
        """Merge an iterable."""
        merger = cls()
        for part in parts:
            merger.add(part)
        return merger.result()
