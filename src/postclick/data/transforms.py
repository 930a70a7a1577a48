"""Dense features: statistics over the training rows, merged from parts, and the transforms fitted to them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from postclick import files
from postclick.errors import DataError, Finding
from postclick.schema import Schema

__all__ = ["DenseStatistics", "Transform", "Transforms"]

TRANSFORMS_FORMAT = 1
_FILE = "transforms.json"
_SAMPLE = 100_000
"""Rows kept for quantiles; the standard error of a rank is below 0.16 % of the range."""
_KNOTS = 1_001

Matrix = NDArray[np.float64]


def _signed_log(values: Matrix) -> Matrix:
    return np.sign(values) * np.log1p(np.abs(values))


@dataclass(frozen=True)
class DenseStatistics:
    """Count, mean and squared deviation a dense feature, and a sample of rows for quantiles; parts are merged.

    Parameters
    ----------
    count, mean, squares
        [N]: values present, their mean, the sum of squared deviations from it (after the log where one is declared).
    keys, sample
        uint64 [K] row hashes in ascending order and float64 [K, Q] raw values (NaN missing) of the Q features that ask
        for quantiles: the rows with the smallest hashes, so the sample depends on the rows alone. K is 0 where Q is.
    """

    count: NDArray[np.int64]
    mean: Matrix
    squares: Matrix
    keys: NDArray[np.uint64]
    sample: Matrix

    @classmethod
    def of(cls, values: Matrix, keys: NDArray[np.uint64], schema: Schema) -> DenseStatistics:
        """Summarise raw values.

        Parameters
        ----------
        values
            float64 [B, N], NaN where missing.
        keys
            uint64 [B], a hash of each row.
        schema
            Names the transforms.
        """
        logs = [feature.transform == "log" for feature in schema.dense]
        shaped = np.where(np.asarray(logs, np.bool_), _signed_log(values), values)
        present = ~np.isnan(shaped)
        count = present.sum(axis=0).astype(np.int64)
        divisor = np.maximum(count, 1)
        mean = np.where(present, shaped, 0.0).sum(axis=0) / divisor
        squares = (np.where(present, shaped - mean, 0.0) ** 2).sum(axis=0)
        wanted = np.asarray([feature.transform == "quantile" for feature in schema.dense], np.bool_)
        order = np.argsort(keys, kind="stable")[: _SAMPLE if wanted.any() else 0]
        return cls(count, mean, squares, keys[order], values[order][:, wanted])

    def merge(self, other: DenseStatistics) -> DenseStatistics:
        """Return the statistics of both parts together (Chan, Golub and LeVeque 1983)."""
        count = self.count + other.count
        divisor = np.maximum(count, 1)
        delta = other.mean - self.mean
        mean = self.mean + delta * other.count / divisor
        squares = self.squares + other.squares + delta**2 * self.count * other.count / divisor
        keys = np.concatenate([self.keys, other.keys])
        order = np.argsort(keys, kind="stable")[:_SAMPLE]
        return DenseStatistics(count, mean, squares, keys[order], np.concatenate([self.sample, other.sample])[order])


@dataclass(frozen=True)
class Transform:
    """One fitted dense feature.

    Parameters
    ----------
    name, kind, missing
        As the schema declares them.
    mean, scale
        Of the training rows, after the log where `kind` is ``log``; scale is 1 for a constant.
    fill
        What a missing value becomes, transformed.
    knots
        Values at equally spaced ranks, for ``quantile``.
    """

    name: str
    kind: str
    missing: str
    mean: float
    scale: float
    fill: float = 0.0
    knots: tuple[float, ...] = ()

    def __call__(self, values: Matrix) -> Matrix:
        """Return transformed values, NaN kept."""
        if self.kind == "none":
            return values
        if self.kind == "quantile":
            return self._rank(values)
        shaped = _signed_log(values) if self.kind == "log" else values
        return (shaped - self.mean) / self.scale

    def _rank(self, values: Matrix) -> Matrix:
        """Return the rank in the training rows, in [-1, 1]; a run of equal knots counts as its middle."""
        knots = np.asarray(self.knots)
        ranks = np.linspace(-1.0, 1.0, len(knots)) if len(knots) > 1 else np.zeros(1)
        upper = np.interp(values, knots, ranks)
        lower = -np.interp(-values, -knots[::-1], -ranks[::-1])
        return 0.5 * (upper + lower)


def _fit(schema: Schema, statistics: DenseStatistics, position: int) -> Transform:
    feature = schema.dense[position]
    count, mean = int(statistics.count[position]), float(statistics.mean[position])
    deviation = float(np.sqrt(statistics.squares[position] / max(count, 1)))
    # below rounding error of the mean the column is constant, and dividing by it would blow noise up
    scale = deviation if deviation > 1e-12 * max(abs(mean), 1e-300) else 1.0
    knots: tuple[float, ...] = ()
    if feature.transform == "quantile":
        before = sum(item.transform == "quantile" for item in schema.dense[:position])
        column = statistics.sample[:, before]
        column = column[~np.isnan(column)]
        levels = np.linspace(0.0, 1.0, min(_KNOTS, max(len(column), 1)))
        knots = tuple(float(knot) for knot in (np.quantile(column, levels) if len(column) else (0.0,)))
    fitted = Transform(feature.name, feature.transform, feature.missing, mean, scale, 0.0, knots)
    # the mean of a standardised column is 0 in either space; elsewhere it is that of the raw values
    raw_fill = 0.0 if feature.missing == "zero" else mean
    if feature.missing != "zero" and feature.transform in ("standard", "log"):
        return fitted
    return dataclasses.replace(fitted, fill=float(fitted(np.asarray([raw_fill]))[0]))


@dataclass(frozen=True)
class Transforms:
    """The fitted dense features in the order of `Schema.dense`."""

    features: tuple[Transform, ...] = ()

    @classmethod
    def fit(cls, schema: Schema, statistics: DenseStatistics) -> Transforms:
        """Fit the declared transforms to statistics of the training rows."""
        return cls(tuple(_fit(schema, statistics, position) for position in range(len(schema.dense))))

    def apply(self, values: Matrix) -> NDArray[np.float32]:
        """Return float32 [B, N] from raw float64 [B, N]; missing values become their fill."""
        result = np.empty(values.shape, np.float32)
        for position, transform in enumerate(self.features):
            column = values[:, position]
            result[:, position] = np.where(np.isnan(column), transform.fill, transform(column))
        return result

    def save(self, folder: Path) -> None:
        """Write ``transforms.json`` into a vocabulary folder."""
        body = {"format": TRANSFORMS_FORMAT, "features": [dataclasses.asdict(item) for item in self.features]}
        files.write_json(folder / _FILE, body)

    @classmethod
    def load(cls, folder: Path, contents: Mapping[str, bytes] | None = None) -> Transforms:
        """Read what `save` wrote, from `contents` (name -> bytes) where the folder's files were read already."""
        body: Mapping[str, Any] = files.read_json(folder / _FILE) if contents is None else json.loads(contents[_FILE])
        if body.get("format") != TRANSFORMS_FORMAT:
            what = f"transforms format {body.get('format')!r} is not {TRANSFORMS_FORMAT}"
            raise DataError(Finding("data.corrupt_file", what, str(folder / _FILE), fix="upgrade postclick"))
        return cls(tuple(Transform(**{**item, "knots": tuple(item["knots"])}) for item in body["features"]))
