"""The ledger: every row and every value that came in is kept, rejected with a reason, or filtered by a rule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from postclick.data.arrays import CENSORED, Labels
from postclick.data.sources.base import ValueCounts
from postclick.errors import Finding, PostclickError

__all__ = ["Funnel", "Ledger"]

LEDGER_FORMAT = 1


@dataclass(frozen=True)
class Funnel:
    """Kept rows of one split and what happened on them.

    Parameters
    ----------
    rows
        Exposures kept.
    clicks, actions, conversions
        Labels that are 1 as stored: a conversion counts only where there is a click.
    view_through
        Conversions without click that were kept and are no label (``--orphan-conversions view_through``).
    set_click
        Conversions without click whose click was set to 1 (``--orphan-conversions set_click``).
    orphan_actions
        Actions without click, among `actions`: they stay as they were logged, and none is ever an action label.
    conversions_without_action
        Among `conversions`; 0 where there is no action label.
    immature
        Rows whose attribution window was still open, clicked or not.
    censored
        Clicks among them that may yet convert: their conversion is neither 0 nor 1.
    """

    rows: int = 0
    clicks: int = 0
    actions: int = 0
    conversions: int = 0
    view_through: int = 0
    set_click: int = 0
    orphan_actions: int = 0
    conversions_without_action: int = 0
    immature: int = 0
    censored: int = 0

    @classmethod
    def of(cls, labels: Labels, *, set_click: int = 0) -> Funnel:
        """Count labels as stored; `set_click` is known to whoever applied the policy."""
        clicked, converted = labels.click == 1, labels.conversion == 1
        acted = None if labels.action is None else labels.action == 1
        return cls(
            len(labels),
            int(clicked.sum()),
            0 if acted is None else int(acted.sum()),
            int(converted.sum()),
            0 if labels.view_through is None else int(labels.view_through.sum()),
            set_click,
            0 if acted is None else int((acted & ~clicked).sum()),
            0 if acted is None else int((converted & ~acted).sum()),
            0 if labels.immature is None else int((labels.immature != 0).sum()),
            0 if labels.immature is None else int((labels.conversion == CENSORED).sum()),
        )

    def to_dict(self) -> dict[str, int]:
        """Return the plain form; what only logs with open windows have is left out where it is 0."""
        return {name: count for name, count in asdict(self).items() if count or name not in ("immature", "censored")}

    def __add__(self, other: Funnel) -> Funnel:
        return Funnel(*(getattr(self, item.name) + getattr(other, item.name) for item in fields(self)))


def _merge(left: Mapping[str, Any], right: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(left)
    for key, value in right.items():
        merged[key] = merged[key] + value if key in merged else value
    return merged


@dataclass(frozen=True)
class Ledger:
    """What happened to the rows and values of one preparation; ledgers of parts are added.

    Parameters
    ----------
    read
        Rows read.
    kept
        Split -> its funnel.
    rejected
        Reason (an error code) -> rows in quarantine.
    filtered
        Rule -> rows that a rule of the source left out.
    values
        Field -> its values.
    """

    read: int = 0
    kept: Mapping[str, Funnel] = field(default_factory=dict)
    rejected: Mapping[str, int] = field(default_factory=dict)
    filtered: Mapping[str, int] = field(default_factory=dict)
    values: Mapping[str, ValueCounts] = field(default_factory=dict)

    def __add__(self, other: Ledger) -> Ledger:
        return Ledger(
            self.read + other.read,
            _merge(self.kept, other.kept),
            _merge(self.rejected, other.rejected),
            _merge(self.filtered, other.filtered),
            _merge(self.values, other.values),
        )

    @property
    def kept_rows(self) -> int:
        """Rows kept, all splits together."""
        return sum(funnel.rows for funnel in self.kept.values())

    @property
    def rejected_rows(self) -> int:
        """Rows in quarantine, all reasons together."""
        return sum(self.rejected.values())

    def check(self) -> None:
        """Refuse a ledger that does not add up: in = kept + rejected + filtered, for rows and for values.

        Raises
        ------
        PostclickError
            ``internal.ledger`` (exit 70): rows or values were lost or made up, which is a fault of the program.
        """
        problems = []
        filtered = sum(self.filtered.values())
        if self.read != self.kept_rows + self.rejected_rows + filtered:
            what = f"{self.read} rows read, {self.kept_rows} kept, {self.rejected_rows} rejected, {filtered} filtered"
            problems.append(Finding("internal.ledger", what, "rows"))
        for name, count in self.values.items():
            if count.read != count.kept + count.truncated + count.replaced + count.rejected:
                problems.append(Finding("internal.ledger", f"values do not add up: {count}", name))
        if problems:
            raise PostclickError(*problems)

    def to_dict(self) -> dict[str, Any]:
        """Return the plain form of ``ledger.json``."""
        return {
            "format": LEDGER_FORMAT,
            "rows": {
                "read": self.read,
                "kept": self.kept_rows,
                "rejected": dict(self.rejected),
                "filtered": dict(self.filtered),
            },
            "splits": {name: funnel.to_dict() for name, funnel in self.kept.items()},
            "values": {name: asdict(count) for name, count in self.values.items()},
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Ledger:
        """Read the plain form."""
        rows = value["rows"]
        return cls(
            rows["read"],
            {name: Funnel(**funnel) for name, funnel in value["splits"].items()},
            dict(rows["rejected"]),
            dict(rows["filtered"]),
            {name: ValueCounts(**count) for name, count in value["values"].items()},
        )

    def lines(self) -> list[str]:
        """Return the ledger for the screen, a sentence a line."""
        text = [f"{self.read:,} rows in = {self.kept_rows:,} kept + {self.rejected_rows:,} rejected"]
        filtered = sum(self.filtered.values())
        text[0] += f" + {filtered:,} filtered" if filtered else ""
        text += [f"  rejected {count:,}: {reason}" for reason, count in sorted(self.rejected.items()) if count]
        text += [f"  filtered {count:,}: {rule}" for rule, count in sorted(self.filtered.items()) if count]
        order = {name: place for place, name in enumerate(("train", "valid", "test"))}
        for name, funnel in sorted(self.kept.items(), key=lambda item: order.get(item[0], len(order))):
            line = f"  {name}: {funnel.rows:,} rows, {funnel.clicks:,} clicks, {funnel.conversions:,} conversions"
            line += f", {funnel.actions:,} actions" if funnel.actions else ""
            line += f" ({funnel.orphan_actions:,} without a click)" if funnel.orphan_actions else ""
            without = funnel.conversions_without_action
            line += f", {without:,} conversions without an action" if without else ""
            line += f", {funnel.view_through:,} view-through" if funnel.view_through else ""
            line += f", {funnel.set_click:,} clicks set for their conversion" if funnel.set_click else ""
            line += f", {funnel.immature:,} with an open window" if funnel.immature else ""
            line += f" ({funnel.censored:,} clicks may yet convert)" if funnel.censored else ""
            text.append(line)
        for name, count in self.values.items():
            lost = {"cut off": count.truncated, "replaced": count.replaced, "rejected": count.rejected}
            # a rejected row takes its values along, which its own line says already
            if count.truncated or count.replaced or count.rejected > self.rejected_rows:
                parts = ", ".join(f"{number:,} {word}" for word, number in lost.items() if number)
                text.append(f"  values of {name}: {count.read:,} in = {count.kept:,} kept, {parts}")
        return text
