"""The folder that long work fills: claimed before its lock is taken, emptied under it, never taken from others."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from postclick import files
from postclick.errors import ExitCode, Finding, StorageError

__all__ = ["claim", "make_room"]

_LOCK = ".lock"


def claim(folder: Path, marker: str, kind: str, *, apart: Collection[str] = (), vacant: bool = False) -> None:
    """Make the folder, or refuse one that is somebody else's: it is never written to, not even a lock.

    Parameters
    ----------
    folder
        Ours where it is not there, is empty, or holds `marker`.
    marker
        The file or folder that work of this kind begins with.
    kind
        What the folder is called in the refusal.
    apart
        Names that do not count as content.
    vacant
        Refuse ours, too, unless it is empty; `make_room` asks again under the lock.

    Raises
    ------
    StorageError
        ``io.exists``: somebody else's, or taken; ``io.cannot_create``: it cannot be made or read.
    """
    try:
        content = _content(folder, apart) if folder.is_dir() else set()
        foreign = (folder.exists() and not folder.is_dir()) or (bool(content) and marker not in content)
        if not (foreign or (vacant and content)):
            folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        fix = "choose a folder that exists and can be written"
        finding = Finding("io.cannot_create", str(error), str(folder), fix=fix)
        raise StorageError(finding, exit_code=ExitCode.CANNOT_CREATE) from error
    if foreign:
        finding = Finding("io.exists", f"not {kind}, so it is not touched", str(folder), fix="choose another --out")
        raise StorageError(finding, exit_code=ExitCode.CANNOT_CREATE)
    if vacant and content:
        raise _taken(folder)


def make_room(folder: Path, *, force: bool, marker: str = "", apart: Collection[str] = ()) -> None:
    """Refuse what is there, or remove it but for `apart`; for who holds the lock, so that nobody works on it.

    Raises
    ------
    StorageError
        ``io.exists``: there is something, and `force` is off.
    """
    content = _content(folder, apart)
    if content and not force:
        raise _taken(folder)
    # cut off in between, it must not look complete, and must still be known as ours
    first, last = content & {files.MANIFEST}, content & {marker}
    for name in (*first, *sorted(content - first - last), *last):
        files.discard(folder / name)


def _taken(folder: Path) -> StorageError:
    fix = "go on with --resume, choose another --out, or replace it with --force"
    finding = Finding("io.exists", "the output exists already", str(folder), fix=fix)
    return StorageError(finding, exit_code=ExitCode.CANNOT_CREATE)


def _content(folder: Path, apart: Collection[str]) -> set[str]:
    """Return the names that count: neither the lock nor what a process killed in its first moment left."""
    left = {_LOCK, *apart, *(path.name for path in files.leftovers(folder))}
    return {entry.name for entry in folder.iterdir()} - left
