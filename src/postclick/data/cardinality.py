"""How many rows the embedding table will have before it is built, and fields that hold far too many values (D13)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from postclick.data.counts import VocabularyCounts
from postclick.data.vocabulary import Vocabulary
from postclick.errors import DataError, Finding
from postclick.schema import Schema, SequenceFeature, SparseFeature

__all__ = ["check_cardinality", "collision_rate", "hashed", "table_bytes"]

_TIMES = 10
_FEW = 100
_EMBEDDING = 16
"""Numbers a row that estimates assume; an optimiser with moments takes three times the table."""


def table_bytes(rows: int, embedding: int = _EMBEDDING) -> int:
    """Return the bytes of a table in float32."""
    return 4 * rows * embedding


def collision_rate(values: int, buckets: int) -> float:
    """Return the expected share of `values` that share their bucket with another: 1 - (1 - 1/buckets)^(values - 1)."""
    return 1.0 - (1.0 - 1.0 / buckets) ** max(values - 1, 0) if buckets > 1 else float(values > 1)


def check_cardinality(schema: Schema, counts: VocabularyCounts, base: Vocabulary | None) -> None:
    """Refuse fields with ten times the values that were declared, or that the vocabulary to grow from has.

    Parameters
    ----------
    schema
        Declares ``expected_values``; a field with ``hash_buckets`` cannot grow.
    counts
        Of the training rows.
    base
        The vocabulary that is grown, or None.

    Raises
    ------
    DataError
        ``data.cardinality``, all of them together, with the memory that the table would take.
    """
    problems = []
    for feature in schema.fields:
        if feature.hash_buckets is not None:
            continue
        for found, wanted, whence in _bounds(feature, counts, base):
            if found >= _TIMES * wanted:
                what = f"{found:,} values where {whence} {wanted:,}: {_memory(found)}"
                fix = "check that the column holds what it should; else declare hash_buckets, or expect more values"
                problems.append(Finding("data.cardinality", what, feature.name, found, fix=fix))
                break
    if problems:
        raise DataError(*problems)


def _bounds(
    feature: SparseFeature | SequenceFeature, counts: VocabularyCounts, base: Vocabulary | None
) -> list[tuple[int, int, str]]:
    """Return (values found, values wanted, who wants them) of each bound that there is."""
    table = counts.fields[feature.name]
    bounds = []
    if feature.expected_values is not None:
        bounds.append((table.num_rows, feature.expected_values, "the schema expects"))
    if base is not None and (known := base.field(feature.name)).size >= _FEW:
        frequent = int(np.count_nonzero(np.asarray(table.column("count")) >= known.min_count))
        bounds.append((frequent, known.size, "the vocabulary has"))
    return bounds


def _memory(rows: int) -> str:
    size = table_bytes(rows) / 1e6
    return f"{size:,.1f} MB of embeddings at size {_EMBEDDING}, {3 * size:,.1f} MB with an optimiser's moments"


def hashed(schema: Schema, distinct: Mapping[str, int]) -> dict[str, float]:
    """Return field with hash buckets -> the expected share of its values that share a bucket.

    Parameters
    ----------
    schema
        Declares the buckets.
    distinct
        Values seen.
    """
    return {
        feature.name: collision_rate(distinct[feature.name], feature.hash_buckets)
        for feature in schema.fields
        if feature.hash_buckets is not None and feature.name in distinct
    }
