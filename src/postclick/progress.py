"""Progress on a terminal: one bar to stderr for a person, nothing for a pipe or a test."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator

__all__ = ["bar", "hushed", "say", "set_quiet"]

_quiet = False


def set_quiet(quiet: bool) -> None:
    """Switch all bars of this process off (or on again)."""
    global _quiet  # noqa: PLW0603 - one switch a process, set by the command line
    _quiet = quiet


def say(text: str) -> None:
    """Print a line to stderr before long work starts: for a person, and for the file that a job's words go to."""
    if not _quiet:
        print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def hushed() -> Iterator[None]:
    """Show no bar that begins inside the block: a terminal shows one at a time, the outermost."""
    before = _quiet
    set_quiet(True)
    try:
        yield
    finally:
        set_quiet(before)


@contextlib.contextmanager
def bar(label: str, total: float | None, unit: str = "rows") -> Iterator[Callable[..., None]]:
    """Show a bar while the block runs; yields ``advance(amount, note="")``.

    Parameters
    ----------
    label
        What is being done, in the -ing form.
    total
        The whole amount, or None where it is not known.
    unit
        What is counted.
    """
    if _quiet or not sys.stderr.isatty():
        yield lambda _amount, _note="": None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.completed:,.0f} " + unit),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(label, total=total, note="")
        yield lambda amount, note="": progress.update(task, advance=amount, **({"note": note} if note else {}))
