"""What a comparison reads of one scoring: each metric's value and influence, small however many rows there are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from postclick.data.arrays import Labels
from postclick.data.log import Truth
from postclick.data.scores import Scores
from postclick.evaluation.names import MetricName
from postclick.evaluation.rows import EvaluationRows, Sample
from postclick.metrics.bootstrap import MOST_UNITS, fold_units
from postclick.metrics.influence import Influence, influence

__all__ = ["Reading", "Samples", "readings", "samples_of"]

Samples = Mapping[tuple[str, str], Sample]


@dataclass(frozen=True)
class Reading:
    """One metric of one scoring.

    Parameters
    ----------
    influence
        The value and what each user (row) adds to it, folded into at most 32,768 units.
    derived
        The system has no output of its own for this head.
    undefined
        Why there is no value, else None.
    n, positives
        Rows, and positives among them (or their soft sum).
    clustered
        Rows of one user count as one unit.
    """

    influence: Influence
    derived: bool = False
    undefined: str | None = None
    n: int = 0
    positives: float = 0
    clustered: bool = False


def samples_of(heads: Sequence[Scores], labels: Labels, truth: Truth | None, population: str) -> Samples:
    """Return the rows of each head on each population: labels decide them, so they are the same for all systems."""
    odds = {head: column for scores in heads for head, column in scores.odds.items()}
    found = EvaluationRows(labels, Scores(odds, {}), truth).samples(population)
    return {(sample.head, sample.population): sample for sample in found}


def readings(scores: Scores, samples: Samples, names: Sequence[MetricName]) -> dict[str, Reading]:
    """Return what `compare_readings` needs of one scoring, by metric.

    Parameters
    ----------
    scores
        Of the rows that `samples` came from.
    samples
        As `samples_of` gives them.
    names
        Metrics that can be compared.
    """
    return {str(name): _reading(scores, samples.get((name.head, name.population)), name) for name in names}


def _reading(scores: Scores, sample: Sample | None, name: MetricName) -> Reading:
    derived = name.head in scores.derived
    reason = f"these rows have no {name.head}@{name.population}" if sample is None else sample.undefined
    if name.head not in scores.odds:
        reason = f"no score of {name.head}"
    if sample is None:
        return Reading(Influence.none(""), derived, reason)
    counts = len(sample), sample.positives, sample.user is not None
    if reason is not None:
        return Reading(Influence.none(""), derived, reason, *counts)
    unit, _ = fold_units(sample.user, len(sample), MOST_UNITS)
    found = _influence(scores, name, sample, unit)
    return Reading(found, derived, found.undefined, *counts)


def _influence(scores: Scores, name: MetricName, sample: Sample, unit: NDArray[np.int64]) -> Influence:
    column = scores.raw.get(name.head, scores.odds[name.head]) if name.variant else scores.odds[name.head]
    odds = np.ascontiguousarray(column if sample.places is None else column[sample.places], np.float64)
    return influence(name.metric, odds, sample.label, weight=sample.weight, user=sample.user, unit=unit)
