"""Read a folder from strangers: manifest first, every byte hashed as it is read, nothing parsed before it is listed.

What is refused, in this order: pickles and their containers (by name and by first bytes), a manifest that is none or
newer than we are, files that are missing, extra, altered, linked or not files, a folder out of all proportion.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from postclick import files
from postclick.errors import BundleError, ExitCode, Finding, InputMissingError, TrustError

__all__ = ["Contents", "parse_json", "read_contents"]

MAX_FILES = 1_024
"""One file a field of the vocabulary, and six more."""
MAX_JSON = 16 * 1024 * 1024
MAX_DEPTH = 32
_UNSAFE_SUFFIXES = {".pt", ".pth", ".pkl", ".pickle", ".joblib", ".bin", ".ckpt", ".npy", ".npz", ".dill", ".h5"}
_SNIFF = 16


@dataclass(frozen=True)
class Contents:
    """A bundle's files in memory.

    Parameters
    ----------
    path
        The bundle's folder (also where a RUN was given).
    files
        Name -> bytes, exactly those that the manifest vouches for.
    listed
        Name -> (SHA-256, bytes) of the same files.
    hash
        Identity of the content.
    """

    path: Path
    files: Mapping[str, bytes]
    listed: Mapping[str, tuple[str, int]]
    hash: str

    def json(self, name: str) -> Any:
        """Return a JSON file parsed."""
        return parse_json(self[name], name)

    def __getitem__(self, name: str) -> bytes:
        if name not in self.files:
            raise TrustError(Finding("bundle.malformed", f"a bundle needs {name}", str(self.path)))
        return self.files[name]


def parse_json(data: bytes, where: str) -> Any:
    """Parse JSON of bounded size and depth; anything else is ``bundle.malformed``."""
    try:
        if len(data) > MAX_JSON:
            raise ValueError(f"{len(data)} bytes, more than {MAX_JSON}")
        value = json.loads(data)
        if _depth(value) > MAX_DEPTH:
            raise ValueError(f"deeper than {MAX_DEPTH}")
    except (ValueError, RecursionError) as error:
        raise TrustError(Finding("bundle.malformed", f"not valid JSON ({error})", where)) from error
    return value


def _depth(value: Any) -> int:
    layer, depth = [value], 0
    while layer and depth <= MAX_DEPTH:
        nested: list[Any] = []
        for item in layer:
            if isinstance(item, dict):
                nested += item.values()
            elif isinstance(item, list):
                nested += item
        layer, depth = nested, depth + 1
    return depth


def read_contents(path: str | Path) -> Contents:
    """Read a BUNDLE, or the one inside a RUN.

    Raises
    ------
    InputMissingError
        Nothing there, or a folder of another kind (exit 66).
    TrustError
        ``bundle.unsafe_format``, ``bundle.tampered`` with the list of files, ``bundle.malformed`` (exit 77).
    BundleError
        ``bundle.version`` (exit 78).
    """
    path = Path(path)
    _refuse_unsafe(path)
    form = _manifest(path)
    if form.get("kind") == "run":
        path = path / "bundle"
        _refuse_unsafe(path)
        form = _manifest(path)
    if form.get("kind") != "bundle":
        what = f"expected a run or bundle folder, found a {form.get('kind')!r} folder"
        raise InputMissingError(Finding("input.wrong_kind", what, str(path), fix="pass a RUN or a BUNDLE"))
    if form.get("format") != files.FORMAT:
        what = f"this bundle's manifest has format {form.get('format')!r}, this postclick reads {files.FORMAT}"
        finding = Finding("bundle.version", what, str(path), fix="upgrade postclick")
        raise BundleError(finding, exit_code=ExitCode.CONFIG)
    listed = _listed(form)
    problems = _compare_names(path, set(listed))
    contents: dict[str, bytes] = {}
    if not problems:
        for name, (digest, size) in listed.items():
            data = _read_regular(path, name, size, problems)
            if data is not None and hashlib.sha256(data).hexdigest() != digest:
                problems.append(_tampered("differs from the manifest's SHA-256", name))
            elif data is not None:
                contents[name] = data
    if not problems and files.identity("bundle", listed) != form["hash"]:
        problems.append(_tampered("the manifest's own hash does not fit its entries", files.MANIFEST))
    if problems:
        raise TrustError(*problems)
    for name, data in contents.items():
        if _is_pickle_or_archive(data[:_SNIFF]):
            raise _unsafe(path / name)
    return Contents(path, contents, listed, form["hash"])


def _refuse_unsafe(path: Path) -> None:
    """Refuse a pickle, a torch or joblib file, or a folder that holds such files in place of a bundle."""
    if path.is_dir():
        if not (path / files.MANIFEST).exists():
            for entry in sorted(path.iterdir())[:MAX_FILES]:
                if entry.is_file() and _looks_unsafe(entry):
                    raise _unsafe(entry)
    elif path.is_file() and _looks_unsafe(path):
        raise _unsafe(path)


def _looks_unsafe(path: Path) -> bool:
    if path.suffix.lower() in _UNSAFE_SUFFIXES:
        return True
    with path.open("rb") as handle:
        return _is_pickle_or_archive(handle.read(_SNIFF))


def _is_pickle_or_archive(head: bytes) -> bool:
    """Tell a pickle, a zip or a compressed file by its first bytes; a safetensors file has ``{`` as its ninth."""
    if head[:4] == b"PK\x03\x04" or head[:2] == b"\x1f\x8b" or head[:6] == b"\x93NUMPY":
        return True
    return len(head) > 2 and head[0] == 0x80 and head[1] <= 5 and head[8:9] != b"{"


def _unsafe(path: Path) -> TrustError:
    fix = "pass a folder that `postclick train` wrote; pickles, .pt and .joblib files can run code and are never opened"
    return TrustError(
        Finding("bundle.unsafe_format", "not a bundle but a format that can run code", str(path), fix=fix)
    )


def _manifest(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise InputMissingError(Finding("input.missing", "no such file or folder", str(path), fix="check the path"))
    place = path / files.MANIFEST
    if not place.is_file() or place.is_symlink():
        what = f"expected a run or bundle folder, found one without {files.MANIFEST}"
        raise InputMissingError(Finding("input.wrong_kind", what, str(path), fix="pass a RUN or a BUNDLE"))
    with place.open("rb") as handle:
        data = handle.read(MAX_JSON + 1)
    form = parse_json(data, files.MANIFEST)
    if not isinstance(form, dict):
        raise TrustError(Finding("bundle.malformed", "not a manifest", files.MANIFEST))
    return form


def _listed(form: dict[str, Any]) -> dict[str, tuple[str, int]]:
    try:
        listed = {str(name): (str(item["sha256"]), int(item["bytes"])) for name, item in form["files"].items()}
        str(form["hash"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise TrustError(Finding("bundle.malformed", f"not a manifest ({error!r})", files.MANIFEST)) from error
    if len(listed) > MAX_FILES:
        what = f"{len(listed)} files, a bundle has at most {MAX_FILES}"
        raise TrustError(Finding("bundle.malformed", what, files.MANIFEST))
    return listed


def _tampered(what: str, where: str) -> Finding:
    return Finding("bundle.tampered", what, where, fix="get the bundle again from whoever wrote it")


def _compare_names(path: Path, listed: set[str]) -> list[Finding]:
    """Return a finding for each name that is outside the folder, missing, extra, a link or not a plain file."""
    problems = []
    for name in sorted(listed):
        pure = PurePosixPath(name)
        if pure.is_absolute() or ".." in pure.parts or "\\" in name or "\0" in name or pure.as_posix() != name:
            problems.append(_tampered("the manifest names a path outside the bundle", name))
    found: set[str] = set()
    for folder, folders, names in os.walk(path, followlinks=False):
        for entry in (*folders, *names):
            full = Path(folder) / entry
            name = full.relative_to(path).as_posix()
            mode = full.lstat().st_mode
            if stat.S_ISDIR(mode):
                continue
            found.add(name)
            if not stat.S_ISREG(mode):
                problems.append(_tampered("a link or a special file", name))
    problems += [_tampered("listed in the manifest but missing", name) for name in sorted(listed - found)]
    extra = sorted(found - listed - {files.MANIFEST})
    return problems + [_tampered("not listed in the manifest", name) for name in extra]


def _read_regular(path: Path, name: str, size: int, problems: list[Finding]) -> bytes | None:
    """Read one file once, without following a link that took its place meanwhile; never more than it should hold."""
    try:
        descriptor = os.open(path / name, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
        with os.fdopen(descriptor, "rb") as handle:
            fits = os.fstat(descriptor).st_size == size
            data = handle.read(size) if fits else b""
    except OSError as error:
        problems.append(_tampered(f"cannot be read ({error.strerror})", name))
        return None
    if len(data) != size:
        problems.append(_tampered("differs in length from the manifest", name))
        return None
    return data
