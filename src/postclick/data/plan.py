"""What a preparation is going to read and how: known before the first row is read, and recognised again later."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from postclick import files
from postclick.data.fingerprint import FileMark, marks_of
from postclick.data.options import PrepareOptions
from postclick.data.partial import NEVER, digest, folder_digest
from postclick.data.sources.base import JoinedSource, Piece, Source
from postclick.data.split import SplitKind, choose_split
from postclick.errors import Finding, InputMissingError
from postclick.execution import processes

__all__ = ["Plan", "vocabulary_folder"]


@dataclass(frozen=True)
class Plan:
    """The pieces of work of one preparation.

    Parameters
    ----------
    source
        Reads the rows.
    options
        How to prepare.
    kind
        How rows are split.
    pieces, sides
        Of the rows, and of the tables that they are joined with.
    marks
        Path -> what the file looked like when this was planned.
    """

    source: Source
    options: PrepareOptions
    kind: SplitKind
    pieces: list[Piece]
    sides: list[Piece]
    marks: Mapping[str, FileMark]

    @classmethod
    def of(cls, source: Source, options: PrepareOptions) -> Plan:
        """Look at the source.

        Raises
        ------
        ConfigError
            ``config.split`` where the rows cannot be split so.
        InputMissingError
            ``input.missing`` where a file is gone.
        """
        pieces = source.pieces()
        sides = source.side_pieces() if isinstance(source, JoinedSource) else []
        kind = choose_split(options.split, [piece.role for piece in pieces], source.schema)
        return cls(source, options, kind, pieces, sides, marks_of(p for item in (*pieces, *sides) for p in item.paths))

    @property
    def in_memory(self) -> bool:
        """Whether there are rows that no file holds."""
        return any(piece.path is None for piece in self.pieces)

    @property
    def jobs(self) -> int:
        """How many processes pay; rows in memory would have to be sent to each, so they are encoded here."""
        if self.in_memory:
            return 1
        return min(processes(sum(mark.size for mark in self.marks.values())), len(self.pieces))

    def fingerprint(self, piece: Piece, *more: object) -> str:
        """Return the hash of all that decides what staging `piece` gives; rows in memory are never recognised."""
        if self.in_memory:
            return NEVER
        rules = [version("postclick"), self.source.schema.to_toml(), self.options.orphan_conversions]
        what = [piece.label, piece.role, piece.index, repr(piece.payload), *more]
        return digest(rules, repr(self.source), what, [self.marks[path].key for path in piece.paths])

    def files_of(self, piece: Piece) -> tuple[FileMark, ...]:
        """Return what the files of `piece` looked like."""
        return tuple(self.marks[path] for path in piece.paths)

    def whole(self, truth: Path | None) -> str:
        """Return the hash of all that decides what the log will be."""
        if self.in_memory:
            return NEVER
        start = None if self.options.vocabulary is None else folder_digest(vocabulary_folder(self.options.vocabulary))
        settings = {**asdict(self.options), "vocabulary": start}
        pieces = [self.fingerprint(piece) for piece in (*self.pieces, *self.sides)]
        return digest(pieces, settings, self.kind, None if truth is None else FileMark.of(str(truth)).key)

    def made(self, out: Path, truth: Path | None) -> bool:
        """Whether `out` is the log that this plan makes: its last record says so."""
        record = out / files.RECORD
        if not record.is_file() or not (out / files.MANIFEST).is_file():
            return False
        found = json.loads(record.read_text("utf-8").splitlines()[-1])
        whole = self.whole(truth)
        return whole != NEVER and found.get("plan") == whole


def vocabulary_folder(path: Path) -> Path:
    """Return where the vocabulary of a LOG, RUN or BUNDLE is.

    Raises
    ------
    InputMissingError
        ``input.wrong_kind`` where there is none.
    """
    for folder in (path / "vocabulary", path / "bundle" / "vocabulary"):
        if folder.is_dir():
            return folder
    fix = "pass a LOG, RUN or BUNDLE"
    raise InputMissingError(Finding("input.wrong_kind", "there is no vocabulary here", str(path), fix=fix))
