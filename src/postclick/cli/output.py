"""What a command prints: the result on stdout, as tables for a person or as JSON alone; notes on stderr."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from postclick.errors import escaped, printable
from postclick.progress import set_quiet

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

__all__ = ["Output", "json_text", "number", "table"]

_PIPE_WIDTH = 140
"""Columns of a table that goes to a file: wide enough not to fold, the same on every machine."""

_LARGE = 1e7


@dataclass(frozen=True)
class Output:
    """Where a command's words go.

    Parameters
    ----------
    as_json
        The result goes to stdout as JSON and nothing else does.
    quiet
        No notes, no progress.
    """

    as_json: bool = False
    quiet: bool = False

    def __post_init__(self) -> None:
        set_quiet(self.quiet)

    def result(self, value: Any, *parts: RenderableType) -> None:
        """Print the result: `value` as JSON, or `parts` for a person."""
        if self.as_json:
            sys.stdout.write(json_text(_finite(value), indent=2) + "\n")
            return
        console = _console(stderr=False)
        for part in parts:
            if isinstance(part, str):  # a line is a line: the comments of a schema must not break
                console.print(escaped(part, keep="\n"), highlight=False, markup=False, soft_wrap=True)
            else:
                console.print(part, highlight=False, markup=False)

    def note(self, text: str) -> None:
        """Print a sentence that is not the result: what was inferred, what comes next."""
        if not self.quiet:
            print(escaped(text, keep="\n"), file=sys.stderr)


def json_text(value: Any, indent: int | None = None) -> str:
    """Return JSON in which every character can be seen: control and bidirectional marks are escaped."""
    text = json.dumps(value, indent=indent, sort_keys=True, allow_nan=False, ensure_ascii=False)
    return "".join(_unit(char) if not (char.isprintable() or char == "\n") else char for char in text)


def _unit(char: str) -> str:
    """Return the JSON escape of one character, a surrogate pair beyond the first plane."""
    return json.dumps(char)[1:-1]


def _console(*, stderr: bool) -> Console:
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, width=None if stream.isatty() else _PIPE_WIDTH)


def _finite(value: Any) -> Any:
    """Return `value` as JSON holds it: NumPy numbers as numbers, infinities and NaN as null."""
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_finite(item) for item in value]
    if hasattr(value, "item") and getattr(value, "shape", None) == ():
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def number(value: float | int | None, digits: int = 4) -> str:
    """Return a number as a table shows it: counts with separators, nothing as a dash."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "-"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.{digits}f}" if abs(value) < _LARGE else f"{value:.2e}"


def table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]], *, texts: int = 1, longest: int = 80
) -> RenderableType:
    """Build a table: the first `texts` columns are text, the others numbers; what it shows is safe for a terminal.

    A cell is cut after `longest` characters: names that come from data have any length.
    """
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    built = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for index, column in enumerate(columns):
        built.add_column(column, justify="left" if index < texts else "right")
    for row in rows:
        built.add_row(*(cell if isinstance(cell, Text) else Text(printable(cell, longest)) for cell in row))
    return Group(Text(title, style="bold"), built)
