"""Tables of calibration: reliability by bins, and predicted over observed of every slice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["CalibrationTables", "ReliabilityBin", "SliceRatio"]


@dataclass(frozen=True)
class ReliabilityBin:
    """Predicted against observed in one bin of scores.

    Parameters
    ----------
    rows
        Rows.
    predicted, observed
        Mean prediction and observed rate.
    low, high
        Interval of the observed rate, clustered by user.
    """

    rows: int
    predicted: float
    observed: float
    low: float
    high: float


@dataclass(frozen=True)
class SliceRatio:
    """Predicted over observed of one slice, tested among all slices.

    Parameters
    ----------
    value
        The column's value.
    rows
        Rows.
    predicted, observed
        Sums of predictions and of labels, weighted.
    pcoc
        Their ratio; None where nothing was observed.
    low, high
        Interval that holds for all tested slices of this head together (Bonferroni); None where it is not tested.
    p
        p-value of being calibrated, adjusted by Holm over all tested slices of this head; None where it is not tested.
        Of the slice with the smallest it is under 1 - level exactly where the interval leaves out 1; of the others
        Holm asks less, so it can be where the interval still holds 1.
    shrunk, shrunk_low, shrunk_high
        PCOC drawn towards the other slices of the column, with its posterior interval (gamma-Poisson).
    """

    value: str
    rows: int
    predicted: float
    observed: float
    pcoc: float | None
    low: float | None
    high: float | None
    p: float | None
    shrunk: float | None
    shrunk_low: float | None
    shrunk_high: float | None


@dataclass(frozen=True)
class CalibrationTables:
    """Calibration of the observed heads.

    Parameters
    ----------
    reliability
        ``HEAD@POPULATION`` or ``HEAD@POPULATION|slice`` -> bins from low to high scores.
    ratios
        ``HEAD@POPULATION|column`` -> its slices, the least likely to be calibrated first, 200 at most.
    spread
        ``HEAD@POPULATION|column`` -> standard deviation over slices of observed / predicted, noise taken out.
    tested
        ``HEAD@POPULATION`` -> how many slices of all columns were tested together.
    level
        Nominal coverage of the intervals.
    verdict
        Sentences on the worst slices.
    """

    reliability: Mapping[str, tuple[ReliabilityBin, ...]] = field(default_factory=dict)
    ratios: Mapping[str, tuple[SliceRatio, ...]] = field(default_factory=dict)
    spread: Mapping[str, float] = field(default_factory=dict)
    tested: Mapping[str, int] = field(default_factory=dict)
    level: float = 0.95
    verdict: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the plain form: the keys ``reliability`` and ``slices`` of ``evaluate --json``."""
        form = asdict(self)
        return {"reliability": form.pop("reliability"), "slices": form}

    @classmethod
    def from_dict(cls, form: Mapping[str, Any]) -> CalibrationTables:
        """Read the plain form."""
        bins = {name: tuple(ReliabilityBin(**each) for each in rows) for name, rows in form["reliability"].items()}
        rest = form["slices"]
        ratios = {name: tuple(SliceRatio(**each) for each in rows) for name, rows in rest["ratios"].items()}
        return cls(bins, ratios, rest["spread"], rest["tested"], rest["level"], tuple(rest["verdict"]))
