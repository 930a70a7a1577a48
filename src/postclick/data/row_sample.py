"""A sample of rows in bounded memory for the audit: so many of each split and outcome, chosen by a hash of their place.

What is kept does not depend on the order in which parts are added, nor on the number of processes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from postclick.data.arrays import Labels
from postclick.data.columns import column, list_parts, numbers
from postclick.data.hashing import stable_hash
from postclick.data.ipc import read_table, write_table
from postclick.data.log import SPLITS
from postclick.schema import EmbeddingFeature, Schema, SequenceFeature

__all__ = ["OUTCOMES", "RowSample", "RowSampler", "WeightTotals"]

OUTCOMES = ("no click", "click", "conversion")
_SEED = 0x5A11E
_GROUPS = len(SPLITS) * len(OUTCOMES)
_CELLS = 6_000_000
_MOST_ROWS, _LEAST_ROWS = 20_000, 2_000
_KEY, _GROUP = "sample:key", "sample:group"
_FACTS = "postclick"
_TOP = np.uint64(np.iinfo(np.uint64).max)


@dataclass(frozen=True)
class WeightTotals:
    """Sums over one split's sample weights."""

    rows: int = 0
    total: float = 0.0
    squares: float = 0.0

    @property
    def effective(self) -> float:
        """Effective sample size (sum w)^2 / sum w^2 (Kish 1965); 0 without rows."""
        return self.total**2 / self.squares if self.squares else 0.0

    def __add__(self, other: WeightTotals) -> WeightTotals:
        return WeightTotals(self.rows + other.rows, self.total + other.total, self.squares + other.squares)


@dataclass(frozen=True)
class RowSample:
    """Sampled rows.

    Parameters
    ----------
    table
        The features (lists as their length, vectors as their norm), ``click``, ``conversion`` and ``time`` as
        ``label:*``, and where each row belongs.
    totals
        Rows there were, [splits, outcomes].
    limits
        uint64 [splits, outcomes]: rows whose key is at most this were kept.
    weights
        Of each split.
    """

    table: pa.Table
    totals: NDArray[np.int64]
    limits: NDArray[np.uint64]
    weights: tuple[WeightTotals, ...]

    def of(self, split: int, outcomes: Iterable[int] = range(len(OUTCOMES))) -> pa.Table:
        """Return a uniform sample of the rows of some outcomes of a split: all kept at the same rate, by key.

        Parameters
        ----------
        split
            0 train, 1 valid, 2 test.
        outcomes
            Positions in `OUTCOMES`.
        """
        wanted = [outcome for outcome in outcomes if self.totals[split, outcome]]
        groups, keys = (np.asarray(self.table.column(name)) for name in (_GROUP, _KEY))
        limit = min((self.limits[split, outcome] for outcome in wanted), default=_TOP)
        inside = np.isin(groups, [split * len(OUTCOMES) + outcome for outcome in wanted]) & (keys <= limit)
        found = np.flatnonzero(inside)
        return self.table.take(pa.array(found[np.argsort(keys[found], kind="stable")]))

    @staticmethod
    def folds(table: pa.Table, count: int) -> NDArray[np.int64]:
        """Return a fold a row, by a hash that has nothing to do with the choice of the row."""
        keys = np.asarray(table.column(_KEY)).view(np.int64)
        return (stable_hash(keys, seed=_SEED + 1) % np.uint64(count)).astype(np.int64)

    def save(self, path: Path) -> None:
        """Write the sample as one Arrow file."""
        facts = {
            "totals": self.totals.ravel().tolist(),
            "limits": self.limits.ravel().tolist(),
            "weights": [[item.rows, item.total, item.squares] for item in self.weights],
        }
        write_table(path, self.table.replace_schema_metadata({_FACTS: json.dumps(facts)}))

    @classmethod
    def load(cls, path: Path) -> RowSample:
        """Read what `save` wrote."""
        table = read_table(path)
        facts = json.loads(table.schema.metadata[_FACTS.encode()])
        shape = (len(SPLITS), len(OUTCOMES))
        totals = np.array(facts["totals"], np.int64).reshape(shape)
        limits = np.array(facts["limits"], np.uint64).reshape(shape)
        weights = tuple(WeightTotals(*sums) for sums in facts["weights"])
        return cls(table.replace_schema_metadata(None), totals, limits, weights)


class RowSampler:
    """Takes rows in and keeps those with the smallest hashes, at most `most` of each split and outcome.

    Parameters
    ----------
    schema
        Names the features.
    most
        Rows kept a group; None takes 20,000, fewer where there are many features.
    """

    def __init__(self, schema: Schema, most: int | None = None) -> None:
        width = len(schema.features) + 5
        self._schema = schema
        self._most = most or int(np.clip(_CELLS // (width * _GROUPS), _LEAST_ROWS, _MOST_ROWS))
        self._tables: list[pa.Table] = []
        self._held = 0
        self._totals = np.zeros(_GROUPS, np.int64)
        self._limits = np.full(_GROUPS, _TOP)
        self._weights = [WeightTotals() for _ in SPLITS]

    def add(self, block: pa.Table | pa.RecordBatch, labels: Labels, splits: NDArray[Any] | int, place: int) -> None:
        """Take B rows in.

        Parameters
        ----------
        block
            Their features in canonical types.
        labels
            What happened.
        splits
            The split of each, or of all.
        place
            A number that no other row has, of the first row; the others follow.
        """
        rows = len(labels)
        split = np.broadcast_to(np.asarray(splits, np.int64), rows)
        outcome = (labels.click == 1).astype(np.int64) + ((labels.click == 1) & (labels.conversion == 1))
        groups = split * len(OUTCOMES) + outcome
        self._totals += np.bincount(groups, minlength=_GROUPS)
        self._weigh(labels, split)
        keys = stable_hash(np.arange(place, place + rows, dtype=np.int64), seed=_SEED)
        index = np.flatnonzero(keys <= self._limits[groups])
        if not len(index):
            return
        places = pa.array(index)
        columns = {feature.name: _reduced(block, feature, places) for feature in self._schema.features}
        for name in ("click", "conversion", "time"):
            if (values := getattr(labels, name)) is not None:
                columns[f"label:{name}"] = pa.array(values[index])
        columns |= {_KEY: pa.array(keys[index]), _GROUP: pa.array(groups[index].astype(np.int8))}
        self.merge(RowSample(pa.table(columns), np.zeros(0, np.int64), np.zeros(0, np.uint64), ()))

    def _weigh(self, labels: Labels, split: NDArray[np.int64]) -> None:
        weights = labels.sample_weight
        for code in np.unique(split) if weights is not None else ():
            mine = weights[split == code]  # type: ignore[index]
            part = WeightTotals(len(mine), float(mine.sum()), float((mine**2).sum()))
            self._weights[code] += part

    def merge(self, part: RowSample) -> None:
        """Take a sample of other rows in."""
        self._tables.append(part.table)
        self._held += part.table.num_rows
        if len(part.totals):
            self._totals += part.totals.ravel()
            self._limits = np.minimum(self._limits, part.limits.ravel())
            self._weights = [mine + other for mine, other in zip(self._weights, part.weights, strict=True)]
        if self._held > 2 * self._most * _GROUPS:
            self._tables = [self._kept()]
            self._held = self._tables[0].num_rows

    def _kept(self) -> pa.Table:
        """Return the rows with the smallest keys of each group, and lower the limits to the largest of them."""
        table = pa.concat_tables(self._tables, promote_options="permissive").combine_chunks()
        groups, keys = (np.asarray(table.column(name)) for name in (_GROUP, _KEY))
        order = np.lexsort((keys, groups))
        sizes = np.bincount(groups, minlength=_GROUPS)
        rank = np.empty(len(order), np.int64)
        rank[order] = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        index = np.flatnonzero(rank < self._most)
        for group in np.flatnonzero(sizes > self._most):
            self._limits[group] = keys[index][groups[index] == group].max()
        return table.take(pa.array(index))

    def result(self) -> RowSample:
        """Return the sample."""
        shape = (len(SPLITS), len(OUTCOMES))
        empty = {_KEY: pa.array([], pa.uint64()), _GROUP: pa.array([], pa.int8())}
        table = self._kept() if self._tables else pa.table(empty)
        limits = self._limits.reshape(shape).copy()
        return RowSample(table, self._totals.reshape(shape).copy(), limits, tuple(self._weights))


def _reduced(rows: pa.Table | pa.RecordBatch, feature: Any, places: pa.Array) -> pa.Array:
    """Return one value a row at `places`: the length of a list, the norm of a vector, else what is there."""
    array = column(rows, feature.name)
    if isinstance(feature, SequenceFeature) and _listed(array.type):  # lists are counted, not copied
        return pa.array(list_parts(array, feature.name)[1]).take(places)
    array = array.take(places)
    if isinstance(feature, SequenceFeature) and feature.separator is not None and not _listed(array.type):
        return pc.binary_length(array) if not pa.types.is_null(array.type) else array
    if isinstance(feature, SequenceFeature):
        return pa.array(list_parts(array, feature.name)[1])
    if isinstance(feature, EmbeddingFeature):
        values, lengths = list_parts(array, feature.name)
        row = np.repeat(np.arange(len(lengths)), lengths)
        squares = np.bincount(row, numbers(values, feature.name) ** 2, minlength=len(lengths))
        return pa.array(np.sqrt(squares), mask=np.asarray(array.is_null()))
    return array


def _listed(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))
