"""Raw columns to `Exposures`: the one encoder of `prepare`, of `score` and of the service."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from postclick.data.arrays import Exposures, Ragged
from postclick.data.columns import as_kind, column, ids, numbers, require_columns, vectors
from postclick.data.sequences import read_sequence
from postclick.data.transforms import Transforms
from postclick.data.vocabulary import Vocabulary
from postclick.errors import DataError, Finding
from postclick.schema import EmbeddingFeature, Feature, Schema, SequenceFeature, SparseFeature

__all__ = ["EncodeCounts", "Encoder", "FieldCounts", "feature_columns"]

_LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class FieldCounts:
    """What the encoder met in one feature: values = kept + truncated + rejected, and unseen is part of kept.

    Parameters
    ----------
    values
        Values read.
    unseen
        Values kept that are not in the vocabulary: they take the unknown row.
    missing
        Rows without a value: null, or an empty list.
    truncated
        Values past the feature's maximal length.
    rejected
        Values that are null inside a list, empty, or no id.
    """

    values: int = 0
    unseen: int = 0
    missing: int = 0
    truncated: int = 0
    rejected: int = 0

    def __add__(self, other: FieldCounts) -> FieldCounts:
        return FieldCounts(*(getattr(self, item.name) + getattr(other, item.name) for item in fields(self)))

    @property
    def kept(self) -> int:
        """Values that were encoded."""
        return self.values - self.truncated - self.rejected

    @property
    def unseen_rate(self) -> float:
        """Share of unseen values among those kept; 0 where there is none."""
        return self.unseen / self.kept if self.kept else 0.0


@dataclass(frozen=True)
class EncodeCounts:
    """Counts over encoded rows; counts of parts are added.

    Parameters
    ----------
    rows
        Rows encoded.
    fields
        Feature name -> its counts.
    """

    rows: int = 0
    fields: Mapping[str, FieldCounts] = field(default_factory=dict)

    def __add__(self, other: EncodeCounts) -> EncodeCounts:
        names = dict.fromkeys((*self.fields, *other.fields))
        empty = FieldCounts()
        joined = {name: self.fields.get(name, empty) + other.fields.get(name, empty) for name in names}
        return EncodeCounts(self.rows + other.rows, joined)


def feature_columns(schema: Schema, *, serving: bool = False) -> tuple[str, ...]:
    """Return the columns that `Encoder.encode` reads; when serving, without those that are absent or fixed then."""
    names = []
    for feature in schema.features:
        if serving and feature.serving != "given":
            continue
        names.append(feature.name)
        if isinstance(feature, SequenceFeature) and feature.weights:
            names.append(feature.weights)
    return tuple(names)


class Encoder:
    """Encodes features; labels are `postclick.data.labels`'.

    Parameters
    ----------
    schema
        The log's or bundle's schema.
    vocabulary
        Values and their rows, in the order of ``schema.fields``.
    transforms
        Fitted dense features, in the order of ``schema.dense``.

    Raises
    ------
    DataError
        Where vocabulary or transforms are of another schema.
    """

    def __init__(self, schema: Schema, vocabulary: Vocabulary, transforms: Transforms) -> None:
        self.schema, self.vocabulary, self.transforms = schema, vocabulary, transforms
        problems = []
        pairs = (
            ("fields", [item.name for item in schema.fields], [item.name for item in vocabulary.fields]),
            ("dense features", [item.name for item in schema.dense], [item.name for item in transforms.features]),
        )
        for what, wanted, found in pairs:
            if wanted != found:
                text = f"the schema's {what} are {wanted}, the vocabulary's {found}"
                problems.append(Finding("data.schema_mismatch", text, fix="use the schema of the vocabulary's folder"))
        if problems:
            raise DataError(*problems)

    @classmethod
    def load(cls, folder: str | Path, schema: Schema, contents: Mapping[str, bytes] | None = None) -> Encoder:
        """Read the ``vocabulary/`` folder of a LOG or a BUNDLE.

        Parameters
        ----------
        folder
            Where it is.
        schema
            That of the LOG or BUNDLE.
        contents
            The folder's files by name where they were read and checked already (a bundle); then nothing is read.
        """
        place = Path(folder)
        return cls(schema, Vocabulary.load(place, contents), Transforms.load(place, contents))

    def encode(self, batch: pa.RecordBatch | pa.Table, *, serving: bool = False) -> tuple[Exposures, EncodeCounts]:
        """Encode the features of B rows, in order.

        Parameters
        ----------
        batch
            Raw columns named as in the schema; others are ignored.
        serving
            Apply the features' ``serving``: ``absent`` is the unknown row, an empty list, the missing value; a constant
            is that value in every row. Their columns need not be there.

        Returns
        -------
        tuple
            `Exposures` without labels, and what was met.

        Raises
        ------
        DataError
            Missing columns (all of them, with the likely spelling), columns of the wrong type, vectors of the wrong
            size, numbers that are not finite.
        """
        require_columns(batch, feature_columns(self.schema, serving=serving))
        if serving:
            batch = self._serving(batch)
        counts: dict[str, FieldCounts] = {}
        rows = np.empty((batch.num_rows, len(self.schema.sparse)), np.int32)
        for position, feature in enumerate(self.schema.sparse):
            rows[:, position], counts[feature.name] = self._sparse(batch, feature)
        sequences = []
        for sequence in self.schema.sequences:
            ragged, counts[sequence.name] = self._sequence(batch, sequence)
            sequences.append(ragged)
        dense = self._dense(batch, counts, serving)
        embeddings = self._embeddings(batch, counts)
        return Exposures(rows, dense, embeddings, tuple(sequences)), EncodeCounts(batch.num_rows, counts)

    def _sparse(self, batch: Any, feature: SparseFeature) -> tuple[NDArray[np.int32], FieldCounts]:
        array, rejected = ids(column(batch, feature.name), feature.name)
        entry = self.vocabulary.field(feature.name)
        missing = array.null_count - rejected
        rows = entry.lookup.rows(as_kind(array, entry.kind))
        unseen = int(np.count_nonzero(rows == entry.unknown)) - array.null_count
        return rows, FieldCounts(len(array) - missing, unseen, missing, 0, rejected)

    def _sequence(self, batch: Any, feature: SequenceFeature) -> tuple[Ragged, FieldCounts]:
        found = read_sequence(batch, feature)
        entry = self.vocabulary.field(feature.name)
        rows = entry.lookup.rows(as_kind(found.values, entry.kind))
        unseen = int(np.count_nonzero(rows == entry.unknown))
        missing = int(np.count_nonzero(np.diff(found.offsets) == 0))
        ragged = Ragged(rows, found.offsets, found.weights)
        return ragged, FieldCounts(found.read, unseen, missing, found.truncated, found.rejected)

    def _dense(self, batch: Any, counts: dict[str, FieldCounts], serving: bool) -> NDArray[np.float32]:
        raw = np.empty((batch.num_rows, len(self.schema.dense)))
        for position, feature in enumerate(self.schema.dense):
            values = numbers(column(batch, feature.name), feature.name)
            absent = np.isnan(values)
            missing = int(np.count_nonzero(absent))
            wrong = ~absent & (np.abs(values) > _LARGEST)
            if feature.missing == "reject" and not (serving and feature.serving == "absent"):
                wrong |= absent
            if wrong.any():
                _refuse(feature, wrong, values)
            counts[feature.name] = FieldCounts(len(values) - missing, 0, missing)
            raw[:, position] = values
        return self.transforms.apply(raw)

    def _embeddings(self, batch: Any, counts: dict[str, FieldCounts]) -> NDArray[np.float32]:
        features = self.schema.embeddings
        result = np.zeros((batch.num_rows, sum(feature.size for feature in features)), np.float32)
        first = 0
        for feature in features:
            values, absent = vectors(column(batch, feature.name), feature.size, feature.name)
            wrong: NDArray[np.bool_] = np.asarray(~(np.abs(values) <= _LARGEST).all(axis=1))
            if wrong.any():
                _refuse(feature, wrong, None)
            result[:, first : first + feature.size] = values
            first += feature.size
            missing = int(np.count_nonzero(absent))
            counts[feature.name] = FieldCounts(len(values) - missing, 0, missing)
        return result

    def _serving(self, batch: pa.RecordBatch | pa.Table) -> pa.Table:
        """Return a table in which absent features are null and fixed ones constant."""
        names = feature_columns(self.schema, serving=True)
        columns = {name: batch.column(name) for name in names}
        for feature in self.schema.features:
            if feature.serving != "given":
                columns |= _fixed(feature, batch.num_rows)
        return pa.table(columns)


def _fixed(feature: Feature, rows: int) -> dict[str, pa.Array]:
    """Return the columns of a feature that does not come with the request."""
    value: Any = None if feature.serving == "absent" else feature.serving
    if isinstance(feature, SequenceFeature):
        lists = pa.nulls(rows) if value is None else pa.array([[value]]).take(pa.array(np.zeros(rows, np.int64)))
        columns = {feature.name: lists}
        if feature.weights:
            ones = pa.array([[1.0]]).take(pa.array(np.zeros(rows, np.int64)))
            columns[feature.weights] = pa.nulls(rows) if value is None else ones
        return columns
    if isinstance(feature, EmbeddingFeature):
        value = None if value is None else [float(value)] * feature.size
    return {feature.name: pa.nulls(rows) if value is None else pa.repeat(pa.scalar(value), rows)}


def _refuse(feature: Feature, wrong: NDArray[np.bool_], values: NDArray[np.float64] | None) -> None:
    first = int(np.flatnonzero(wrong)[0])
    examples = () if values is None else tuple(str(value) for value in values[wrong][:3])
    what = f"{feature.name!r} holds numbers that are infinite, or missing where that is not allowed"
    fix = "repair the numbers, or declare what missing ones mean"
    place = f"row {first}:{feature.name}"
    raise DataError(Finding("data.non_finite", what, place, int(wrong.sum()), examples, fix))
