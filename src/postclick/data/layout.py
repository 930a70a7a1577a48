"""How encoded exposures lie in a file: one Arrow record batch a block, a column a part of `Exposures`."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from postclick.data.arrays import Exposures, Labels, Ragged
from postclick.errors import DataError, Finding
from postclick.schema import Schema

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["from_arrow", "label_from_arrow", "labels_from_arrow", "matrix_from_arrow", "to_arrow"]


def to_arrow(exposures: Exposures, schema: Schema) -> pa.RecordBatch:
    """Lay encoded exposures out as one Arrow record batch, the form on disk."""
    import pyarrow as pa

    arrays: dict[str, Any] = {}
    for name, matrix in (("rows", exposures.rows), ("dense", exposures.dense), ("embeddings", exposures.embeddings)):
        flat = pa.array(np.ascontiguousarray(matrix).reshape(-1))
        if matrix.shape[1]:
            arrays[name] = pa.FixedSizeListArray.from_arrays(flat, matrix.shape[1])
    for feature, ragged in zip(schema.sequences, exposures.sequences, strict=True):
        offsets = pa.array(ragged.offsets)
        arrays[f"sequence:{feature.name}"] = pa.LargeListArray.from_arrays(offsets, pa.array(ragged.values))
        if ragged.weights is not None:
            arrays[f"weights:{feature.name}"] = pa.LargeListArray.from_arrays(offsets, pa.array(ragged.weights))
    labels = exposures.labels
    if labels is not None:
        for entry in fields(Labels):
            values = getattr(labels, entry.name)
            if values is not None:
                is_text = values.dtype.kind in "OUT"
                arrays[f"label:{entry.name}"] = (
                    pa.array(values.tolist(), pa.large_string()) if is_text else pa.array(values)
                )
    if not arrays:
        raise DataError(Finding("data.empty", "a batch without any column"))
    return pa.RecordBatch.from_pydict(arrays)


def matrix_from_arrow(batch: pa.RecordBatch, name: str, kind: type[Any]) -> NDArray[Any]:
    """Return a column of vectors as a matrix, a view of its memory; one without columns where it is not there."""
    if name not in batch.schema.names:
        return np.zeros((batch.num_rows, 0), kind)
    column = batch.column(name)
    return np.asarray(column.flatten()).reshape(batch.num_rows, column.type.list_size)


def _ragged(batch: pa.RecordBatch, name: str) -> Ragged:
    column = batch.column(f"sequence:{name}")
    offsets = np.asarray(column.offsets)
    weights = None
    if f"weights:{name}" in batch.schema.names:
        weights = np.asarray(batch.column(f"weights:{name}").flatten())
    return Ragged(np.asarray(column.flatten()), offsets - offsets[0], weights)


def label_from_arrow(column: pa.Array) -> NDArray[Any]:
    """Return one label column as an array: numbers as a view, text as objects."""
    import pyarrow as pa

    if pa.types.is_large_string(column.type):
        return np.asarray(column.to_numpy(zero_copy_only=False), dtype=object)
    return np.asarray(column)


def labels_from_arrow(batch: pa.RecordBatch) -> Labels | None:
    """Read the labels of one record batch of the form on disk."""
    names = [entry.name for entry in fields(Labels) if f"label:{entry.name}" in batch.schema.names]
    if "click" not in names:
        return None
    return Labels(**{name: label_from_arrow(batch.column(f"label:{name}")) for name in names})


def from_arrow(batch: pa.RecordBatch, schema: Schema) -> Exposures:
    """Read one record batch of the form on disk; number columns are views of its memory."""
    return Exposures(
        matrix_from_arrow(batch, "rows", np.int32),
        matrix_from_arrow(batch, "dense", np.float32),
        matrix_from_arrow(batch, "embeddings", np.float32),
        tuple(_ragged(batch, feature.name) for feature in schema.sequences),
        labels_from_arrow(batch),
    )
