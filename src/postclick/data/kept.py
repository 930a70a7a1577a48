"""The rows that stay after the first pass: all staged pieces without later copies, and how they are split."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from postclick.data.clock import find_span
from postclick.data.duplicates import Duplicates
from postclick.data.ledger import Ledger
from postclick.data.partial import digest
from postclick.data.sources.base import Source
from postclick.data.split import SplitKind, SplitPlan, time_plan
from postclick.data.staged import StagedPiece, read_staged
from postclick.errors import DataError, Finding

__all__ = ["KeptRows", "check_overlap", "split_plan"]


@dataclass(frozen=True)
class KeptRows:
    """Staged pieces and what is known of them together.

    Parameters
    ----------
    pieces
        In order.
    types
        Of the staged columns.
    ledger
        Rows and values so far.
    duplicates
        Later copies of an exposure id; None where no id is given.
    strays
        (piece, file within it) -> positions of rows whose time lies far from all others; none is a copy too.
    overlap
        What the splits of a provider share.
    """

    pieces: list[StagedPiece]
    types: Mapping[str, pa.DataType]
    ledger: Ledger
    duplicates: Duplicates | None = None
    strays: Mapping[tuple[int, int], NDArray[np.int64]] = field(default_factory=dict)
    overlap: dict[str, Any] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """How many stay."""
        copies = self.duplicates.rows if self.duplicates else 0
        return sum(piece.rows for piece in self.pieces) - copies - sum(map(len, self.strays.values()))

    def drop(self, piece: StagedPiece) -> dict[int, NDArray[np.int64]]:
        """Return file within the piece -> rows to leave out."""
        found: dict[int, NDArray[np.int64]] = {}
        for part in (self.duplicates.drop if self.duplicates else {}, self.strays):
            for (index, number), rows in part.items():
                if index == piece.index:
                    found[number] = np.union1d(found[number], rows) if number in found else rows
        return found

    def drop_digest(self, piece: StagedPiece) -> str:
        """Return a hash of what `drop` returns."""
        return digest({str(number): rows.tolist() for number, rows in self.drop(piece).items()})

    def times(self) -> Iterator[tuple[str | None, NDArray[np.int64]]]:
        """Yield (role, exposure times) a scratch file."""
        for piece, number, times in self._all_times():
            drop = self.drop(piece)
            yield piece.role, np.delete(times, drop[number]) if number in drop else times

    def _all_times(self) -> Iterator[tuple[StagedPiece, int, NDArray[np.int64]]]:
        for piece in self.pieces:
            for number, file in enumerate(piece.files):
                parts = [np.asarray(b.column(0)) for b in read_staged(file, self.types, ["label:time"])]
                yield piece, number, np.concatenate(parts)

    def find_strays(self) -> dict[tuple[int, int], NDArray[np.int64]]:
        """Return the rows whose time lies far from all others (D17), as `strays`; most logs have none: one pass."""
        span = find_span(times for _, times in self.times())
        if span is None or not span.strays:
            return {}
        found = {}
        for piece, number, times in self._all_times():
            places = np.flatnonzero((times < span.low) | (times > span.high))
            places = np.setdiff1d(places, self.drop(piece).get(number, []), assume_unique=True)
            if len(places):
                found[piece.index, number] = places.astype(np.int64)
        return found


def split_plan(kind: SplitKind, kept: KeptRows) -> SplitPlan:
    """Return how each row finds its split."""
    if kind == "time":
        return time_plan(lambda: (times for _, times in kept.times()), kept.rows)
    carve = kind == "provider" and not any(piece.role == "valid" for piece in kept.pieces)
    return SplitPlan(kind, carve_valid=carve)


def check_overlap(kept: KeptRows, source: Source, kind: SplitKind, *, allow: bool) -> KeptRows:
    """Refuse exposures or times that are in several splits of the provider, unless that is allowed (D18).

    Raises
    ------
    DataError
        ``data.split_leak``, all of them together.
    """
    if kind != "provider":
        return kept
    allowed = allow or source.protocol.allow_overlap
    keys = dict(kept.duplicates.overlap) if kept.duplicates else {}
    spans = _time_overlap(kept) if source.schema.columns.time else {}
    fix = "repair the split, choose another --split, or accept it with --allow-overlap"
    problems = [
        Finding("data.split_leak", f"exposure ids are in both splits of {pair}", count=count, fix=fix)
        for pair, count in keys.items()
    ]
    problems += [
        Finding("data.split_leak", f"the times of {pair} overlap by {span / 1e6:,.0f} seconds", fix=fix)
        for pair, span in spans.items()
    ]
    if problems and not allowed:
        raise DataError(*problems)
    return replace(kept, overlap={"keys": keys, "time_us": spans, "allowed": allowed})


def _time_overlap(kept: KeptRows) -> dict[str, int]:
    last_train, first_test = None, None
    for role, times in kept.times():
        if role == "train" and len(times):
            last_train = max(int(times.max()), int(times.max()) if last_train is None else last_train)
        if role == "test" and len(times):
            first_test = min(int(times.min()), int(times.min()) if first_test is None else first_test)
    if last_train is None or first_test is None or last_train <= first_test:
        return {}
    return {"train-test": last_train - first_test}
