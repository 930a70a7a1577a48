"""Knobs of a world, named after what they do to the data, and the named settings of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any

from postclick.binding import Argument, bind
from postclick.errors import ConfigError, Finding, nearest

__all__ = ["PRESETS", "Knobs", "resolve"]


@dataclass(frozen=True)
class Knobs:
    """What can be turned in a world; the equations are in `postclick.simulation`.

    Raises
    ------
    ConfigError
        Where a value is out of its range; all of them together.
    """

    ctr: Annotated[float, Argument("mean true CTR over exposures")] = 0.1
    cvr: Annotated[float, Argument("mean true CVR over clicks, sum(ctr * cvr) / sum(ctr)")] = 0.1
    selection: Annotated[
        float, Argument("weight, in the CTR logit, of the latent that is correlated with the CVR's; 0: none")
    ] = 2.0
    correlation: Annotated[float, Argument("correlation of that latent with the CVR's latent, in [-1, 1]")] = 0.7
    underspecification: Annotated[
        float, Argument("share, in [0, 1], of the CVR latent's variance that is user-group x item-group interaction")
    ] = 0.2
    user_effect: Annotated[
        float, Argument("sd of each user's own effects on the CTR and CVR logits, drawn independently of each other")
    ] = 0.0
    cvr_spread: Annotated[float, Argument("sd of the CVR logit, user effect apart")] = 1.1
    ctr_spread: Annotated[float, Argument("sd of the part of the CTR logit that has nothing to do with the CVR")] = 0.7
    users: Annotated[int | None, Argument("number of users; off: exposures / 25")] = None
    items: Annotated[int | None, Argument("number of items; off: exposures / 65")] = None
    groups: Annotated[int, Argument("number of latent groups of users, and of items; 3 to 14")] = 12
    tail: Annotated[float, Argument("Zipf exponent of how often a user or an item is exposed; 0: all alike")] = 0.8
    days: Annotated[int, Argument("days that the log spans")] = 7
    orphan_conversions: Annotated[
        float, Argument("share of unclicked exposures logged with a conversion (a fault of the log)")
    ] = 0.0

    def __post_init__(self) -> None:
        ranges = {
            "ctr": 0.0 < self.ctr < 1.0,
            "cvr": 0.0 < self.cvr < 1.0,
            "selection": 0.0 <= self.selection <= 10.0,
            "correlation": -1.0 <= self.correlation <= 1.0,
            "underspecification": 0.0 <= self.underspecification <= 1.0,
            "user_effect": 0.0 <= self.user_effect <= 10.0,
            "cvr_spread": 0.0 <= self.cvr_spread <= 10.0,
            "ctr_spread": 0.0 <= self.ctr_spread <= 10.0,
            "users": self.users is None or 2 <= self.users <= 2**31,
            "items": self.items is None or 2 <= self.items <= 2**31,
            "groups": 3 <= self.groups <= 14,
            "tail": 0.0 <= self.tail <= 3.0,
            "days": 1 <= self.days <= 3650,
            "orphan_conversions": 0.0 <= self.orphan_conversions < 1.0,
        }
        wrong = [
            Finding("config.value", f"{getattr(self, name)!r} is out of range", f"set.{name}")
            for name, fits in ranges.items()
            if not fits
        ]
        if wrong:
            raise ConfigError(*wrong)


PRESETS: dict[str, Knobs] = {
    "selection": Knobs(),
    "no-bias": Knobs(selection=0.0),
}


def resolve(world: str, knobs: Mapping[str, Any]) -> Knobs:
    """Return the preset `world` with `knobs` turned.

    Raises
    ------
    ConfigError
        Where there is no such world or knob (with the likely spelling), or a value does not fit.
    """
    if world not in PRESETS:
        near = nearest(world, PRESETS)
        fix = f"did you mean {near!r}?" if near else f"known worlds: {', '.join(PRESETS)}"
        raise ConfigError(Finding("config.value", f"there is no world {world!r}", "world", fix=fix))
    return replace(PRESETS[world], **bind(Knobs, knobs, where="set"))
