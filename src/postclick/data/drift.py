"""How far the features of two splits lie apart: the population stability index a field, in numbers and in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from postclick.data.columns import column, numbers
from postclick.schema import Schema, SparseFeature

__all__ = ["Drift", "drifts", "stability_index"]

_BINS = 20
_AT_LEAST = 200
_MODERATE, _LARGE = 0.1, 0.25
"""The usual reading of the index in credit scoring (Siddiqi 2006): below .1 stable, over .25 another population."""
_NOISE = 3.0


@dataclass(frozen=True)
class Drift:
    """One field between two splits.

    Parameters
    ----------
    psi
        Population stability index, 0 and up.
    noise
        What two samples of this size of one population give on average.
    word
        ``stable``, ``moderate`` or ``large``; never more than stable within three times the noise.
    rows
        Sampled rows of the two splits.
    """

    psi: float
    noise: float
    word: str
    rows: tuple[int, int]


def stability_index(first: NDArray[np.float64], second: NDArray[np.float64]) -> tuple[float, float]:
    """Return the population stability index sum (p - q) ln(p / q) of two histograms, and its mean without any drift.

    Half a row is added to every bin, or an empty one would be infinite. Without drift the index is about chi-square:
    its mean is (bins - 1) (1/n + 1/m).

    Parameters
    ----------
    first, second
        Rows a bin.
    """
    n, m, bins = first.sum(), second.sum(), len(first)
    p, q = (first + 0.5) / (n + bins / 2), (second + 0.5) / (m + bins / 2)
    return float(((p - q) * np.log(p / q)).sum()), (bins - 1) * (1.0 / n + 1.0 / m)


def drifts(first: pa.Table, second: pa.Table, schema: Schema) -> dict[str, Drift]:
    """Return feature -> drift from one sample of rows to another; none where either has fewer than 200 rows.

    Categories are binned as the 19 most frequent of both samples and the rest; numbers as twentieths of the first;
    missing has a bin of its own.

    Parameters
    ----------
    first, second
        Rows of a `RowSample`.
    schema
        Names the features.
    """
    if min(len(first), len(second)) < _AT_LEAST:
        return {}
    found = {}
    for feature in schema.features:
        one, two = column(first, feature.name), column(second, feature.name)
        if pa.types.is_null(one.type) or pa.types.is_null(two.type):
            continue
        counts = _categories(one, two) if isinstance(feature, SparseFeature) else _numbers(one, two, feature.name)
        psi, noise = stability_index(*counts)
        word = "large" if psi > _LARGE else "moderate" if psi > _MODERATE else "stable"
        word = "stable" if psi <= _NOISE * noise else word
        found[feature.name] = Drift(psi, noise, word, (len(first), len(second)))
    return found


def _categories(first: pa.Array, second: pa.Array) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    whole = pa.chunked_array([first, second]).combine_chunks().dictionary_encode()
    codes = np.asarray(whole.indices.fill_null(len(whole.dictionary)), np.int64)
    size = len(whole.dictionary) + 1
    one, two = (np.bincount(part, minlength=size) for part in (codes[: len(first)], codes[len(first) :]))
    # by both samples together: the most frequent of one alone are those that its noise favours
    top = np.argsort(-(one + two)[:-1], kind="stable")[: _BINS - 1]

    def binned(counts: NDArray[Any]) -> NDArray[np.float64]:
        rest = counts[:-1].sum() - counts[top].sum()
        return np.asarray([*counts[top], rest, counts[-1]], np.float64)

    return _used(binned(one), binned(two))


def _numbers(first: pa.Array, second: pa.Array, name: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    one, two = numbers(first, name), numbers(second, name)
    known = one[~np.isnan(one)]
    edges = np.unique(np.quantile(known, np.linspace(0, 1, _BINS + 1)[1:-1])) if len(known) else np.zeros(0)

    def binned(values: NDArray[np.float64]) -> NDArray[np.float64]:
        places = np.where(np.isnan(values), len(edges) + 1, np.searchsorted(edges, values))
        return np.bincount(places, minlength=len(edges) + 2).astype(np.float64)

    return _used(binned(one), binned(two))


def _used(one: NDArray[np.float64], two: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    some = (one + two) > 0
    return one[some], two[some]
