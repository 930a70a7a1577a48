"""REES46 shop logs: view, cart and purchase events, summed up to one row a (session, product).

Events of one session lie anywhere in the files, so they are first dealt out to parts by a hash of the session
(`prepare` does that once, a file piece at a time, to disk); a part then holds whole sessions and fits into memory.
Other readers go through the files once a part.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from postclick.data.faults import placed
from postclick.data.hashing import stable_hash
from postclick.data.ipc import BlockWriter
from postclick.data.labels import row_number_ids
from postclick.data.sources.base import Piece, SourceBatch, SourceProtocol, SplitRole
from postclick.data.sources.inputs import Inputs, RawFile
from postclick.data.sources.rees46_rows import EVENT_TYPES, event_table, session_rows, unknown_event
from postclick.data.sources.tabular import BATCH_ROWS, CUT_LINES, TabularSource
from postclick.errors import DataError, Finding, PostclickError, nearest
from postclick.schema import Columns, DenseFeature, Schema, SparseFeature
from postclick.schema.csv_text import csv_layout
from postclick.schema.features import Feature
from postclick.schema.sampling import head, raw_files, raw_format

__all__ = ["Rees46Source", "holds_events", "rees46_schema"]

_PART_BYTES = 128 << 20
"""CSV text a part: about a million events, half a gigabyte while they are summed up."""
_SWELLING = {"gz": 8, "parquet": 6, "ipc": 1, "csv": 1}
_FLUSH_EVENTS = 500_000
_SIGNS = {"event_time", "event_type", "product_id", "user_session"}
_RAW = Schema(
    (
        *(SparseFeature(name) for name in EVENT_TYPES if name not in ("price", "kind", "time", "place")),
        SparseFeature("event_type"),
        DenseFeature("price"),
    ),
    Columns(time="event_time"),
)
_NOTES = (
    "a row is a product in a session: its first view is the click, a cart the action, a purchase the conversion",
    "a purchase in another session than the view is another row's, and sessions that go on after the last event of the "
    "files may still convert",
)


def rees46_schema() -> Schema:
    """Return the schema: who, which product, its category on three levels, brand, price, hour and weekday (UTC)."""
    product = ("product_id", "category_id", "category_1", "category_2", "category_code", "brand")
    features: tuple[Feature, ...] = (
        SparseFeature("user_id", "user"),
        *(SparseFeature(name, "item") for name in product),
        DenseFeature("price", "item", transform="log"),
        *(SparseFeature(name, "context") for name in ("hour", "weekday")),
    )
    columns = Columns(
        action="action",
        exposure_id="exposure_id",
        user_id="user_id",
        item_id="product_id",
        time="time",
        click_time="click_time",
        conversion_time="conversion_time",
    )
    return Schema(features, columns, "click")


@dataclass(frozen=True)
class Rees46Source:
    """Rows of (session, product) pairs; all are clicks (`population` is ``click``).

    Parameters
    ----------
    protocol, schema
        As `Source`.
    events
        Reads the raw events.
    counts
        Role of files -> how many parts their sessions are dealt out to.
    parts
        Path of a file of events -> its pieces as columns, dealt out to parts; empty where they are read from the files.
    """

    protocol: SourceProtocol
    schema: Schema
    events: TabularSource
    counts: Mapping[SplitRole | None, int]
    parts: Mapping[str, Sequence[Path]] = field(default_factory=dict)

    @classmethod
    def open(cls, inputs: Inputs, *, schema: Schema | None = None) -> Rees46Source:
        """Look at every file's names and first events.

        Raises
        ------
        InputMissingError, DataError
            As `TabularSource.open`; ``data.schema_mismatch`` for a schema with columns that events do not give.
        """
        schema = schema or rees46_schema()
        known = [*rees46_schema().raw_columns(), "user_session"]
        problems = [_unknown(name, known) for name in schema.raw_columns() if name not in known]
        if problems:
            raise DataError(*problems)
        declared = SourceProtocol("rees46", notes=_NOTES)
        events = TabularSource.open(inputs, schema=_RAW, labels=False, protocol=declared, cut_ends=True)
        found = events.protocol
        notes = tuple(note for note in found.notes if "event_time" not in note)  # REES46 writes its times in UTC
        return cls(replace(found, notes=notes), schema, events, _counts(events))

    def pieces(self) -> list[Piece]:
        """Parts of about 128 MB of text by a hash of the session, those of each role apart."""
        found = []
        for role, count in self.counts.items():
            files = self._files(role)
            paths = [str(file.path) for file in files if file.path is not None]
            whole = files[0].label if len(files) == 1 else f"{files[0].label} and {len(files) - 1} more"
            for part in range(count):
                label = f"{whole} (sessions)" if count == 1 else f"{whole} (sessions {part + 1} of {count})"
                path = None if self._in_memory else paths[0]
                also = () if self._in_memory else tuple(paths[1:])
                found.append(Piece(label, path, role, part, (part, count), also))
        return found

    def side_pieces(self) -> list[Piece]:
        """Pieces of the files of events; tables in memory are read where they are."""
        return [] if self._in_memory else self.events.pieces()

    def stage_side(self, piece: Piece, target: Path) -> None:
        """Write a piece's events as columns, a batch a part, in rounds of some hundred thousand events."""
        count = self.counts[piece.role]
        with BlockWriter(target) as writer:
            for events in _rounds(self._events(piece)):
                for part in _dealt(events, count):
                    writer.write(part)

    def with_sides(self, parts: Mapping[str, list[Path]], folder: Path) -> Rees46Source:  # noqa: ARG002 (it needs no tables)
        """Return the source that reads dealt-out events."""
        return replace(self, parts=dict(parts))

    def read(self, piece: Piece) -> Iterator[SourceBatch]:
        """Yield the rows of a part's sessions, in the order of their first events."""
        part, count = piece.payload
        tables = list(self._part(piece.role, part, count))
        empty = pa.table({name: pa.array([], kind) for name, kind in EVENT_TYPES.items()})
        found = session_rows(pa.concat_tables([empty, *tables]))
        table = found.table.select(self.schema.raw_columns()).combine_chunks()
        values, filtered = found.values, found.filtered
        for start in range(0, max(len(table), 1), BATCH_ROWS):
            rows = table.slice(start, BATCH_ROWS)
            batch = pa.RecordBatch.from_arrays([_whole(column) for column in rows.columns], names=rows.column_names)
            yield SourceBatch(batch, piece.label, start, values, filtered)
            values, filtered = {}, {}

    def _part(self, role: SplitRole | None, part: int, count: int) -> Iterator[pa.Table]:
        """Yield the events of one part: from disk where they were dealt out, else of all events those that it gets."""
        if self.parts:
            for file in self._files(role):
                for path in self.parts.get(str(file.path), ()):
                    if path.is_file():  # a piece without events leaves no file
                        yield _read_part(path, part, count)
            return
        for piece in self.events.pieces():
            if piece.role == role:
                for events in self._events(piece):
                    yield events if count == 1 else events.filter(pc.equal(_shares(events, count), part))

    def _events(self, piece: Piece) -> Iterator[pa.Table]:
        numbers = {file.label: number for number, file in enumerate(self.events.files)}
        for batch in self.events.read(piece):
            places = row_number_ids(numbers[batch.label], batch.first_row, batch.table.num_rows)
            if CUT_LINES in batch.values:
                yield unknown_event(int(row_number_ids(numbers[batch.label], batch.first_row, 1)[0]))
                continue
            with placed(batch.label, batch.first_row):
                yield event_table(batch.table, batch.label, places)

    def _files(self, role: SplitRole | None) -> list[RawFile]:
        return [file for file in self.events.files if file.role == role]

    @property
    def _in_memory(self) -> bool:
        return any(file.path is None for file in self.events.files)


def _counts(events: TabularSource) -> dict[SplitRole | None, int]:
    """Return how many parts the files of each role need, from their sizes."""
    sizes: dict[SplitRole | None, int] = {}
    for file in events.files:
        sizes[file.role] = sizes.get(file.role, 0) + _size(file, events)
    return {role: max(1, -(-size // _PART_BYTES)) for role, size in sizes.items()}


def _size(file: RawFile, events: TabularSource) -> int:
    """Bytes of a file as CSV, roughly."""
    if file.path is None:
        return int(file.table.nbytes)
    form = "gz" if file.path.name.lower().endswith(".gz") else raw_format(file.path) or "csv"
    return events.marks[str(file.path)].size * _SWELLING[form]


def _unknown(name: str, known: Sequence[str]) -> Finding:
    near = nearest(name, known)
    fix = f"did you mean {near!r}?" if near else f"columns: {', '.join(known)}"
    return Finding("data.schema_mismatch", f"REES46 events give no column {name!r}", "schema", fix=fix)


def _whole(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _rounds(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """Join tables until there are enough events for a round."""
    waiting: list[pa.Table] = []
    for table in tables:
        waiting.append(table)
        if sum(map(len, waiting)) >= _FLUSH_EVENTS:
            yield pa.concat_tables(waiting)
            waiting = []
    if waiting:
        yield pa.concat_tables(waiting)


def _dealt(events: pa.Table, count: int) -> Iterator[pa.RecordBatch]:
    """Yield a batch a part."""
    shares = _shares(events, count)
    for part in range(count):
        mine = events.filter(pc.equal(shares, part)).combine_chunks()
        yield pa.RecordBatch.from_arrays([_whole(column) for column in mine.columns], names=mine.column_names)


def _shares(events: pa.Table, count: int) -> pa.Array:
    """Return the part that each event belongs to, by its session; those without one are rejected in the first."""
    session = events["user_session"].fill_null("").combine_chunks().dictionary_encode()
    words = np.asarray(session.dictionary.to_numpy(zero_copy_only=False), object)
    shares = (stable_hash(words) % np.uint64(count)).astype(np.int64) if len(words) else np.zeros(0, np.int64)
    return pa.array(shares[np.asarray(session.indices)])


def _read_part(path: Path, part: int, count: int) -> pa.Table:
    """Return every `count`-th batch of a file from the `part`-th on."""
    reader = pa.ipc.open_file(pa.memory_map(str(path)))
    chosen = [reader.get_batch(index) for index in range(part, reader.num_record_batches, count)]
    return pa.Table.from_batches(chosen, reader.schema)


def holds_events(path: Path) -> bool:
    """Whether a file, or the first one of a folder or a pattern, has the columns of REES46 events."""
    try:
        first = raw_files(path)[0]
        names = csv_layout(first).names if raw_format(first) == "csv" else head(first, 1).column_names
    except (PostclickError, OSError, pa.ArrowException):  # whoever reads it will say what is wrong
        return False
    return set(names) >= _SIGNS
