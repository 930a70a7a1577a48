"""In-shop actions in the audit: how clicks, actions and conversions meet, as counts, rates and sentences."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from postclick.data.ledger import Funnel

__all__ = ["ActionCounts"]


@dataclass(frozen=True)
class ActionCounts:
    """How often what happened, on clicked rows but for `orphan_actions`.

    Parameters
    ----------
    clicks, conversions
        As the funnel has them.
    actions
        After a click.
    both
        Conversions with an action.
    orphan_actions
        Actions without a click.
    """

    clicks: int
    actions: int
    conversions: int
    both: int
    orphan_actions: int

    @classmethod
    def of(cls, funnel: Funnel) -> ActionCounts:
        """Read them off a funnel."""
        both = funnel.conversions - funnel.conversions_without_action
        actions = funnel.actions - funnel.orphan_actions
        return cls(funnel.clicks, actions, funnel.conversions, both, funnel.orphan_actions)

    @property
    def rates(self) -> dict[str, float | None]:
        """P(action | click), P(conversion | click, action), P(conversion | click, no action); None where undefined."""
        return {
            "action": _share(self.actions, self.clicks),
            "cvr_given_action": _share(self.both, self.actions),
            "cvr_given_other": _share(self.conversions - self.both, self.clicks - self.actions),
        }

    def to_dict(self) -> dict[str, Any]:
        """Return the plain form of ``audit.json``."""
        counts = asdict(self)
        del counts["both"]
        without = {
            "conversions_without_action": self.conversions - self.both,
            "actions_without_conversion": self.actions - self.both,
        }
        return counts | without | self.rates

    def sentences(self) -> Iterator[tuple[bool, str]]:
        """Yield (whether it is a warning, the sentence)."""
        rates = self.rates
        if self.clicks:
            yield (
                False,
                f"an action on {_percent(rates['action'])} of the clicks; {_percent(rates['cvr_given_action'])} of the "
                f"clicks with one convert, {_percent(rates['cvr_given_other'])} of those without.",
            )
        lost = self.conversions - self.both
        if lost:
            yield (
                True,
                f"{lost:,} of the {self.conversions:,} conversions ({_percent(lost / self.conversions)}) came without "
                "an action: a chain P(click) P(action | click) P(conversion | action) does not see them.",
            )
        elif self.conversions:
            yield False, f"each of the {self.conversions:,} conversions came with an action."
        if self.actions:
            idle = self.actions - self.both
            share = _percent(idle / self.actions)
            yield False, f"{idle:,} of the {self.actions:,} actions after a click ({share}) led to no conversion."
        if self.orphan_actions:
            yield (
                True,
                f"{self.orphan_actions:,} actions came without a click: their rows stay as they are, and none is an "
                "action label, for that is click times action.",
            )


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _percent(share: float | None) -> str:
    return "an undefined share" if share is None else f"{100 * share:.3g} %"
