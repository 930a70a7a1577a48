"""``.LOG.partial``: what a preparation has done so far, beside the log that it becomes; one process at a time.

Each piece of work leaves its result and then a marker with a fingerprint of all that went into it. A later run with
``--resume`` takes what has the fingerprint that it would give itself, and does the rest again, so nothing of another
input, schema or option is ever mixed in.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from postclick import files
from postclick.data.log import SPLITS
from postclick.errors import DataError, ExitCode, Finding, InputMissingError, PostclickError, StorageError

__all__ = ["NEVER", "Marker", "PartialLog", "digest", "folder_digest", "open_partial", "partial_folder", "place"]

NEVER = ""
"""The fingerprint of work that cannot be recognised again (rows in memory)."""
_OURS = "prepare.json"
_LOCK = ".lock"
_RESUMABLE = {"data.corrupt_file", "data.changed_underfoot", "data.worker_lost"}


def digest(*parts: Any) -> str:
    """Return the SHA-256 of plain values."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def folder_digest(folder: Path) -> str:
    """Return a hash of the names and bytes of a folder's files."""
    return digest([[path.name, files.sha256(path)] for path in sorted(folder.iterdir()) if path.name[0] != "."])


@dataclass(frozen=True)
class Marker:
    """The sign that a piece of work is done; survives pickling.

    Parameters
    ----------
    path
        The marker's file.
    fingerprint
        Of all that the result depends on; `NEVER` is never found again.
    """

    path: Path
    fingerprint: str

    def read(self) -> Any | None:
        """Return the body that `write` left, or None where there is none or it is of other work."""
        if self.fingerprint == NEVER or not self.path.is_file():
            return None
        try:
            found = files.read_json(self.path)
        except DataError:
            return None
        return found["body"] if found["fingerprint"] == self.fingerprint else None

    def write(self, body: Any) -> None:
        """Say that the work is done, with what it gave."""
        # the order of names is kept: an audit lists features in the order in which they were counted
        files.write_text(self.path, json.dumps({"fingerprint": self.fingerprint, "body": body}) + "\n")

    def clear(self) -> None:
        """Take the sign back before the work is done again."""
        self.path.unlink(missing_ok=True)


@dataclass(frozen=True)
class PartialLog:
    """The folders of a preparation.

    Parameters
    ----------
    root
        ``.LOG.partial``.
    resumed
        Whether an earlier run's work was found and may be used.
    """

    root: Path
    resumed: bool = False

    @property
    def staged(self) -> Path:
        """Rows as columns, their markers, and ``rejects``."""
        return self.root / "staged"

    @property
    def sides(self) -> Path:
        """Tables that rows are joined with, as columns."""
        return self.root / "sides"

    @property
    def encoded(self) -> Path:
        """Markers of encoded pieces."""
        return self.root / "encoded"

    @property
    def log(self) -> Path:
        """The log under construction."""
        return self.root / "log"

    def make(self) -> None:
        """Create the folders that are not there, and take away what a killed process was writing."""
        files.write_json(self.root / _OURS, {"kind": "partial log", "format": 1})
        log = (self.log / name for name in (*SPLITS, "vocabulary"))
        for folder in (self.staged, self.staged / "rejects", self.sides, self.encoded, *log):
            folder.mkdir(parents=True, exist_ok=True)
            files.sweep(folder)

    def publish(self, folder: Path) -> None:
        """Put the finished files into `folder`, where they get their manifest; they stay here as well where possible.

        A run that is killed while the manifest is written has then lost nothing.
        """
        for path in sorted(path for path in self.log.rglob("*") if path.is_file()):
            target = folder / path.relative_to(self.log)
            target.parent.mkdir(exist_ok=True)
            place(path, target)

    def _has_work(self) -> bool:
        return any(self.staged.glob("*.json")) or any(self.sides.glob("*.json"))


def place(path: Path, target: Path) -> None:
    """Give a finished file a second name, or move it where the file system has no hard links."""
    try:
        target.hardlink_to(path)
    except OSError:
        files.operations.rename(path, target)


def partial_folder(out: Path) -> Path:
    """Return where the unfinished work on a log is."""
    return out.with_name(f".{out.name}.partial")


@contextlib.contextmanager
def open_partial(out: Path, *, resume: bool) -> Iterator[PartialLog]:
    """Hold the work folder of `out`: emptied first without `resume`; removed at the end unless going on makes sense.

    It stays after a full disk, an interruption, a damaged or changed input and a fault of the program; it goes with
    success and with an error in the data, which the same rows would give again.

    Raises
    ------
    LockedError
        ``lock.held`` (exit 75) where another process prepares the same log.
    StorageError
        ``io.exists`` where something else has the folder's name; ``io.cannot_create``.
    """
    root = partial_folder(out)
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        finding = Finding("io.cannot_create", str(error), str(root), fix="choose a folder that can be written")
        raise StorageError(finding, exit_code=ExitCode.CANNOT_CREATE) from error
    names = {path.name for path in root.iterdir()} - {_LOCK}
    if names and _OURS not in names:
        fix = "move it away: it has the name of the folder in which the log is made"
        finding = Finding("io.exists", "not a folder of a preparation, so it is not replaced", str(root), fix=fix)
        raise StorageError(finding, exit_code=ExitCode.CANNOT_CREATE)
    with files.lock(root):
        for path in out.parent.glob(f".{out.name}.*.partial"):  # of a run that was killed while it published
            if not (path / _LOCK).exists():  # else of a log with a longer name
                shutil.rmtree(path)
        if not resume:
            _empty(root)
        partial = PartialLog(root, resume and _OURS in names)
        partial.make()
        try:
            yield partial
        except BaseException as error:
            if not (_can_go_on(error) and partial._has_work()):
                shutil.rmtree(root)
            raise
        shutil.rmtree(root)


def _empty(root: Path) -> None:
    for path in root.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name not in (_LOCK, _OURS):
            path.unlink()


def _can_go_on(error: BaseException) -> bool:
    if isinstance(error, DataError | InputMissingError):
        return any(finding.code in _RESUMABLE for finding in error.findings)
    if isinstance(error, PostclickError):
        return isinstance(error, StorageError) or error.code in _RESUMABLE
    return True
