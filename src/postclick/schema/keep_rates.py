"""Keep rates of a down-sampled log."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from postclick.binding import Argument

__all__ = ["KeepRates"]


@dataclass(frozen=True)
class KeepRates:
    """Which share of the rows was kept before the log was handed over; converted rows are all there.

    Parameters
    ----------
    unclicked
        s0, of exposures without click, in (0, 1].
    clicked
        s1, of clicks without conversion, in (0, 1].

    Raises
    ------
    ValueError
        A rate outside (0, 1].
    """

    unclicked: Annotated[float, Argument("share of the exposures without click that was kept")] = 1.0
    clicked: Annotated[float, Argument("share of the clicks without conversion that was kept")] = 1.0

    def __post_init__(self) -> None:
        wrong = [name for name in ("unclicked", "clicked") if not 0.0 < getattr(self, name) <= 1.0]
        if wrong:
            given = ", ".join(f"{name} = {getattr(self, name)}" for name in wrong)
            raise ValueError(f"a keep rate must be above 0 and at most 1, got {given}")

    @property
    def whole(self) -> bool:
        """Whether every row was kept."""
        return self.unclicked == self.clicked == 1.0
