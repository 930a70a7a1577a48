"""Rejected rows on disk: ``OUT.rejects`` beside the log, Parquet, each row with its reason, file and number."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from postclick import files
from postclick.data.clock import when
from postclick.data.duplicates import Duplicates
from postclick.data.faults import merge_examples
from postclick.data.kept import KeptRows
from postclick.data.ledger import Ledger
from postclick.data.partial import place
from postclick.data.rejects import RejectWriter
from postclick.data.sources.base import ValueCounts
from postclick.data.staged import ROW, StagedPiece, read_staged
from postclick.data.staging import value_totals
from postclick.errors import InputMissingError
from postclick.schema import Schema

__all__ = [
    "Reason",
    "check_rejects",
    "publish_rejects",
    "reject_duplicates",
    "reject_rows",
    "rejects_folder",
    "without_strays",
]

_KIND = "rejects"


@dataclass(frozen=True)
class Reason:
    """Why rows are rejected: the code, a name for their files, and the column that is shown (raw and staged name)."""

    code: str
    name: str
    column: str
    staged: str
    show: Callable[[Any], str]


def rejects_folder(out: Path) -> Path:
    """Return where the rejected rows of a log go."""
    return out.with_name(f"{out.name}.rejects")


def _is_ours(folder: Path) -> bool:
    try:
        files.read_manifest(folder, _KIND)
    except InputMissingError:
        return False
    return True


def check_rejects(out: Path, *, force: bool) -> None:
    """Refuse to replace a folder that is in the way, unless it holds rejects of an earlier run, or `force`."""
    folder = rejects_folder(out)
    files.check_free(folder, force=force or _is_ours(folder))


def publish_rejects(scratch: Path, out: Path) -> Path:
    """Put the rejected rows in their place and return it; none leave no folder, nor an earlier run's."""
    folder = rejects_folder(out)
    found = sorted((scratch / "rejects").glob("*.parquet"))
    if found:
        with files.new_folder(folder, _KIND, force=True) as target:
            for path in found:
                place(path, target / path.name)
    elif folder.exists() and _is_ours(folder):
        shutil.rmtree(folder)
    return folder


def reject_rows(
    pieces: Sequence[StagedPiece],
    types: Mapping[str, pa.DataType],
    drop: Mapping[tuple[int, int], NDArray[np.int64]],
    schema: Schema,
    scratch: Path,
    reason: Reason,
) -> tuple[Ledger, dict[str, tuple[tuple[str, str], ...]]]:
    """Write rows that a look at the whole log rejects to quarantine.

    Parameters
    ----------
    pieces, types, schema
        The staged rows.
    drop
        (piece, file within it) -> positions.
    scratch
        Scratch folder.
    reason
        Why.

    Returns
    -------
    tuple
        Their rows and values for the ledger, and the first few for the message.
    """
    ledger, found = Ledger(), list[tuple[str, str]]()
    for piece in pieces:
        rejects = RejectWriter(scratch, f"{piece.index:05d}-{reason.name}")
        for number, file in enumerate(piece.files):
            places, first = drop.get((piece.index, number)), 0
            if places is None:
                continue
            for batch in read_staged(file, types):
                inside = places[(places >= first) & (places < first + batch.num_rows)] - first
                first += batch.num_rows
                if not len(inside):
                    continue
                rows = batch.take(pa.array(inside))
                numbers = np.asarray(rows.column(ROW))
                rejects.write(rows, [reason.code] * len(inside), piece.label, numbers)
                lost = value_totals(rows, schema)
                values = {field: ValueCounts(rejected=count) for field, count in lost.items()}
                ledger += Ledger(rejected={reason.code: len(inside)}, values=values)
                for row in range(min(len(inside), 3 - len(found))):
                    shown = reason.show(rows.column(reason.staged)[row].as_py())
                    found.append((f"{piece.label}:{numbers[row]}:{reason.column}", shown))
        rejects.flush()
    return ledger, {reason.code: tuple(found)} if found else {}


def reject_duplicates(
    pieces: Sequence[StagedPiece],
    types: Mapping[str, pa.DataType],
    duplicates: Duplicates,
    schema: Schema,
    scratch: Path,
) -> tuple[Ledger, dict[str, tuple[tuple[str, str], ...]]]:
    """Write later copies of an exposure id to quarantine; returns as `reject_rows`."""
    reason = Reason("data.duplicate_key", "copies", schema.columns.exposure_id or "", "label:exposure_id", str)
    return reject_rows(pieces, types, duplicates.drop, schema, scratch, reason)


def without_strays(kept: KeptRows, schema: Schema, scratch: Path) -> KeptRows:
    """Put rows whose time lies far from all others (D17) into quarantine, where the schema names a time."""
    for path in (scratch / "rejects").glob("*-strays-*"):  # an earlier run's
        path.unlink()
    if schema.columns.time is None or not kept.rows:
        return kept
    strays = kept.find_strays()
    reason = Reason("data.time_order", "strays", schema.columns.time, "label:time", when)
    part, examples = reject_rows(kept.pieces, kept.types, strays, schema, scratch, reason)
    first = replace(kept.pieces[0], examples=merge_examples(kept.pieces[0].examples, examples))
    return replace(kept, pieces=[first, *kept.pieces[1:]], ledger=kept.ledger + part, strays=strays)
