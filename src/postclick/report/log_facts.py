"""What a report knows of a LOG: counts of its splits, ledger, fields, audit, and how late its conversions come."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["DataTable", "Delay", "Funnel", "LogFacts"]


@dataclass(frozen=True)
class Funnel:
    """What happened on the rows of one split.

    Parameters
    ----------
    split
        ``train``, ``valid`` or ``test``.
    rows, clicks, conversions
        Counts.
    actions
        Rows with an in-shop action; None where the log has none.
    open
        Clicks whose conversion is not known yet: their window has not closed.
    """

    split: str
    rows: int
    clicks: int
    conversions: int
    actions: int | None = None
    open: int = 0


@dataclass(frozen=True)
class DataTable:
    """Table 1 of a benchmark: one data set, split by split.

    Parameters
    ----------
    users, items
        Distinct ones; None where the log names none.
    features
        Fields that systems are fed.
    splits
        Counts of each.
    """

    users: int | None
    items: int | None
    features: int | None
    splits: tuple[Funnel, ...]


@dataclass(frozen=True)
class Delay:
    """How late conversions come: share of them that has arrived by each age.

    Parameters
    ----------
    age
        [K] ages in seconds, ascending.
    arrived
        [K] share of the conversions that came within that age of their click.
    immature
        Rows whose window has not closed, or None.
    words
        What the log says of it.
    """

    age: tuple[float, ...]
    arrived: tuple[float, ...]
    immature: int | None = None
    words: tuple[str, ...] = ()


@dataclass(frozen=True)
class LogFacts:
    """A LOG, or what a RUN still knows of the one it was trained on.

    Parameters
    ----------
    name
        For people.
    hash
        Identity of the log.
    known
        Whether the LOG's own files were read; otherwise only counts that a RUN carries are here.
    funnels
        One a split.
    read, kept
        Rows that came in and that stayed; None where not known.
    rejected, filtered
        Reason -> rows.
    view_through, set_click
        Conversions without a click, by what was done about them.
    split
        How the splits were made, in words.
    fields
        Feature -> (kind, side).
    distinct
        Feature -> distinct values.
    unseen
        Feature -> share of the test values that training did not see.
    verdicts
        (level, sentence) of the audit.
    simulated
        Whether the true probabilities are stored beside the rows.
    delay
        Where conversions have times.
    """

    name: str
    hash: str
    known: bool
    funnels: tuple[Funnel, ...]
    read: int | None = None
    kept: int | None = None
    rejected: Mapping[str, int] = field(default_factory=dict)
    filtered: Mapping[str, int] = field(default_factory=dict)
    view_through: int = 0
    set_click: int = 0
    split: str = ""
    fields: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    distinct: Mapping[str, int] = field(default_factory=dict)
    unseen: Mapping[str, float] = field(default_factory=dict)
    verdicts: tuple[tuple[str, str], ...] = ()
    simulated: bool = False
    delay: Delay | None = None

    def funnel(self, split: str) -> Funnel | None:
        """Return the funnel of a split, or None."""
        return next((found for found in self.funnels if found.split == split), None)
