"""The CVR over all exposures from clicked rows: debiased estimates, withheld where overlap is too thin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from postclick.data.arrays import CENSORED
from postclick.data.scores import probability
from postclick.evaluation.names import MetricName, format_metric, parse_metric
from postclick.evaluation.result import Metric
from postclick.evaluation.rows import EvaluationRows, group_codes
from postclick.metrics import DEBIASED, ESTIMATORS, WEIGHTED, Estimate, Overlap, debiased, overlap
from postclick.metrics.overlap import RELATIVE_FLOOR

__all__ = ["DEBIASED_METRICS", "LOGGED", "OWN", "Debiased", "debiased_metrics", "is_debiased"]

Floats = NDArray[np.float64]
DEBIASED_METRICS = tuple(
    format_metric(metric, f"estimator={estimator}") for metric in DEBIASED for estimator in ESTIMATORS
)
OWN, LOGGED = "the system's own ctr", "the logged propensity"
"""Which propensity, in words."""


def is_debiased(name: str) -> bool:
    """Return whether ``metric[variant]`` is an estimate over exposures from clicked rows."""
    return parse_metric(name)[1].startswith("estimator=")


@dataclass(frozen=True)
class Debiased:
    """What was found.

    Parameters
    ----------
    metrics
        Full name -> metric.
    overlap
        What the weighted ones rest on; None where there is no click or nothing was asked.
    censored
        Rows left out because the window of their click or conversion has not closed.
    """

    metrics: dict[str, Metric]
    overlap: Overlap | None = None
    censored: int = 0


@dataclass(frozen=True)
class _Exposures:
    """The rows used, n of them, as `debiased` and `overlap` take them."""

    click: NDArray[np.int8]
    conversion: NDArray[np.int8]
    cvr: Floats
    ctr: Floats
    propensity: Floats
    weight: Floats | None
    unit: NDArray[np.int32] | None
    floor: float
    source: str
    censored: int

    @classmethod
    def of(cls, rows: EvaluationRows) -> _Exposures:
        labels, odds = rows.labels, rows.scores.odds
        closed = (labels.click != CENSORED) & labels.conversion_known
        whole = bool(closed.all())
        if not whole:
            labels, odds = labels.take(closed), {head: odds[head][closed] for head in ("ctr", "cvr")}
        user = None if labels.user_id is None else rows.user if whole else group_codes(labels.user_id)
        ctr = np.asarray(odds["ctr"], np.float64)
        logged = labels.propensity
        return cls(
            labels.click,
            labels.conversion,
            np.asarray(odds["cvr"], np.float64),
            ctr,
            probability(ctr) if logged is None else np.asarray(logged, np.float64),
            labels.sample_weight,
            user,
            rows.propensity_floor if rows.propensity_floor is not None else _floor(labels.click, labels.sample_weight),
            OWN if logged is None else LOGGED,
            int(np.count_nonzero(~closed)),
        )

    @property
    def overlap(self) -> Overlap | None:
        """Return the overlap; None without clicks, and where a score is not a number."""
        if not len(self.click) or bool(np.isnan(np.min(self.ctr)) | np.isnan(np.min(self.cvr))):
            return None
        columns = {"ctr": self.ctr, "cvr": self.cvr}
        return overlap(
            self.click, self.propensity, floor=self.floor, columns=columns, weight=self.weight, source=self.source
        )

    def estimates(self, level: float) -> dict[tuple[str, str], Estimate]:
        """Return every estimate by (metric, estimator)."""
        return debiased(
            *(self.cvr, self.click, self.conversion, self.propensity),
            floor=self.floor,
            weight=self.weight,
            unit=self.unit,
            level=level,
        )

    def method(self, estimate: Estimate, estimator: str) -> str:
        """Return how a number and its interval were made, in words."""
        by = f"1 / {self.source}, floor {self.floor:.3g}" if estimator in WEIGHTED else "clicked rows, no weights"
        who = "independent rows" if self.unit is None else "user-clustered"
        return by + (f"; {who} {estimate.method}" if estimate.method else "")


def _floor(click: NDArray[np.int8], weight: Floats | None) -> float:
    """Return the default floor relative to the click rate of these rows."""
    if weight is None:
        return RELATIVE_FLOOR * float(np.mean(click == 1)) if len(click) else 0.0
    total = float(weight.sum())
    return RELATIVE_FLOOR * float(weight[click == 1].sum()) / total if total > 0.0 else 0.0


def debiased_metrics(rows: EvaluationRows, wanted: Sequence[str], population: str, *, level: float) -> Debiased:
    """Return the wanted estimates of the CVR over exposures, and the overlap they rest on.

    The propensity is the logged one where the log has it, else the system's own ctr as served, which was learned on
    other rows. Where `Overlap.thin` says that clicks do not reach the exposure space, weighted numbers are withheld:
    undefined, with the verdict as the reason.

    Parameters
    ----------
    rows
        Labels and scores.
    wanted
        Of `DEBIASED_METRICS`.
    population
        The schema's; a log of clicks says nothing of exposures.
    level
        Nominal coverage.
    """
    if not wanted or not {"ctr", "cvr"}.issubset(rows.scores.odds):
        return Debiased({})
    used = _Exposures.of(rows)
    if population == "click":
        found, seen = dict.fromkeys(_pairs(), Estimate.none("log of clicks")), None
    elif rows.asked:
        found, seen = dict.fromkeys(_pairs(), Estimate.none("every row was clicked on demand")), None
    else:
        found, seen = used.estimates(level), used.overlap
    if seen is not None and seen.thin:
        withheld = Estimate.none(seen.verdict)
        found |= {pair: withheld for pair in found if pair[1] in WEIGHTED and found[pair].value is not None}
    positives = int(np.count_nonzero((used.click == 1) & (used.conversion == 1)))
    metrics = {}
    for (metric, estimator), estimate in found.items():
        variant = f"estimator={estimator}"
        if format_metric(metric, variant) in wanted:
            metrics[str(MetricName("cvr", metric, "exposure", variant))] = Metric(
                estimate.value,
                estimate.low,
                estimate.high,
                estimate.level,
                used.method(estimate, estimator),
                len(used.click),
                positives,
                estimate.undefined,
                "cvr" in rows.scores.derived and (metric == "logloss" or estimator == "dr"),
            )
    return Debiased(metrics, seen, used.censored)


def _pairs() -> list[tuple[str, str]]:
    return [(metric, estimator) for metric in DEBIASED for estimator in ESTIMATORS]
