"""Whether a file is still the one that was planned with: its size, its time of change and a hash of both its ends."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import astuple, dataclass
from pathlib import Path

from postclick.errors import DataError, Finding, InputMissingError

__all__ = ["FileMark", "check_unchanged", "marks_of"]

_EDGE = 64 << 10


@dataclass(frozen=True)
class FileMark:
    """What a file looked like.

    Parameters
    ----------
    path
        Where it is.
    size, changed_ns
        Bytes, and the time of its last change in nanoseconds.
    edges
        SHA-256 of its first and last 64 KB: a file that was copied over another of the same size and time differs here.
    """

    path: str
    size: int
    changed_ns: int
    edges: str

    @classmethod
    def of(cls, path: str) -> FileMark:
        """Look at a file.

        Raises
        ------
        InputMissingError
            ``input.missing`` where it cannot be read.
        """
        try:
            with Path(path).open("rb") as handle:
                head = handle.read(_EDGE)
                size = handle.seek(0, 2)
                handle.seek(max(0, size - _EDGE))
                edges = hashlib.sha256(head + handle.read(_EDGE)).hexdigest()
            return cls(path, size, Path(path).stat().st_mtime_ns, edges)
        except OSError as error:
            raise InputMissingError(Finding("input.missing", str(error), path, fix="check the path")) from error

    @property
    def key(self) -> tuple[object, ...]:
        """What two looks at the same content have in common."""
        return astuple(self)


def marks_of(paths: Iterable[str]) -> dict[str, FileMark]:
    """Look at each file once."""
    return {path: FileMark.of(path) for path in dict.fromkeys(paths)}


def check_unchanged(marks: Iterable[FileMark]) -> None:
    """Refuse files that are no longer what they were when the work was planned (D08).

    Raises
    ------
    DataError
        ``data.changed_underfoot``, all of them together.
    """
    problems = []
    for mark in marks:
        try:
            found = Path(mark.path).stat()
        except OSError:
            problems.append(_changed(mark, "it is gone"))
            continue
        if found.st_size != mark.size:
            problems.append(_changed(mark, f"{mark.size:,} bytes when it was planned, now {found.st_size:,}"))
        elif found.st_mtime_ns != mark.changed_ns:
            problems.append(_changed(mark, "it was written again"))
        elif FileMark.of(mark.path).edges != mark.edges:
            problems.append(_changed(mark, "its size and time are the same, its bytes are not"))
    if problems:
        raise DataError(*problems)


def _changed(mark: FileMark, what: str) -> Finding:
    fix = "let whatever writes it finish, then run again with --resume: files that did not change are not read again"
    return Finding("data.changed_underfoot", f"a file changed while it was read: {what}", Path(mark.path).name, fix=fix)
