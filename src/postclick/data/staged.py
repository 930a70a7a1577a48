"""Staged rows: what the first pass of `prepare` leaves on disk, and how the later passes read it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from postclick.data.arrays import Labels
from postclick.data.columns import column
from postclick.data.ipc import read_batches
from postclick.data.labels import ID_ROLES, NO_ID
from postclick.data.layout import labels_from_arrow
from postclick.data.ledger import Ledger
from postclick.data.sources.base import SplitRole
from postclick.errors import DataError, Finding

__all__ = ["LABEL", "ROW", "StagedFile", "StagedPiece", "column_types", "read_staged", "staged_labels"]

ROW = "row:number"
"""Column of a staged file: the row's number in its source file."""
LABEL = "label:"
"""Start of the names of its label columns."""


@dataclass(frozen=True)
class StagedFile:
    """One scratch file: rows of one piece whose columns have one set of types.

    Parameters
    ----------
    path
        Where it is.
    rows
        Their number.
    types
        Column -> the type it stands for; in the file it may be narrower.
    span
        First and last exposure id where each is larger than the one before; None elsewhere.
    """

    path: Path
    rows: int
    types: Mapping[str, str]
    span: tuple[int, int] | None = None


@dataclass(frozen=True)
class StagedPiece:
    """What staging a piece left.

    Parameters
    ----------
    index, label, role
        The piece.
    files
        Scratch files in order.
    ledger
        Rows read and rejected, values read, and those lost in the source or with a rejected row.
    examples
        Reason -> (place, value) of the first few rejected rows.
    refusals
        Findings that stop the preparation.
    """

    index: int
    label: str
    role: SplitRole | None
    files: tuple[StagedFile, ...]
    ledger: Ledger
    examples: Mapping[str, tuple[tuple[str, str], ...]] = field(default_factory=dict)
    refusals: tuple[Finding, ...] = ()

    @property
    def rows(self) -> int:
        """Rows kept."""
        return sum(file.rows for file in self.files)

    @property
    def there(self) -> bool:
        """Whether all its scratch files are on disk (they appear whole or not at all)."""
        return all(file.path.is_file() for file in self.files)

    def to_dict(self) -> dict[str, Any]:
        """Return the plain form of a marker; it holds no path but the names of the scratch files."""
        return {
            "index": self.index,
            "label": self.label,
            "role": self.role,
            "files": [[file.path.name, file.rows, dict(file.types), file.span] for file in self.files],
            "ledger": self.ledger.to_dict(),
            "examples": dict(self.examples),
            "refusals": [asdict(finding) for finding in self.refusals],
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any], folder: Path) -> StagedPiece:
        """Read the plain form; the scratch files are in `folder`."""
        return cls(
            value["index"],
            value["label"],
            value["role"],
            tuple(
                StagedFile(folder / name, rows, types, None if span is None else (span[0], span[1]))
                for name, rows, types, span in value["files"]
            ),
            Ledger.from_dict(value["ledger"]),
            {code: tuple((place, shown) for place, shown in found) for code, found in value["examples"].items()},
            tuple(Finding(**{**item, "examples": tuple(item["examples"])}) for item in value["refusals"]),
        )


def column_types(pieces: Sequence[StagedPiece]) -> dict[str, pa.DataType]:
    """Return the one type of each staged column over all pieces.

    Raises
    ------
    DataError
        ``data.schema_mismatch`` (D09) for every column that has two, with the first file of each.
    """
    seen: dict[str, dict[str, str]] = {}
    for piece in pieces:
        for file in piece.files:
            for name, kind in file.types.items():
                seen.setdefault(name, {}).setdefault(kind, piece.label)
    problems, types = [], {}
    for name, kinds in seen.items():
        typed = {kind: label for kind, label in kinds.items() if "null" not in kind}
        untyped = "int64" if name.startswith(LABEL) else max(kinds, key=len)
        if len(typed) > 1:
            found = " and ".join(f"{_readable(kind)} in {label}" for kind, label in typed.items())
            fix = "deliver one type in all files"
            what = f"column {name.removeprefix(LABEL)!r} is {found}"
            problems.append(Finding("data.schema_mismatch", what, fix=fix))
        types[name] = _type(next(iter(typed), untyped))
    if problems:
        raise DataError(*problems)
    return types


def _readable(kind: str) -> str:
    return kind.replace("large_string", "text").replace("large_list", "list").replace("int64", "integer")


def _type(text: str) -> pa.DataType:
    if text.startswith("large_list<"):
        return pa.large_list(_type(text.removesuffix(">").split(": ")[-1]))
    return pa.null() if text == "null" else pa.type_for_alias(text)


def read_staged(
    file: StagedFile, types: Mapping[str, pa.DataType], names: Sequence[str] | None = None
) -> Iterator[pa.RecordBatch]:
    """Yield a staged file's batches with every column in its type over all pieces."""
    for batch in read_batches(file.path, names):
        columns: dict[str, Any] = {}
        for name in batch.schema.names:
            array, kind = batch.column(name), types[name]
            if array.type != kind:
                absent = _absent_id(name, kind) if pa.types.is_null(array.type) else None
                array = array.cast(kind) if absent is None else pa.repeat(pa.scalar(absent, kind), len(array))
            columns[name] = array
        yield pa.RecordBatch.from_pydict(columns)


def _absent_id(name: str, kind: pa.DataType) -> str | int | None:
    if name.removeprefix(LABEL) not in ID_ROLES or not name.startswith(LABEL):
        return None
    return NO_ID if pa.types.is_int64(kind) else ""


def staged_labels(batch: pa.RecordBatch | pa.Table) -> Labels:
    """Return the labels of staged rows."""
    if isinstance(batch, pa.Table):
        batch = pa.RecordBatch.from_pydict({name: column(batch, name) for name in batch.schema.names})
    labels = labels_from_arrow(batch)
    assert labels is not None
    return labels
