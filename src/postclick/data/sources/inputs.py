"""What a caller hands over as raw data, by role: paths, globs, folders, frames, tables, dicts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from postclick.data.sources.base import SplitRole
from postclick.errors import Finding, InputMissingError
from postclick.files import MANIFEST, read_manifest
from postclick.schema.sampling import absent, glob_base, memory_table, raw_files, raw_format

__all__ = ["Inputs", "RawFile", "as_items", "only_paths", "raw_inputs"]


@dataclass(frozen=True)
class Inputs:
    """Raw data by role; `src` is one body of rows that is then split.

    Parameters
    ----------
    src, train, valid, test
        Paths, globs, folders, frames, tables or dicts of arrays.
    """

    src: tuple[Any, ...] = ()
    train: tuple[Any, ...] = ()
    valid: tuple[Any, ...] = ()
    test: tuple[Any, ...] = ()

    def by_role(self) -> Iterator[tuple[SplitRole | None, Any]]:
        """Yield (role, item), rows without a role first."""
        yield from ((None, item) for item in self.src)
        yield from (("train", item) for item in self.train)
        yield from (("valid", item) for item in self.valid)
        yield from (("test", item) for item in self.test)

    @property
    def has_roles(self) -> bool:
        """Whether the caller gave splits."""
        return bool(self.train or self.valid or self.test)


@dataclass(frozen=True)
class RawFile:
    """One file, or one table in memory.

    Parameters
    ----------
    label
        The name for people: relative to the folder or pattern that was given, so it holds no absolute path.
    role
        Its split, or None.
    path
        Where it is; None for a table.
    table
        The data in memory (an Arrow table); None for a file.
    """

    label: str
    role: SplitRole | None
    path: Path | None = None
    table: Any = None


def as_items(value: Any) -> tuple[Any, ...]:
    """Return one input or several as a tuple: a list or tuple is several, everything else one."""
    if value is None:
        return ()
    return tuple(value) if isinstance(value, list | tuple) else (value,)


def raw_inputs(inputs: Inputs) -> list[RawFile]:
    """Return every file and table of the inputs, in a reproducible order, with labels that differ.

    Raises
    ------
    InputMissingError
        Every input that is missing or of the wrong kind, in one message.
    """
    found: list[RawFile] = []
    problems: list[Finding] = []
    for role, item in inputs.by_role():
        try:
            found += _expand(role, item)
        except InputMissingError as error:
            problems.extend(error.findings)
    if problems:
        raise InputMissingError(*problems)
    if not found:
        raise InputMissingError(Finding("input.missing", "no input given", fix="pass files, a folder or a frame"))
    return _distinct(found)


def only_paths(inputs: Inputs, source: str) -> list[tuple[SplitRole | None, Path]]:
    """Return (role, path) for a source that reads files alone; all that are missing or in memory reported together."""
    problems: list[Finding] = []
    pairs: list[tuple[SplitRole | None, Path]] = []
    for role, item in inputs.by_role():
        if not isinstance(item, str | Path):
            what = f"the source {source} reads files, got {type(item).__name__}"
            problems.append(Finding("input.wrong_kind", what, fix="pass a folder or a file"))
        elif not Path(item).exists():
            problems.append(absent(Path(item)))
        else:
            pairs.append((role, Path(item)))
    if problems or not pairs:
        raise InputMissingError(*(problems or [Finding("input.missing", "no input given", fix="pass a folder")]))
    return pairs


def _expand(role: SplitRole | None, item: Any) -> list[RawFile]:
    if isinstance(item, str | Path):
        return _files(role, Path(item))
    return [RawFile("in memory", role, table=memory_table(item))]


def _files(role: SplitRole | None, path: Path) -> list[RawFile]:
    if (path / MANIFEST).is_file() and (kind := read_manifest(path).kind) != "world":
        what = f"expected raw data, found a {kind} folder"
        raise InputMissingError(
            Finding("input.wrong_kind", what, str(path), fix="pass a WORLD, files or a folder of files")
        )
    files = raw_files(path)
    if path.is_dir():
        base = path / "exposures" if (path / "exposures").is_dir() else path
    elif path.is_file():
        base = path.parent
    else:
        base = glob_base(path)
    return [RawFile(file.relative_to(base).as_posix(), role, file) for file in files]


def _distinct(files: Sequence[RawFile]) -> list[RawFile]:
    """Give equal labels their role or a number, so that a place in a message or ledger is one place."""
    taken: dict[str, int] = {}
    named = []
    for file in files:
        label = file.label
        if label in taken and file.role is not None:
            label = f"{file.role}/{label}"
        if label in taken:
            label = f"{label} #{taken[label] + 1}"
        taken[file.label] = taken.get(file.label, 0) + 1
        taken.setdefault(label, 1)
        named.append(RawFile(label, file.role, file.path, file.table))
    return named


def is_csv(file: RawFile) -> bool:
    """Whether the file's ending says CSV."""
    return file.path is not None and raw_format(file.path) == "csv"
