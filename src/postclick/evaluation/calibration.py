"""How calibrated a system is, in tables: reliability by bins, and every slice of the columns asked for, all at once."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from postclick.errors import printable
from postclick.evaluation.rows import EvaluationRows, Sample
from postclick.evaluation.slices import slice_masks
from postclick.evaluation.tables import CalibrationTables, ReliabilityBin, SliceRatio
from postclick.metrics import Estimate, Shrunken, SliceSums, field_rce, holm, reliability_table, shrunken, slice_sums

__all__ = ["MOST_LISTED", "calibration_tables", "field_rces"]

MOST_LISTED = 200
"""Slices of a column that are listed, the least likely to be calibrated first; tested are all."""
_LEAST_BIN = 50
_BINS = 15


def calibration_tables(rows: EvaluationRows, samples: Sequence[Sample], *, level: float = 0.95) -> CalibrationTables:
    """Return the tables of every head whose label was observed.

    A slice is tested by its sum of residuals, users clustered, against 0 (normal; at least 10 positives predicted and
    observed). All slices of all columns of one head are one family: Holm's procedure, so that "this slice is off" is
    wrong anywhere in the family with probability 1 - level at most, however many slices were looked at.

    Parameters
    ----------
    rows
        With the columns to slice by.
    samples
        Of `EvaluationRows.samples`.
    level
        Of the intervals and of the verdict.
    """
    bins: dict[str, tuple[ReliabilityBin, ...]] = {}
    ratios: dict[str, tuple[SliceRatio, ...]] = {}
    spreads: dict[str, float] = {}
    counts: dict[str, int] = {}
    verdict: list[str] = []
    masks = list(slice_masks(rows))
    for sample in samples:
        if not _usable(sample):
            continue
        place = f"{sample.head}@{sample.population}"
        bins[place] = _bins(sample, level)
        for part, mask in masks:
            chosen = sample.select(mask)
            if len(chosen) >= _LEAST_BIN and chosen.positives > 0:
                bins[f"{place}|{part}"] = _bins(chosen, level)
        sums = {column: _sums(rows, sample, column) for column in rows.slices}
        if sums:
            counts[place], off, found = _family(sums, level)
            listed = {column: entries for column, (entries, _) in found.items()}
            ratios |= {f"{place}|{column}": entries for column, entries in listed.items()}
            spreads |= {f"{place}|{column}": shrunk.spread for column, (_, shrunk) in found.items() if shrunk}
            verdict.append(_sentence(place, listed, counts[place], off, level))
    return CalibrationTables(bins, ratios, spreads, counts, level, tuple(verdict))


def field_rces(
    rows: EvaluationRows, sample: Sample, columns: Sequence[str], *, level: float, seed: int
) -> dict[str, Estimate]:
    """Return Field-RCE of a sample by each of `columns`, over all their values."""
    if sample.undefined is not None:
        return dict.fromkeys(columns, Estimate.none(sample.undefined))
    if not len(sample) or not _numbers(sample):
        return dict.fromkeys(columns, Estimate.none("scores are not numbers" if len(sample) else "no rows"))
    found = {}
    for column in columns:
        sums, _ = _sums(rows, sample, column)
        found[column] = field_rce(sums, sample.label, level=level, seed=seed)
    return found


def _numbers(sample: Sample) -> bool:
    return not bool(np.isnan(np.min(sample.odds)))


def _usable(sample: Sample) -> bool:
    observed = sample.undefined is None and sample.population != "world" and len(sample) > 0
    return observed and _numbers(sample) and (sample.weight is None or float(sample.weight.sum()) > 0.0)


def _bins(sample: Sample, level: float) -> tuple[ReliabilityBin, ...]:
    count = int(np.clip(len(sample) // _LEAST_BIN, 1, _BINS))
    table = reliability_table(sample.odds, sample.label, sample.weight, count, sample.user)
    columns = (table.rows.astype(int), *table.rates(level))
    return tuple(ReliabilityBin(*row) for row in zip(*(column.tolist() for column in columns), strict=True))


def _sums(rows: EvaluationRows, sample: Sample, column: str) -> tuple[SliceSums, list[str]]:
    """Return the sums of the slices that the sample has, and their values as text."""
    codes, values = rows.codes[column], rows.slices[column]
    if sample.places is not None:
        codes, values = codes[sample.places], values[sample.places]
    held = np.bincount(codes) > 0
    codes = (np.cumsum(held) - 1)[codes]
    one = np.zeros(np.count_nonzero(held), np.int64)
    one[codes] = np.arange(len(codes))  # a row of each slice; all have the same value
    sums = slice_sums(sample.odds, sample.label, codes, sample.weight, sample.user)
    return sums, [printable(values[place]) for place in one]


def _family(
    sums: Mapping[str, tuple[SliceSums, list[str]]], level: float
) -> tuple[int, int, dict[str, tuple[tuple[SliceRatio, ...], Shrunken | None]]]:
    """Return how many slices were tested together, how many of them are off, and each column's slices."""
    raw = {column: entry.p for column, (entry, _) in sums.items()}
    adjusted = holm(np.concatenate(list(raw.values())).tolist())
    tested = int(np.count_nonzero(~np.isnan(adjusted)))
    off = int(np.count_nonzero(adjusted <= 1.0 - level))
    together = 1.0 - (1.0 - level) / max(tested, 1)
    found, start = {}, 0
    for column, (entry, values) in sums.items():
        p = adjusted[start : start + len(values)]
        start += len(values)
        shrunk = shrunken(entry, level=level)
        order = np.lexsort((-entry.rows, np.where(np.isnan(raw[column]), 2.0, raw[column])))
        columns = _columns(entry, p, shrunk, together)
        listed = tuple(
            SliceRatio(values[place], int(entry.rows[place]), *(each[place] for each in columns))
            for place in order[:MOST_LISTED].tolist()
        )
        found[column] = listed, shrunk
    return tested, off, found


def _columns(entry: SliceSums, p: NDArray[np.float64], shrunk: Shrunken | None, level: float) -> list[list[Any]]:
    drawn: list[NDArray[np.float64]] = [np.full(len(p), np.nan)] * 3
    if shrunk is not None:
        drawn = [shrunk.value, shrunk.low, shrunk.high]
    columns = (entry.predicted, entry.observed, *entry.pcoc(level), np.minimum(p, 1.0), *drawn)
    return [[value if math.isfinite(value) else None for value in column.tolist()] for column in columns]


def _sentence(place: str, tables: Mapping[str, tuple[SliceRatio, ...]], tested: int, off: int, level: float) -> str:
    """Say whether any slice is off, and which is the worst; the worst is listed, however many are `off`."""
    if not tested:
        return f"{place}: no slice has the 10 positives that a test of its calibration needs"
    if not off:
        return f"{place}: no slice of {tested} can be told apart from calibrated (Holm over all, {level:.0%})"
    sure = ((column, each) for column, listed in tables.items() for each in listed if each.p is not None)
    column, worst = min(sure, key=lambda found: (found[1].p or 0.0, -abs(math.log(found[1].pcoc or 1.0))))
    ends = f"[{worst.low:.2f}, {worst.high:.2f}]" if worst.low is not None and worst.high is not None else ""
    return (
        f"{place}: {off} of {tested} slices are off (Holm over all, {level:.0%}); the surest is "
        f"{column}={worst.value}, PCOC {worst.pcoc:.2f} {ends}"
    )
