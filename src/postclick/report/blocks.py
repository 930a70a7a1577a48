"""What a page is laid out of: sections of figures and tables, each table also a CSV that the page carries."""

from __future__ import annotations

import base64
import csv
import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from postclick.errors import escaped
from postclick.report.words import count, gain, number, percent, plain, signed

__all__ = [
    "Board",
    "BoardRow",
    "Bullet",
    "Column",
    "Facts",
    "Figure",
    "Group",
    "Part",
    "Section",
    "Stage",
    "Table",
    "Tone",
    "Value",
]

Value = str | float | int | None
BoardRow = tuple[str, str, str, tuple[tuple[str, str, str, str], ...]]
Tone = Literal["good", "bad", "unsure", "note"]
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_FORMS: dict[str, Callable[[float], str]] = {
    "count": count,
    "percent": percent,
    "signed": signed,
    "gain": gain,
    "number": number,
    "text": number,
}


@dataclass(frozen=True)
class Column:
    """A column of a table: its heading, and how its numbers are written (`text, count, percent, ...`)."""

    title: str
    kind: str = "text"

    def show(self, value: Value) -> str:
        """Return a value for a person."""
        if value is None:
            return "–"
        if isinstance(value, str):
            return plain(value)
        return _FORMS[self.kind](float(value))


@dataclass(frozen=True)
class Table:
    """The numbers behind a figure.

    Parameters
    ----------
    name
        Of the file that they are downloaded as, without ``.csv``.
    columns
        Headings.
    rows
        Plain values.
    """

    name: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Value, ...], ...]

    @classmethod
    def of(cls, name: str, columns: Sequence[tuple[str, str]], rows: Iterable[Sequence[Any]]) -> Table:
        """Build from (heading, kind) and rows."""
        return cls(name, tuple(Column(title, kind) for title, kind in columns), tuple(tuple(row) for row in rows))

    @property
    def shown(self) -> list[list[tuple[str, bool]]]:
        """Rows of (text, whether it is a number)."""
        return [
            [(column.show(value), column.kind != "text") for column, value in zip(self.columns, row, strict=True)]
            for row in self.rows
        ]

    def csv(self) -> str:
        """Return the plain values as CSV (RFC 4180).

        Text that a spreadsheet would take for a formula gets an apostrophe before it; numbers stay numbers.
        """
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\r\n")
        writer.writerow([_cell(column.title) for column in self.columns])
        writer.writerows([_cell(value) for value in row] for row in self.rows)
        return stream.getvalue()

    @property
    def link(self) -> str:
        """The CSV as an address that holds it whole: nothing is fetched."""
        return "data:text/csv;charset=utf-8;base64," + base64.b64encode(self.csv().encode()).decode("ascii")


def _cell(value: Value) -> str | float | int:
    if value is None:
        return ""
    if not isinstance(value, str):
        return value
    text = escaped(value)
    return f"'{text}" if value.startswith(_FORMULA) else text


@dataclass(frozen=True)
class Figure:
    """A chart with its title, a sentence, and the table behind it.

    Parameters
    ----------
    title
        What it shows.
    svg
        The drawing; "" where the table says it all.
    table
        The numbers.
    name
        Full name of the metric, shown small beside the title; "" where it is none.
    note
        How to read it.
    meaning
        What the metric is; shown at its first use on the page.
    """

    title: str
    svg: str
    table: Table
    name: str = ""
    note: str = ""
    meaning: str = ""


@dataclass(frozen=True)
class Group:
    """Figures that belong together, set side by side where there is room."""

    title: str
    figures: tuple[Figure, ...]


@dataclass(frozen=True)
class Stage:
    """One step of a funnel: how many, and what share of `of`; None for the first, and where there is nothing before."""

    name: str
    count: int
    share: float | None
    of: str = ""

    @property
    def shown(self) -> tuple[str, str]:
        """Count and share for people."""
        return count(self.count), "" if self.share is None else percent(self.share)

    @property
    def width(self) -> float:
        """Width of its bar in per cent, a sliver at least where there is anything."""
        if not self.count:
            return 0.0
        return 100.0 if self.share is None else max(100.0 * min(self.share, 1.0), 0.4)


@dataclass(frozen=True)
class Facts:
    """Names and values, as a list."""

    rows: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Bullet:
    """A sentence with a tone that a word says too.

    Parameters
    ----------
    tone
        Colour.
    tag
        The word: "better", "cannot tell", "caution".
    text
        The sentence.
    """

    tone: Tone
    tag: str
    text: str


@dataclass(frozen=True)
class Board:
    """A leaderboard as a table: a row a system, a column a metric.

    Parameters
    ----------
    metrics
        (words, full name) of each column.
    rows
        (label, system, note, cells); a cell is (value, spread, verdict, what else there is to say).
    apart
        Rows set apart below the others, such as those of derived heads.
    apart_title
        What they are.
    table
        The same with every number, for the CSV.
    caption
        What the numbers are.
    """

    metrics: tuple[tuple[str, str], ...]
    rows: tuple[BoardRow, ...]
    table: Table
    caption: str
    apart: tuple[BoardRow, ...] = ()
    apart_title: str = ""


@dataclass(frozen=True)
class Part:
    """What a section says of one study.

    Parameters
    ----------
    title
        The study's name; "" where the report has one alone.
    text
        Sentences.
    bullets
        Verdicts.
    funnels
        (split, stages).
    facts
        A list of names and values, or None.
    board
        A leaderboard, or None.
    groups
        Of figures.
    tables
        Tables without a drawing, folded.
    first
        Tables that stand open, before all figures.
    """

    title: str = ""
    text: tuple[str, ...] = ()
    bullets: tuple[Bullet, ...] = ()
    funnels: tuple[tuple[str, tuple[Stage, ...]], ...] = ()
    facts: Facts | None = None
    board: Board | None = None
    groups: tuple[Group, ...] = ()
    tables: tuple[Figure, ...] = ()
    first: tuple[Figure, ...] = ()

    @property
    def empty(self) -> bool:
        """Whether there is nothing to show."""
        parts = (self.text, self.bullets, self.funnels, self.facts, self.board, self.groups, self.tables, self.first)
        return not any(parts)

    @property
    def shown(self) -> tuple[Figure, ...]:
        """Every figure and table."""
        return self.first + tuple(figure for group in self.groups for figure in group.figures) + self.tables

    @classmethod
    def drawn(cls, figures: Iterable[Figure], **others: Any) -> Part:
        """Build from one group of figures without a heading."""
        found = tuple(figures)
        return cls(groups=(Group("", found),) if found else (), **others)


@dataclass(frozen=True)
class Section:
    """A section of the page.

    Parameters
    ----------
    key
        Its anchor.
    title
        Its heading.
    short
        The same in the list of sections.
    lead
        What it is about, in a sentence or two.
    parts
        One a study that has something to say.
    """

    key: str
    title: str
    short: str
    lead: str
    parts: tuple[Part, ...] = ()
