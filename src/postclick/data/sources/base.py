"""What a source is: pieces of raw data, each read as Arrow batches in the columns of a schema."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from postclick.schema import Schema

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["JoinedSource", "Piece", "Source", "SourceBatch", "SourceProtocol", "ValueCounts"]

SplitRole = Literal["train", "valid", "test"]


@dataclass(frozen=True)
class ValueCounts:
    """What happened to the values of one field: in = kept + truncated + replaced + rejected.

    Parameters
    ----------
    read
        Values read.
    kept
        Values handed on.
    truncated
        Values past the feature's maximal length.
    replaced
        Earlier values of a single-valued field that occurred again in the same row (the last one is kept).
    rejected
        Malformed values.
    """

    read: int = 0
    kept: int = 0
    truncated: int = 0
    replaced: int = 0
    rejected: int = 0

    def __add__(self, other: ValueCounts) -> ValueCounts:
        return ValueCounts(
            self.read + other.read,
            self.kept + other.kept,
            self.truncated + other.truncated,
            self.replaced + other.replaced,
            self.rejected + other.rejected,
        )


@dataclass(frozen=True)
class Piece:
    """A unit of work that one process can read alone; survives pickling.

    Parameters
    ----------
    label
        File name as people know it (no absolute path: it enters hashed files).
    path
        Where it is, or None for data in memory.
    role
        The split it belongs to by the provider's or the user's word; None where rows are to be split.
    index
        Position among the source's pieces of the same file (row group, byte range).
    payload
        What the source needs besides: picklable.
    also
        Further files that its rows come from: tables that they are joined with.
    """

    label: str
    path: str | None
    role: SplitRole | None = None
    index: int = 0
    payload: Any = None
    also: tuple[str, ...] = ()

    @property
    def paths(self) -> tuple[str, ...]:
        """All files that its rows come from; none for data in memory."""
        return () if self.path is None else (self.path, *self.also)


@dataclass(frozen=True)
class SourceBatch:
    """Some raw rows.

    Parameters
    ----------
    table
        Columns named as the schema's `raw_columns()`, raw types (ids as int64 or text, numbers as numbers, lists as
        lists; text that a `SequenceFeature.separator` splits comes as text, and so does a label column with a word in
        it).
    label
        The piece's file.
    first_row
        Number of the first row within that file, from 0 (data rows, a header not counted).
    values
        A field's values that the source read but did not hand on (`kept` is 0 here); adding the counts of the values in
        `table` gives the field's totals, so in = kept + truncated + replaced + rejected holds before and after.
    filtered
        Rule of the source -> rows that it left out beside those of `table`.
    """

    table: pa.RecordBatch
    label: str
    first_row: int
    values: Mapping[str, ValueCounts] = field(default_factory=dict)
    filtered: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class SourceProtocol:
    """What a source declares about itself; recorded in the LOG.

    Parameters
    ----------
    source
        Key of the source.
    threshold
        A rating at or over it is a conversion; None where conversions are logged.
    provider_split
        The provider's files are splits.
    allow_overlap
        An overlap of test keys with the exposure space belongs to the protocol (rating sources).
    notes
        Sentences for the audit.
    """

    source: str
    threshold: float | None = None
    provider_split: bool = False
    allow_overlap: bool = False
    notes: tuple[str, ...] = ()


class Source(Protocol):
    """Raw data of one format."""

    @property
    def protocol(self) -> SourceProtocol:
        """What the source declares about itself."""

    @property
    def schema(self) -> Schema:
        """The features and funnel columns that its batches have."""

    def pieces(self) -> list[Piece]:
        """Return the units of work, in a reproducible order."""

    def read(self, piece: Piece) -> Iterator[SourceBatch]:
        """Yield the rows of one piece in order; never holds a whole file."""


@runtime_checkable
class JoinedSource(Source, Protocol):
    """A source whose rows are joined with tables that `prepare` turns to columns once, before the rows are read."""

    def side_pieces(self) -> list[Piece]:
        """Return the units of work of the tables, in a reproducible order."""

    def stage_side(self, piece: Piece, target: Path) -> None:
        """Write one piece of a table as columns to the file `target`."""

    def with_sides(self, parts: Mapping[str, list[Path]], folder: Path) -> JoinedSource:
        """Return the same source with its tables read from disk, memory-mapped: many processes then share them.

        Parameters
        ----------
        parts
            Path of a table -> its staged pieces in order.
        folder
            An empty folder for the tables.
        """
