"""Unknown rows at export: one that training never touched becomes the mean of its field (SYSTEMS, Decision 12)."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from postclick.data.vocabulary import Vocabulary
from postclick.models.base import ConversionModel
from postclick.nn.embedding import fill_unknown_rows

__all__ = ["fill_unknown", "row_fields"]


def row_fields(vocabulary: Vocabulary) -> NDArray[np.int64]:
    """Return the field of each row of the fused table, [R]."""
    fields = np.zeros(vocabulary.table_rows, np.int64)
    for entry in vocabulary.fields:
        fields[entry.unknown] = entry.unknown
        fields[entry.rows] = entry.unknown
        if entry.buckets is not None and entry.first_bucket is not None:
            fields[entry.first_bucket : entry.first_bucket + entry.buckets] = entry.unknown
    return fields


@torch.no_grad()
def fill_unknown(model: ConversionModel, vocabulary: Vocabulary, touched: NDArray[np.bool_]) -> None:
    """Fill the untouched unknown rows of every table of `model`, in place.

    Parameters
    ----------
    model
        Trained.
    vocabulary
        Of the training log.
    touched
        bool [R]: rows that a training batch held.
    """
    if not len(vocabulary.fields) or touched[: len(vocabulary.fields)].all():
        return
    fields = torch.from_numpy(row_fields(vocabulary))
    for table in model.tables():
        if len(table) != len(fields):
            continue  # rows of entities (cstwa, reading B): ids it does not know read the fused table
        filled = fill_unknown_rows(table, fields.to(table.device), torch.from_numpy(touched).to(table.device))
        table.copy_(filled)
