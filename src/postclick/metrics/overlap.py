"""Can clicks speak for all exposures? Diagnostics of the propensity, and a verdict in words.

A weighted number is only as good as its overlap: where clicks are all but impossible (p near 0) no weight brings back
what was never seen, and where a few clicks carry most of the weight the interval is a guess.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from postclick.metrics.curve import Floats
from postclick.metrics.reliability import reliability_table

__all__ = [
    "LEAST_EFFECTIVE_CLICKS",
    "LEAST_EFFECTIVE_SHARE",
    "MOST_LEFT_OUT",
    "QUANTILES",
    "RELATIVE_FLOOR",
    "Balance",
    "Calibration",
    "Overlap",
    "overlap",
]

RELATIVE_FLOOR = 0.1
"""Floor of the propensity, times the training log's CTR."""
LEAST_EFFECTIVE_SHARE = 0.1
"""Effective sample size over clicks: under it, nine clicks of ten are as good as not there."""
LEAST_EFFECTIVE_CLICKS = 100.0
"""Under it normal intervals of weighted means are not to be had."""
MOST_LEFT_OUT = 0.05
"""Share of the exposure space that the floor leaves out: IPS is low by as much where those exposures are average."""
MOST_IMBALANCE = 0.1
"""Standardised mean difference that counts as balanced (Austin 2009)."""
MOST_MISCALIBRATION = 0.1
"""Weights may sum to this much more or less than the propensity says, chance apart."""
QUANTILES = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)
_BINS = 10
_FINITE_ODDS = 700.0
"""exp of it is a number: certain scores enter the balance as this."""


@dataclass(frozen=True)
class Calibration:
    """Of the propensity against the click, by bins of equal mass from low to high.

    Parameters
    ----------
    pcoc
        Predicted over observed clicks.
    ece
        Mean distance of the two over the bins.
    predicted, observed
        [K] rates of each bin.
    weight_ratio
        Sum of the weights over what it would be, on average, were the propensity right; 1.
    weight_ratio_error
        Standard error of it, clicks independent.
    """

    pcoc: float
    ece: float
    predicted: tuple[float, ...]
    observed: tuple[float, ...]
    weight_ratio: float
    weight_ratio_error: float


@dataclass(frozen=True)
class Balance:
    """Standardised mean difference of a column: (mean over clicks - mean over exposures) / sd over exposures.

    Parameters
    ----------
    before, after
        Clicks as they are, and weighted.
    """

    before: float
    after: float


@dataclass(frozen=True)
class Overlap:
    """How far the clicks reach into the exposure space; shares count sample weights, quantiles rows.

    Parameters
    ----------
    source
        Which propensity, in words.
    rows, clicks
        How many.
    floor
        Smallest propensity that is divided by.
    clicked, unclicked
        Propensity at `QUANTILES`, by click; empty where there is no such row.
    exposures_under_floor, clicks_under_floor
        Shares of exposures and of clicks with p < floor.
    left_out
        Mean over exposures of 1 - p / max(p, floor): the share of the exposure space that clipped weights do not reach.
    effective_clicks, effective_share
        (sum w)^2 / sum w^2 of the clicks' weights, and over the clicks.
    largest_weight, largest_share
        Largest 1 / max(p, floor) among clicks, and the largest part of all weight that one click carries.
    calibration
        Of the propensity.
    balance
        Column -> difference before and after weighting.
    """

    source: str
    rows: int
    clicks: int
    floor: float
    clicked: tuple[float, ...]
    unclicked: tuple[float, ...]
    exposures_under_floor: float
    clicks_under_floor: float
    left_out: float
    effective_clicks: float
    effective_share: float
    largest_weight: float
    largest_share: float
    calibration: Calibration
    balance: Mapping[str, Balance]

    @property
    def thin(self) -> tuple[str, ...]:
        """Why overlap is too thin to trust a weighted number, in words; empty where it is not."""
        found = []
        if self.effective_share < LEAST_EFFECTIVE_SHARE:
            found.append(f"the clicks are worth {self.effective_share:.1%} of their number, under {_LEAST_SHARE}")
        if self.effective_clicks < LEAST_EFFECTIVE_CLICKS:
            found.append(f"they stand for {self.effective_clicks:.1f} clicks of equal weight, under {_LEAST_CLICKS}")
        if self.left_out > MOST_LEFT_OUT:
            found.append(f"{self.left_out:.1%} of the exposure space is out of the clicks' reach, over {_MOST_OUT}")
        return tuple(found)

    @property
    def doubts(self) -> tuple[str, ...]:
        """What else speaks against the propensity, in words."""
        found = []
        ratio, error = self.calibration.weight_ratio, self.calibration.weight_ratio_error
        if abs(ratio - 1.0) > max(MOST_MISCALIBRATION, 3.0 * error):
            found.append(f"the propensity is off: the weights sum to {ratio:.2f} times what it says they should")
        off = {name: column.after for name, column in self.balance.items() if abs(column.after) > MOST_IMBALANCE}
        if off:
            words = ", ".join(f"{name} by {after:+.2f} sd" for name, after in off.items())
            found.append(f"weighted clicks still differ from the exposures: {words}")
        return tuple(found)

    @property
    def verdict(self) -> str:
        """Whether a weighted number can be trusted, in words."""
        if self.thin:
            return f"overlap is too thin: {'; '.join(self.thin)}"
        worth = (
            f"{self.clicks} clicks are worth {self.effective_clicks:.0f} of equal weight ({self.effective_share:.0%})"
        )
        return f"overlap suffices: {worth}, {self.left_out:.1%} of the exposure space is out of the clicks' reach"

    def to_dict(self) -> dict[str, Any]:
        """Return the form of ``evaluate --json``, key ``overlap``."""
        return {
            "propensity": self.source,
            "rows": self.rows,
            "clicks": self.clicks,
            "floor": self.floor,
            "quantiles": {"levels": list(QUANTILES), "clicked": [*self.clicked], "unclicked": [*self.unclicked]},
            "under_floor": {"exposures": self.exposures_under_floor, "clicks": self.clicks_under_floor},
            "left_out": self.left_out,
            "effective_clicks": self.effective_clicks,
            "effective_share": self.effective_share,
            "largest_weight": self.largest_weight,
            "largest_share": self.largest_share,
            "calibration": asdict(self.calibration),
            "balance": {name: asdict(one) for name, one in self.balance.items()},
            "sufficient": not self.thin,
            "verdict": self.verdict,
            "doubts": [*self.doubts],
        }

    @classmethod
    def from_dict(cls, form: Mapping[str, Any]) -> Overlap:
        """Read the plain form."""
        own: dict[str, Any] = {name: form[name] for name in _PLAIN}
        own |= {name: tuple(form["quantiles"][name]) for name in ("clicked", "unclicked")}
        own |= {f"{name}_under_floor": form["under_floor"][name] for name in ("exposures", "clicks")}
        rates = {name: tuple(form["calibration"][name]) for name in ("predicted", "observed")}
        own["calibration"] = Calibration(**{**form["calibration"], **rates})
        own["balance"] = {name: Balance(**entry) for name, entry in form["balance"].items()}
        return cls(source=form["propensity"], **own)


_PLAIN = (
    *("rows", "clicks", "floor", "left_out", "effective_clicks", "effective_share"),
    *("largest_weight", "largest_share"),
)
_LEAST_SHARE, _LEAST_CLICKS, _MOST_OUT = (
    f"{LEAST_EFFECTIVE_SHARE:.0%}",
    f"{LEAST_EFFECTIVE_CLICKS:g}",
    f"{MOST_LEFT_OUT:.0%}",
)


def overlap(
    click: NDArray[np.integer],
    propensity: Floats,
    *,
    floor: float,
    columns: Mapping[str, Floats],
    weight: Floats | None = None,
    source: str = "as given",
) -> Overlap | None:
    """Return the overlap of clicks and exposures, or None without a click or without rows.

    Parameters
    ----------
    click
        [B] 0/1.
    propensity
        [B] P(click | x) in [0, 1], not NaN.
    floor
        Smallest propensity that is divided by, >= 0.
    columns
        Name -> [B] covariates or scores (log-odds, say) whose balance is shown; infinite ones count as +-700.
    weight
        [B] sample weights, or None.
    source
        Which propensity, in words.
    """
    own = np.ones(len(propensity)) if weight is None else np.asarray(weight, np.float64)
    mask = (click == 1) & (own > 0.0)
    places = np.flatnonzero(mask)
    if not len(places):
        return None
    total = float(own.sum())
    # 1e-300 stands for p = 0 with the floor off: the weight stays a number, and the verdict names it
    inverse = 1.0 / np.maximum(propensity[places], max(floor, 1e-300))
    mass = own[places] * inverse
    scaled = mass / mass.max()
    effective = float(scaled.sum()) ** 2 / float(scaled @ scaled)
    reached = propensity / np.maximum(propensity, max(floor, 1e-300))
    clicks_own = own[places]
    under = propensity < floor
    return Overlap(
        source=source,
        rows=len(propensity),
        clicks=len(places),
        floor=floor,
        clicked=_quantiles(propensity[places]),
        unclicked=_quantiles(propensity[~mask]),
        exposures_under_floor=float(own[under].sum()) / total,
        clicks_under_floor=float(clicks_own[under[places]].sum()) / float(clicks_own.sum()),
        left_out=max(1.0 - float(own @ reached) / total, 0.0),
        effective_clicks=effective,
        effective_share=effective / len(places),
        largest_weight=float(inverse.max()),
        largest_share=float(1.0 / scaled.sum()),
        calibration=_calibration(mask, propensity, own, weight, float(mass.sum()), reached, floor),
        balance={name: _balance(column, places, own, scaled) for name, column in columns.items()},
    )


def _quantiles(values: Floats) -> tuple[float, ...]:
    return tuple(float(value) for value in np.quantile(values, QUANTILES)) if len(values) else ()


def _calibration(
    mask: NDArray[np.bool_],
    propensity: Floats,
    own: Floats,
    weight: Floats | None,
    mass: float,
    reached: Floats,
    floor: float,
) -> Calibration:
    """Return the calibration; `mass` is the weights' sum, `reached` p / max(p, floor) on every exposure."""
    with np.errstate(divide="ignore"):
        odds = np.log(propensity) - np.log1p(-propensity)
    table = reliability_table(odds, mask.astype(np.int8), weight, _BINS)
    expected = float(own @ reached)
    # the variance of a click's weight at one row: w^2 v^2 p (1 - p), with v p = reached
    inverse = 1.0 / np.maximum(propensity, max(floor, 1e-300))
    variance = float(np.square(own) @ (reached * inverse * (1.0 - propensity)))
    return Calibration(
        pcoc=float(table.predicted.sum() / table.observed.sum()),
        ece=table.ece,
        predicted=tuple(float(rate) for rate in table.predicted / table.mass),
        observed=tuple(float(rate) for rate in table.observed / table.mass),
        weight_ratio=mass / expected,
        weight_ratio_error=float(np.sqrt(variance)) / expected,
    )


def _balance(column: Floats, places: NDArray[np.int64], own: Floats, mass: Floats) -> Balance:
    finite = np.clip(column, -_FINITE_ODDS, _FINITE_ODDS)
    center = float(own @ finite) / float(own.sum())
    spread = float(np.sqrt(own @ np.square(finite - center) / own.sum()))
    if not spread > 0.0:
        return Balance(0.0, 0.0)
    clicked, plain = finite[places], own[places]
    before, after = (float(share @ clicked) / float(share.sum()) - center for share in (plain, mass))
    return Balance(before / spread, after / spread)
