"""Rejected rows on disk: ``OUT.rejects`` beside the log, Parquet, each row with its reason, file and number."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from postclick import files
from postclick.data.duplicates import Duplicates
from postclick.data.ledger import Ledger
from postclick.data.rejects import RejectWriter
from postclick.data.sources.base import ValueCounts
from postclick.data.staging import ROW, StagedPiece, read_staged, value_totals
from postclick.errors import InputMissingError
from postclick.schema import Schema

__all__ = ["check_rejects", "publish_rejects", "reject_duplicates", "rejects_folder"]

_KIND = "rejects"
_CODE = "data.duplicate_key"


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
                files.operations.rename(path, target / path.name)
    elif folder.exists() and _is_ours(folder):
        shutil.rmtree(folder)
    return folder


def reject_duplicates(
    pieces: Sequence[StagedPiece],
    types: Mapping[str, pa.DataType],
    duplicates: Duplicates,
    schema: Schema,
    scratch: Path,
) -> tuple[Ledger, dict[str, tuple[tuple[str, str], ...]]]:
    """Write later copies of an exposure id to quarantine.

    Returns
    -------
    tuple
        Their rows and values for the ledger, and the first few for the message.
    """
    ledger, found = Ledger(), list[tuple[str, str]]()
    name = schema.columns.exposure_id or ""
    for piece in pieces:
        rejects = RejectWriter(scratch, f"{piece.index:05d}-copies")
        for number, file in enumerate(piece.files):
            drop, first = duplicates.drop.get((piece.index, number)), 0
            if drop is None:
                continue
            for batch in read_staged(file, types):
                inside = drop[(drop >= first) & (drop < first + batch.num_rows)] - first
                first += batch.num_rows
                if not len(inside):
                    continue
                rows = batch.take(pa.array(inside))
                numbers = np.asarray(rows.column(ROW))
                rejects.write(rows, [_CODE] * len(inside), piece.label, numbers)
                lost = value_totals(rows, schema)
                values = {field: ValueCounts(rejected=count) for field, count in lost.items()}
                ledger += Ledger(rejected={_CODE: len(inside)}, values=values)
                if len(found) < 3:
                    key = rows.column("label:exposure_id")[0].as_py()
                    found.append((f"{piece.label}:{numbers[0]}:{name}", str(key)))
        rejects.flush()
    return ledger, {_CODE: tuple(found)} if found else {}
