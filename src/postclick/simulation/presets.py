"""Knobs of a world, named after what they do to the data, and the named settings of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Annotated, Any

from postclick.binding import Argument, bind, plain
from postclick.errors import ConfigError, Finding, nearest
from postclick.simulation.reward import REWARD, RewardKnobs

__all__ = ["PRESETS", "Knobs", "resolve"]

_OF_ACTIONS = (
    "action_strength",
    "action_spread",
    "purchase_without_action",
    "action_outside_window",
    "purchase_outside_window",
    "orphan_actions",
)
_ACTION_STAGE = ("action_rate", *_OF_ACTIONS)
_WHERE_TURNED = (
    "unobserved_confounder",
    "thin_overlap",
    "support_violation",
    "logged_propensity",
    "propensity_misspecification",
    "structure",
    "contradiction",
    "communities",
    "conversion_scale",
    "delay",
    "delay_spread",
    "delay_shape",
    "attribution_days",
    "observed_days",
)
"""Stated only where they are not at their defaults, so worlds without them keep their hashes."""
_OF_DELAYS = ("delay_spread", "delay_shape", "attribution_days", "observed_days")


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
    action_rate: Annotated[
        float, Argument("mean true P(action | click) over clicks, logged in time or not; 0: no in-shop actions")
    ] = 0.0
    action_strength: Annotated[
        float,
        Argument("weight, in the action's logit, of the CVR's latent: how strongly an action tells of a purchase"),
    ] = 1.0
    action_spread: Annotated[
        float, Argument("sd of the part of the action's logit that has nothing to do with CTR or CVR")
    ] = 0.7
    purchase_without_action: Annotated[
        float, Argument("share, in [0, 1], of the conversions that no in-shop action comes before, logged or not")
    ] = 0.0
    action_outside_window: Annotated[
        float, Argument("share of actions logged outside the exposure's window: its action label is 0")
    ] = 0.0
    purchase_outside_window: Annotated[
        float, Argument("share of purchases logged outside the window: its conversion label is 0; `cvr` is of the rest")
    ] = 0.0
    orphan_actions: Annotated[
        float,
        Argument("share of unclicked exposures logged with an action (one of another visit, not joined to a click)"),
    ] = 0.0
    unobserved_confounder: Annotated[
        float,
        Argument("weight, in the logits of CTR and CVR, of a variable of -1 or 1 that nobody logs; 0: all is observed"),
    ] = 0.0
    thin_overlap: Annotated[
        float, Argument("share of the exposures, those least likely to be clicked, left with a twentieth of their odds")
    ] = 0.0
    support_violation: Annotated[
        float, Argument("share of the exposures, those least likely to be clicked, that never are")
    ] = 0.0
    logged_propensity: Annotated[
        bool, Argument("the log has a column propensity: the true CTR but for propensity_misspecification")
    ] = False
    propensity_misspecification: Annotated[
        float, Argument("flattening, in [0, 1], of the logged propensity's logit; 0: true, 1: one number for all")
    ] = 0.0
    structure: Annotated[
        float,
        Argument("share, in [0, 1], of the variance of the CTR's and CVR's latents that communities of ids share"),
    ] = 0.0
    contradiction: Annotated[
        float, Argument("share, in [0, 1], of the item communities in which what draws clicks keeps from buying")
    ] = 0.0
    communities: Annotated[
        int, Argument("number of communities of users, and of items, that nothing but the ids tells of")
    ] = 40
    conversion_scale: Annotated[
        float, Argument("factor on `cvr`, to lift rare conversions for a comparison of systems")
    ] = 1.0
    delay: Annotated[
        float, Argument("mean delay of a conversion, in days, before the window cuts it; 0: at once, and no times")
    ] = 0.0
    delay_spread: Annotated[float, Argument("sd, over exposures, of the log of that mean")] = 0.8
    delay_shape: Annotated[
        float, Argument("Weibull shape of the delay: 1 is the exponential, below 1 the tail is heavier")
    ] = 1.0
    attribution_days: Annotated[float, Argument("days after the click in which a conversion counts")] = 4.0
    observed_days: Annotated[float, Argument("days after the last exposure that conversions were waited for")] = 0.0

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
            "action_rate": 0.0 <= self.action_rate < 1.0,
            "action_strength": -10.0 <= self.action_strength <= 10.0,
            "action_spread": 0.0 <= self.action_spread <= 10.0,
            "purchase_without_action": 0.0 <= self.purchase_without_action <= 1.0,
            "action_outside_window": 0.0 <= self.action_outside_window < 1.0,
            "purchase_outside_window": 0.0 <= self.purchase_outside_window < 1.0,
            "orphan_actions": 0.0 <= self.orphan_actions < 1.0,
            "unobserved_confounder": 0.0 <= self.unobserved_confounder <= 10.0,
            "thin_overlap": 0.0 <= self.thin_overlap < 1.0,
            "support_violation": 0.0 <= self.support_violation < 1.0,
            "propensity_misspecification": 0.0 <= self.propensity_misspecification <= 1.0,
            "structure": 0.0 <= self.structure <= 1.0,
            "contradiction": 0.0 <= self.contradiction <= 1.0,
            "communities": 3 <= self.communities <= 10_000,
            "delay": 0.0 <= self.delay <= 365.0,
            "delay_spread": 0.0 <= self.delay_spread <= 5.0,
            "delay_shape": 0.3 <= self.delay_shape <= 5.0,
            "attribution_days": 0.01 <= self.attribution_days <= 3650.0,
            "observed_days": 0.0 <= self.observed_days <= 3650.0,
            "conversion_scale": self.conversion_scale > 0.0 and self.mean_cvr < 1.0,
        }
        wrong = [
            Finding("config.value", f"{getattr(self, name)!r} is out of range", f"set.{name}")
            for name, fits in ranges.items()
            if not fits
        ]
        wrong = wrong or self._contradictions()
        if wrong:
            raise ConfigError(*wrong)

    @property
    def mean_cvr(self) -> float:
        """Mean true CVR over clicks: `cvr` times `conversion_scale`."""
        return self.cvr * self.conversion_scale

    def to_dict(self) -> dict[str, Any]:
        """Return the knobs as JSON can hold them, those that most worlds do not have only where they are turned."""
        form: dict[str, Any] = plain(self)
        absent = set(_WHERE_TURNED).difference(self._turned(_WHERE_TURNED))
        absent |= set() if self.action_rate else set(_ACTION_STAGE)
        return {name: value for name, value in form.items() if name not in absent}

    def _turned(self, names: Iterable[str]) -> list[str]:
        """Return which of `names` are not at their defaults."""
        default = {entry.name: entry.default for entry in fields(self)}
        return [name for name in names if getattr(self, name) != default[name]]

    def _contradictions(self) -> list[Finding]:
        """Return why knobs do not go together."""
        return [
            *self._without_overlap(),
            *self._without_actions(),
            *self._without_communities(),
            *self._without_delays(),
        ]

    def _without_delays(self) -> list[Finding]:
        if not self.delay:
            what, fix = "conversions come at once in this world", "set delay, or take the world delayed"
            return [Finding("config.value", what, f"set.{name}", fix=fix) for name in self._turned(_OF_DELAYS)]
        what, fix = "a world with delays has neither in-shop actions nor conversions without a click", "set delay=0"
        turned = self._turned(("action_rate", "orphan_conversions"))
        return [Finding("config.value", what, f"set.{name}", fix=f"{fix}, or leave it out") for name in turned]

    def _without_communities(self) -> list[Finding]:
        if self.structure or self.contradiction:
            return []
        what, fix = "communities do nothing in this world", "set structure or contradiction"
        return [Finding("config.value", what, f"set.{name}", fix=fix) for name in self._turned(("communities",))]

    def _without_overlap(self) -> list[Finding]:
        found = []
        if self.propensity_misspecification and not self.logged_propensity:
            what, fix = "this world logs no propensity", "set logged_propensity=true"
            found.append(Finding("config.value", what, "set.propensity_misspecification", fix=fix))
        room = 1.0 - self.support_violation
        if self.thin_overlap >= room:
            what = f"{self.support_violation:.3g} of the exposures are never clicked, which leaves {room:.3g}"
            found.append(Finding("config.value", what, "set.thin_overlap", fix="turn one of them down"))
        if self.ctr >= room:
            what = f"{self.ctr:.3g} of the exposures are clicked, {room:.3g} could be"
            found.append(Finding("config.value", what, "set.support_violation", fix="turn ctr or support_violation"))
        if self.action_rate:
            what, fix = "a world with in-shop actions has none", "set action_rate=0, or take the world selection"
            turned = self._turned(("unobserved_confounder", "support_violation"))
            found += [Finding("config.value", what, f"set.{name}", fix=fix) for name in turned]
        return found

    def _without_actions(self) -> list[Finding]:
        if not self.action_rate:
            what, fix = "this world has no in-shop actions", "set action_rate, or take the world shop-path"
            return [Finding("config.value", what, f"set.{name}", fix=fix) for name in self._turned(_OF_ACTIONS)]
        purchases = self.mean_cvr / (1.0 - self.purchase_outside_window)
        after, without = (1.0 - self.purchase_without_action) * purchases, self.purchase_without_action * purchases
        fix = "turn cvr, action_rate, purchase_without_action or purchase_outside_window"
        return [
            Finding("config.value", f"{share:.3g} of the clicks buy {how}, {room:.3g} could", f"set.{name}", fix=fix)
            for name, how, share, room in (
                ("action_rate", "after an action", after, self.action_rate),
                ("purchase_without_action", "without an action", without, 1.0 - self.action_rate),
            )
            if share >= room
        ]


_SHOP_PATH = Knobs(action_rate=0.4, purchase_without_action=0.3, action_outside_window=0.3)

PRESETS: dict[str, Knobs | RewardKnobs] = {
    "selection": Knobs(),
    "no-bias": Knobs(selection=0.0),
    "shop-path": _SHOP_PATH,
    "behaviour": _SHOP_PATH,  # its name until shop-path; kept, since a world states the name that it was made by
    "structure": Knobs(structure=0.8),
    "contradiction": Knobs(structure=0.8, contradiction=0.5),
    "hidden-confounder": Knobs(unobserved_confounder=1.0),
    "thin-overlap": Knobs(selection=1.0, thin_overlap=0.4),
    "delayed": Knobs(delay=2.0),
    "ali-ccp-like": Knobs(ctr=0.0389, cvr=0.0055, users=238_635, items=467_298, tail=0.9),
    "livestream-like": Knobs(ctr=0.0704, cvr=0.0398, items=280_000),
    REWARD: RewardKnobs(),
}
"""Name -> knobs; docs/worlds.md says what each can and cannot show."""


def resolve(world: str, knobs: Mapping[str, Any]) -> Knobs | RewardKnobs:
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
    preset = PRESETS[world]
    return replace(preset, **bind(type(preset), knobs, where="set"))
