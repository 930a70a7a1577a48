"""The settings of a preparation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from postclick.data.labels import OrphanPolicy
from postclick.errors import ConfigError, Finding

__all__ = ["PrepareOptions"]


@dataclass(frozen=True)
class PrepareOptions:
    """How to prepare.

    Parameters
    ----------
    split
        ``provider``, ``time``, ``user`` or ``random``; None takes the provider's files where there are any, else time.
    vocabulary
        A LOG, RUN or BUNDLE whose vocabulary and transforms are used as they are; None fits them to the training rows.
    grow
        With `vocabulary`: append the training rows' new values; old rows stay where they are.
    min_count
        Floor of fields that declare none.
    orphan_conversions
        What a conversion without click is: ``reject``, ``set_click`` or ``view_through``.
    max_reject_ratio
        Largest share of rows in quarantine that still gives a log.
    allow_overlap
        Accept exposures or times that are in several splits of the provider.

    Raises
    ------
    ConfigError
        All values out of range, together.
    """

    split: str | None = None
    vocabulary: Path | None = None
    grow: bool = False
    min_count: int = 10
    orphan_conversions: OrphanPolicy = "reject"
    max_reject_ratio: float = 0.001
    allow_overlap: bool = False

    def __post_init__(self) -> None:
        policies = get_args(OrphanPolicy)
        checks = (
            (self.min_count >= 1, f"expected at least 1, got {self.min_count}", "--min-count"),
            (0 <= self.max_reject_ratio <= 1, f"expected 0 to 1, got {self.max_reject_ratio}", "--max-reject-ratio"),
            (
                self.orphan_conversions in policies,
                f"expected one of {', '.join(policies)}, got {self.orphan_conversions!r}",
                "--orphan-conversions",
            ),
        )
        problems = [Finding("config.value", what, where) for sound, what, where in checks if not sound]
        if problems:
            raise ConfigError(*problems)
