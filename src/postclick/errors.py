"""The exception tree: what can go wrong, with a stable code, a process exit code and the fix.

The text of an error is ``CODE what happened | where | how many | first examples | what to do``;
parts that do not apply are left out. Several findings of one pass travel together in one exception.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from difflib import get_close_matches
from enum import IntEnum

__all__ = [
    "BundleError",
    "ConfigError",
    "DataError",
    "ExitCode",
    "Finding",
    "InputMissingError",
    "LockedError",
    "NotFittedError",
    "PostclickError",
    "RequestError",
    "SchemaError",
    "StorageError",
    "TrainingError",
    "TrustError",
    "UsageError",
    "escaped",
    "nearest",
    "printable",
    "unforeseen",
]


class ExitCode(IntEnum):
    """Process exit codes (sysexits)."""

    OK = 0
    USAGE = 64
    DATA = 65
    INPUT_MISSING = 66
    INTERNAL = 70
    CANNOT_CREATE = 73
    IO = 74
    TEMPORARY = 75
    TRUST = 77
    CONFIG = 78
    INTERRUPTED = 130
    TERMINATED = 143


def escaped(text: str, keep: str = "") -> str:
    r"""Return text with control, bidirectional and other invisible characters as ``\uXXXX``, those in `keep` apart.

    The form is an escape of JSON and of TOML too, so what was inside a quoted string there still means the same.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char in keep else _escape(ord(char)) for char in text)


def _escape(point: int) -> str:
    return f"\\u{point:04x}" if point < 0x10000 else f"\\U{point:08x}"


def printable(value: object, limit: int = 40) -> str:
    """Return `value` as text that is safe in a terminal: control and bidirectional marks escaped, length capped."""
    text = str(value)
    head = text[:limit]
    safe = "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in head)
    return safe + ("..." if len(text) > limit else "")


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Return the likely spelling of `word` among `known`, or None."""
    matches = get_close_matches(word, list(known), n=1, cutoff=0.6)
    return matches[0] if matches else None


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Parameters
    ----------
    code
        Stable machine name, for instance ``data.label_missing``.
    what
        What happened, in words.
    where
        ``file:rowgroup:row:column`` or a JSON or TOML path.
    count
        How many times.
    examples
        The first few offending values.
    fix
        What to do next.
    """

    code: str
    what: str
    where: str = ""
    count: int | None = None
    examples: tuple[str, ...] = field(default=())
    fix: str = ""

    def __str__(self) -> str:
        parts = [f"{self.code} {escaped(self.what)}"]
        if self.where:
            parts.append(printable(self.where, 200))
        if self.count is not None:
            parts.append(f"{self.count} time{'s' if self.count != 1 else ''}")
        if self.examples:
            parts.append("for example " + ", ".join(printable(example) for example in self.examples[:5]))
        if self.fix:
            parts.append(escaped(self.fix))
        return " | ".join(parts)


class PostclickError(Exception):
    """Root of the tree. `findings` are all problems of one pass, the first decides code and exit code."""

    exit_code: ExitCode = ExitCode.INTERNAL

    def __init__(self, *findings: Finding, exit_code: ExitCode | None = None) -> None:
        self.findings = findings
        if exit_code is not None:
            self.exit_code = exit_code
        super().__init__("\n".join(str(finding) for finding in findings))

    def __reduce__(self) -> tuple[object, ...]:
        """Survive the trip from a worker process."""
        return (_rebuild, (type(self), self.findings, self.exit_code))

    @property
    def code(self) -> str:
        """The stable code of the first finding."""
        return self.findings[0].code if self.findings else "internal"


def _rebuild(kind: type[PostclickError], findings: tuple[Finding, ...], exit_code: ExitCode) -> PostclickError:
    return kind(*findings, exit_code=exit_code)


class UsageError(PostclickError):
    """The command or call was put wrongly."""

    exit_code = ExitCode.USAGE


class DataError(PostclickError):
    """The data is not what it must be."""

    exit_code = ExitCode.DATA


class InputMissingError(PostclickError):
    """An input is not there, is empty, or is a folder of another kind."""

    exit_code = ExitCode.INPUT_MISSING


class SchemaError(PostclickError):
    """A schema is wrong in itself."""

    exit_code = ExitCode.CONFIG


class ConfigError(PostclickError):
    """An argument, a configuration key or a combination of them is wrong."""

    exit_code = ExitCode.CONFIG


class TrainingError(PostclickError):
    """Training cannot go on."""


class BundleError(PostclickError):
    """A bundle cannot be read or does not fit."""

    exit_code = ExitCode.DATA


class StorageError(PostclickError):
    """A file cannot be written or read."""

    exit_code = ExitCode.IO


class LockedError(PostclickError):
    """Somebody else works on this folder."""

    exit_code = ExitCode.TEMPORARY


class TrustError(PostclickError):
    """A file may not be trusted."""

    exit_code = ExitCode.TRUST


class RequestError(PostclickError):
    """A request to the service is wrong."""

    exit_code = ExitCode.USAGE


class NotFittedError(PostclickError):
    """`fit` has not been called."""

    exit_code = ExitCode.USAGE


def unforeseen(error: Exception, where: str = "") -> PostclickError:
    """Return an error that nothing below foresaw as one of ours: the disk's ``io.failed``, else ``internal``.

    ``POSTCLICK_DEBUG=1`` prints the traceback, which is lost otherwise.
    """
    if os.environ.get("POSTCLICK_DEBUG"):
        import traceback

        traceback.print_exception(error)
    if isinstance(error, OSError):
        return StorageError(Finding("io.failed", str(error), where, fix="check the path and the disk"))
    fix = "this is a bug in postclick; run again with POSTCLICK_DEBUG=1 and report the traceback"
    return PostclickError(Finding("internal", f"{type(error).__name__}: {error}", where, fix=fix))
