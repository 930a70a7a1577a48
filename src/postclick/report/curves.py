"""Calibration curves and slices: read from an evaluation, or made from scored rows as an evaluation makes them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from postclick.evaluation.tables import CalibrationTables
from postclick.report.facts import Curve, Slices

if TYPE_CHECKING:
    from postclick.evaluation import EvaluationRows

__all__ = ["curves_of", "scored", "slices_of"]


def curves_of(evaluation: Mapping[str, Any]) -> tuple[Curve, ...]:
    """Return the curves that an evaluation carries, key ``reliability``; none in one of an older version."""
    found = evaluation.get("reliability") or {}
    columns = ("predicted", "observed", "rows", "low", "high")
    return tuple(
        _curve(str(place), ([entry[key] for entry in bins] for key in columns)) for place, bins in found.items()
    )


def slices_of(evaluation: Mapping[str, Any]) -> Slices:
    """Return the tested slices that an evaluation carries, key ``slices``; none in one of an older version."""
    form = evaluation.get("slices")
    return Slices() if not form else _slices(CalibrationTables.from_dict({"reliability": {}, "slices": form}))


def scored(rows: EvaluationRows, population: str) -> tuple[tuple[Curve, ...], Slices]:
    """Return the curves of every head and slice, with every slice tested, of rows that were scored.

    They are those of ``evaluate --by``, intervals clustered by user; in a world also curves against the true
    probabilities, which have no noise and so no intervals.

    Parameters
    ----------
    rows
        Labels, scores, truth where known, columns to slice by.
    population
        The schema's: in a log of clicks nothing is known of exposures.
    """
    from postclick.evaluation.calibration import calibration_tables
    from postclick.metrics.reliability import reliability_table

    samples = rows.samples(population)
    tables = calibration_tables(rows, samples)
    curves = list(curves_of(tables.to_dict()))
    for sample in samples:
        if sample.population == "world" and sample.undefined is None and len(sample):
            table = reliability_table(sample.odds, sample.label, sample.weight)
            predicted, true, _, _ = table.rates()
            curves.append(_curve(f"{sample.head}@world", (predicted, true, table.rows)))
    return tuple(curves), _slices(tables)


def _curve(place: str, columns: Iterable[Iterable[float]]) -> Curve:
    return Curve(place, *(tuple(float(value) for value in column) for column in columns))


def _slices(tables: CalibrationTables) -> Slices:
    return Slices(tables.ratios, tables.spread, tables.tested, tables.level, tables.verdict)
