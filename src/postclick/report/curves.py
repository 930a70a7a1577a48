"""Calibration curves: read from an evaluation, or made from scored rows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from postclick.evaluation.tables import CalibrationTables
from postclick.report.facts import Curve, Slices

if TYPE_CHECKING:
    from postclick.evaluation import EvaluationRows
    from postclick.metrics.reliability import Reliability

__all__ = ["BINS", "curves_of", "scored_curves", "scored_slices", "slices_of", "wilson"]

BINS = 15
_LEAST_ROWS = 100
"""A slice of fewer rows has no curve."""
_MOST_SLICES = 6
"""Slices a column with a curve, the largest ones."""
_Z = 1.959964
"""Of a 95 % interval."""


def wilson(positives: float, rows: float) -> tuple[float, float]:
    """Return the ends of a 95 % interval of a rate (Wilson 1927)."""
    if rows <= 0.0:
        return 0.0, 1.0
    rate, square = positives / rows, _Z * _Z
    middle = (rate + square / (2.0 * rows)) / (1.0 + square / rows)
    half = _Z / (1.0 + square / rows) * math.sqrt(max(rate * (1.0 - rate), 0.0) / rows + square / (4.0 * rows * rows))
    return max(0.0, middle - half), min(1.0, middle + half)


def curves_of(evaluation: Mapping[str, Any]) -> tuple[Curve, ...]:
    """Return the curves that an evaluation carries, key ``reliability``; none in one of an older version."""
    found = []
    for place, bins in (evaluation.get("reliability") or {}).items():
        columns = ("predicted", "observed", "rows", "low", "high")
        found.append(Curve(str(place), *(tuple(float(entry[key]) for entry in bins) for key in columns)))
    return tuple(found)


def slices_of(evaluation: Mapping[str, Any]) -> Slices:
    """Return the tested slices that an evaluation carries, key ``slices``; none in one of an older version."""
    form = evaluation.get("slices")
    return Slices() if not form else _slices(CalibrationTables.from_dict({"reliability": {}, "slices": form}))


def scored_slices(rows: EvaluationRows, population: str) -> Slices:
    """Return the level of every slice of the columns that `rows` carry, tested all together; none without columns."""
    from postclick.evaluation.calibration import calibration_tables

    return _slices(calibration_tables(rows, rows.samples(population))) if rows.slices else Slices()


def _slices(tables: CalibrationTables) -> Slices:
    return Slices(tables.ratios, tables.spread, tables.tested, tables.level, tables.verdict)


def scored_curves(rows: EvaluationRows, population: str) -> tuple[Curve, ...]:
    """Return a curve for every head and population, whole and by slice, of rows that were scored.

    Parameters
    ----------
    rows
        Labels, scores, truth where known, slices.
    population
        The schema's: in a log of clicks nothing is known of exposures.
    """
    from postclick.evaluation.slices import slice_masks
    from postclick.metrics.reliability import reliability_table

    found: list[Curve] = []
    samples = [sample for sample in rows.samples(population) if sample.undefined is None and len(sample)]
    for sample in samples:
        place = f"{sample.head}@{sample.population}"
        found.append(_curve(place, reliability_table(sample.odds, sample.label, sample.weight, BINS)))
    for part, mask in _largest(list(slice_masks(rows))):
        for sample in samples:
            chosen = sample.select(mask)
            if len(chosen) >= _LEAST_ROWS:
                table = reliability_table(chosen.odds, chosen.label, chosen.weight, min(BINS, len(chosen) // 50))
                found.append(_curve(f"{sample.head}@{sample.population}|{part}", table))
    return tuple(found)


def _largest(parts: Sequence[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """Keep the largest values of every column."""
    columns: dict[str, list[tuple[str, Any]]] = {}
    for part, mask in parts:
        columns.setdefault(part.partition("=")[0], []).append((part, mask))
    kept = []
    for found in columns.values():
        kept += sorted(found, key=lambda entry: -int(entry[1].sum()))[:_MOST_SLICES]
    return kept


def _curve(place: str, table: Reliability) -> Curve:
    rates = (table.predicted / table.mass, table.observed / table.mass, table.rows)
    predicted, observed, rows = (tuple(float(value) for value in column) for column in rates)
    if "@world" in place:  # a true probability has no noise
        return Curve(place, predicted, observed, rows)
    ends = [wilson(rate * count, count) for rate, count in zip(observed, rows, strict=True)]
    return Curve(place, predicted, observed, rows, tuple(low for low, _ in ends), tuple(high for _, high in ends))
