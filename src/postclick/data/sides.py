"""Tables that rows are joined with: turned to columns once, a piece at a time, then shared by all from disk."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from postclick.data.fingerprint import FileMark, check_unchanged
from postclick.data.partial import Marker
from postclick.data.sources.base import JoinedSource, Piece

__all__ = ["SideTask", "join_sides", "stage_side"]


@dataclass(frozen=True)
class SideTask:
    """One piece of a table; survives pickling.

    Parameters
    ----------
    source
        Reads the piece.
    piece
        What to read.
    target
        The file to write.
    marker
        Sign that it is written.
    marks
        What the table's file looked like when the work was planned.
    """

    source: JoinedSource
    piece: Piece
    target: Path
    marker: Marker
    marks: tuple[FileMark, ...]


def stage_side(task: SideTask) -> int:
    """Write one piece of a table as columns, or find it done already; returns 0, as no row of the log was read."""
    if task.marker.read() is None or not task.target.is_file():
        task.marker.clear()
        task.target.unlink(missing_ok=True)
        check_unchanged(task.marks)
        task.source.stage_side(task.piece, task.target)
        check_unchanged(task.marks)
        task.marker.write({})
    return 0


def join_sides(source: JoinedSource, tasks: Sequence[SideTask], folder: Path) -> JoinedSource:
    """Return the source with its tables put together in `folder`."""
    parts: dict[str, list[Path]] = {}
    for task in tasks:
        assert task.piece.path is not None
        parts.setdefault(task.piece.path, []).append(task.target)
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir()
    return source.with_sides(parts, folder)
