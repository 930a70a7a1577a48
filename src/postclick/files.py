"""The only writer: atomic files and folders, locks, hashes, manifests.

Every byte that postclick leaves on disk goes through `create` (one file, atomically) or `new_folder` (a folder,
atomically). Both write beside the target, flush to disk and rename, so a reader sees the old state or the new
one, never half. The `Operations` object is the seam where tests plant a full disk or a failing rename, and where
remote paths can enter later.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from postclick.errors import DataError, ExitCode, Finding, InputMissingError, LockedError, StorageError

__all__ = [
    "FORMAT",
    "MANIFEST",
    "RECORD",
    "Manifest",
    "Operations",
    "append_json_line",
    "check_free",
    "create",
    "discard",
    "identity",
    "leftovers",
    "lock",
    "new_folder",
    "operations",
    "read_json",
    "read_manifest",
    "sha256",
    "swap_operations",
    "sweep",
    "verify",
    "write_bytes",
    "write_json",
    "write_manifest",
    "write_text",
]

MANIFEST = "manifest.json"
RECORD = "record.jsonl"
FORMAT = 1
_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_LEFTOVER = re.compile(r"\..+\.(\d+\.(tmp|old)|[^.]+\.partial)")
_CANNOT_CREATE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST}


class Operations:
    """The system calls that change a disk; tests replace it to fail the n-th one."""

    def open(self, path: Path, mode: str, permissions: int = 0o666) -> IO[Any]:
        """Open a file for writing; `permissions` are further limited by the process's umask."""
        descriptor = os.open(path, _FLAGS[mode], permissions)
        return os.fdopen(descriptor, mode)

    def sync(self, handle: IO[Any]) -> None:
        """Flush `handle` to the disk."""
        handle.flush()
        os.fsync(handle.fileno())

    def sync_folder(self, path: Path) -> None:
        """Flush a folder entry to the disk."""
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def rename(self, source: Path, target: Path) -> None:
        """Rename atomically, replacing `target`."""
        source.replace(target)


_FLAGS = {"wb": os.O_WRONLY | os.O_CREAT | os.O_TRUNC, "ab": os.O_WRONLY | os.O_CREAT | os.O_APPEND}
operations = Operations()


@contextlib.contextmanager
def swap_operations(replacement: Operations) -> Iterator[None]:
    """Use `replacement` for every write inside the block (fault injection)."""
    global operations  # noqa: PLW0603 - the one seam, replaced by tests only
    before, operations = operations, replacement
    try:
        yield
    finally:
        operations = before


@contextlib.contextmanager
def _typed(path: Path) -> Iterator[None]:
    """Turn an OSError into a StorageError that names the path and the fix."""
    try:
        yield
    except OSError as error:
        code, fix, exit_code = "io.failed", "check the disk, then run again", ExitCode.IO
        if error.errno in _NO_SPACE:
            code, fix = "io.no_space", "free space on this disk, then run again with --resume"
        elif error.errno in _CANNOT_CREATE:
            code, exit_code = "io.cannot_create", ExitCode.CANNOT_CREATE
            fix = "choose a folder that exists and can be written"
        raise StorageError(Finding(code, str(error), str(path), fix=fix), exit_code=exit_code) from error


@contextlib.contextmanager
def create(path: Path, *, private: bool = False) -> Iterator[IO[bytes]]:
    """Write one file atomically: yields a binary handle; on success the file appears whole, else not at all.

    Parameters
    ----------
    path
        The file that shall appear.
    private
        Readable by its owner alone (checkpoints hold the training data's ids).
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with _typed(path):
        handle = operations.open(temporary, "wb", 0o600 if private else 0o666)
        try:
            with handle:
                yield handle
                operations.sync(handle)
            operations.rename(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        operations.sync_folder(path.parent)


def write_bytes(path: Path, data: bytes, *, private: bool = False) -> None:
    """Write `data` to `path` atomically."""
    with create(path, private=private) as handle:
        handle.write(data)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` atomically as UTF-8."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: object) -> None:
    """Write `value` as canonical JSON: sorted keys, no NaN, newline at the end; equal values give equal bytes."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n")


def append_json_line(path: Path, value: object) -> None:
    """Append one JSON line in a single write and flush it to disk; a line that fails half-way is taken back."""
    line = (json.dumps(value, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n").encode("utf-8")
    with _typed(path):
        size = path.stat().st_size if path.exists() else 0
        try:
            with operations.open(path, "ab") as handle:
                handle.write(line)
                operations.sync(handle)
        except OSError:
            with contextlib.suppress(OSError):
                os.truncate(path, size)
            raise


def read_json(path: Path) -> Any:
    """Read a JSON file; a missing or malformed one is a typed error that names it."""
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise InputMissingError(Finding("input.missing", "no such file", str(path))) from error
    except ValueError as error:
        raise DataError(Finding("data.corrupt_file", f"not valid JSON ({error})", str(path))) from error


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as handle:
        while chunk := handle.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


@dataclass(frozen=True)
class Manifest:
    """What a folder is and which bytes it vouches for.

    Parameters
    ----------
    kind
        ``world``, ``log``, ``run``, ``bundle`` or ``benchmark``.
    files
        Relative path -> (SHA-256, bytes), sorted.
    hash
        SHA-256 over kind, format and files: the identity of the folder's content.
    format
        Version of the folder's layout.
    """

    kind: str
    files: Mapping[str, tuple[str, int]]
    hash: str
    format: int = FORMAT


def identity(kind: str, files: Mapping[str, tuple[str, int]], version: int = FORMAT) -> str:
    """Return the hash of a folder's content from its kind, format and files."""
    text = json.dumps([kind, version, [[name, *files[name]] for name in sorted(files)]])
    return hashlib.sha256(text.encode()).hexdigest()


def write_manifest(folder: Path, kind: str, *, exclude: Callable[[str], bool] = lambda _: False) -> Manifest:
    """Hash every file below `folder` (but `record.jsonl`, dot files and those `exclude`d) and write `manifest.json`."""
    files: dict[str, tuple[str, int]] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        hidden = any(part.startswith(".") for part in name.split("/"))
        if path.is_file() and not hidden and path.name not in {RECORD} and name != MANIFEST and not exclude(name):
            files[name] = (sha256(path), path.stat().st_size)
    manifest = Manifest(kind, files, identity(kind, files, FORMAT))
    body = {
        "kind": kind,
        "format": FORMAT,
        "hash": manifest.hash,
        "files": {name: {"sha256": digest, "bytes": size} for name, (digest, size) in files.items()},
    }
    write_json(folder / MANIFEST, body)
    return manifest


def read_manifest(folder: Path, *kinds: str) -> Manifest:
    """Read a folder's manifest; when `kinds` are given, another kind is an error that names what was found."""
    if not folder.exists():
        raise InputMissingError(Finding("input.missing", "no such file or folder", str(folder), fix="check the path"))
    if not (folder / MANIFEST).is_file():
        what = f"expected a {' or '.join(kinds) or 'postclick'} folder, found one without {MANIFEST}"
        fix = "pass the folder that postclick wrote"
        raise InputMissingError(Finding("input.wrong_kind", what, str(folder), fix=fix))
    body = read_json(folder / MANIFEST)
    try:
        files = {name: (entry["sha256"], int(entry["bytes"])) for name, entry in body["files"].items()}
        manifest = Manifest(body["kind"], files, body["hash"], int(body["format"]))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(Finding("data.corrupt_file", f"not a manifest ({error!r})", str(folder / MANIFEST))) from error
    if kinds and manifest.kind not in kinds:
        what = f"expected a {' or '.join(kinds)} folder, found a {manifest.kind} folder"
        raise InputMissingError(
            Finding("input.wrong_kind", what, str(folder), fix=f"pass a {' or '.join(kinds)} folder")
        )
    return manifest


def verify(folder: Path, manifest: Manifest) -> None:
    """Compare every file with the manifest; missing, altered and extra files are reported together."""
    problems = []
    for name, (digest, size) in manifest.files.items():
        path = folder / name
        if not path.is_file() or path.is_symlink():
            problems.append(Finding("data.corrupt_file", "listed in the manifest but missing", str(path)))
        elif path.stat().st_size != size or sha256(path) != digest:
            problems.append(Finding("data.corrupt_file", "differs from the manifest's SHA-256", str(path)))
    if manifest.hash != identity(manifest.kind, manifest.files, manifest.format):
        problems.append(Finding("data.corrupt_file", "the manifest's own hash does not fit its entries", str(folder)))
    if problems:
        raise DataError(*problems)


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _discard(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def discard(path: Path) -> None:
    """Remove a file or folder that a reader may see: it loses its name in one step, then its content."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.old")
    with _typed(path):
        operations.rename(path, aside)
        _discard(aside)


def leftovers(folder: Path) -> list[Path]:
    """Return what a killed process left half-made in `folder`: hidden files and folders with the names used here."""
    return sorted(path for path in folder.glob(".*") if _LEFTOVER.fullmatch(path.name))


def sweep(folder: Path) -> None:
    """Remove the leftovers of killed processes; only for who holds the folder's lock, or they might be in use."""
    with _typed(folder):
        for path in leftovers(folder):
            _discard(path)


def check_free(path: Path, *, force: bool) -> None:
    """Refuse an output that exists, unless `force`; a folder that postclick did not write is never replaced."""
    with _typed(path):
        taken, foreign = path.exists(), path.is_dir() and not _is_ours(path)
        if not taken or (foreign and not any(path.iterdir())) or (force and not foreign):
            return
    what, fix = "the output exists already", "choose another --out, or replace it with --force"
    if foreign:
        what, fix = "not a postclick folder, so it is not replaced", "choose another --out"
    raise StorageError(Finding("io.exists", what, str(path), fix=fix), exit_code=ExitCode.CANNOT_CREATE)


def _is_ours(folder: Path) -> bool:
    with contextlib.suppress(DataError, InputMissingError):
        return bool(read_manifest(folder))
    return False


@contextlib.contextmanager
def new_folder(path: Path, kind: str, *, force: bool = False) -> Iterator[Path]:
    """Build a folder atomically: yields a scratch folder beside `path`; on success it gets its manifest and its name.

    Parameters
    ----------
    path
        Where the folder shall appear.
    kind
        Its kind, written to the manifest.
    force
        Replace an existing folder that postclick wrote.

    Raises
    ------
    StorageError
        When `path` exists and `force` is off or it is not ours (exit 73), or the disk fails (exit 73 or 74).
    """
    check_free(path, force=force and not path.is_file())
    with _typed(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent))
        scratch.chmod(0o777 & ~_umask())
    try:
        yield scratch
        write_manifest(scratch, kind)
        with _typed(path):
            _replace_folder(scratch, path)
    finally:
        if scratch.exists():
            _discard(scratch)


def _replace_folder(scratch: Path, path: Path) -> None:
    """Put `scratch` in the place of `path`; an old folder is moved aside first and removed last."""
    aside = None
    if path.exists() or path.is_symlink():
        aside = path.with_name(f".{path.name}.{os.getpid()}.old")
        operations.rename(path, aside)
    try:
        operations.rename(scratch, path)
    except BaseException:
        if aside is not None:
            aside.replace(path)
        raise
    operations.sync_folder(path.parent)
    if aside is not None:
        _discard(aside)


@contextlib.contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Hold `folder` for one process; a second one is refused with the holder's pid, host and start time."""
    import fcntl

    path = folder / ".lock"
    with _typed(path):
        handle = path.open("a+b")
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            handle.seek(0)
            holder = handle.read(200).decode("utf-8", "replace").strip()
            what = f"another process works on this folder ({holder})"
            raise LockedError(Finding("lock.held", what, str(folder), fix="wait for it, or stop it")) from error
        handle.seek(0)
        handle.truncate()
        handle.write(f"pid {os.getpid()} on {socket.gethostname()} since {time.strftime('%FT%T')}".encode())
        handle.flush()
        yield
