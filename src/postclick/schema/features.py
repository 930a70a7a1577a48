"""The four kinds of feature, each on the side of the user, the item or the context."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

__all__ = [
    "KINDS",
    "DenseFeature",
    "EmbeddingFeature",
    "Feature",
    "SequenceFeature",
    "Side",
    "SparseFeature",
]

Side: TypeAlias = Literal["user", "item", "context"]
Serving: TypeAlias = Literal["given", "absent"] | int | float | str
"""``given``: comes with every request. ``absent``: unknown when serving. Anything else: fixed to that value."""


@dataclass(frozen=True)
class SparseFeature:
    """One id or category an exposure; each of its values owns a row of the fused embedding table.

    Parameters
    ----------
    name
        Column name.
    side
        Whose feature it is.
    min_count
        Values seen fewer times in the training rows go to the unknown row; None takes `prepare`'s ``--min-count``.
    hash_buckets
        Hash values into this many buckets instead of keeping a vocabulary.
    expected_values
        How many values the field should have; ten times as many stop `prepare` (a request id in the place of a shop),
        unless `hash_buckets` bounds the table.
    serving
        What the feature is when serving: ``given``, ``absent`` or a constant (a position trains but is fixed later).
    """

    name: str
    side: Side = "context"
    min_count: int | None = None
    hash_buckets: int | None = None
    expected_values: int | None = None
    serving: Serving = "given"


@dataclass(frozen=True)
class DenseFeature:
    """One number an exposure.

    Parameters
    ----------
    name, side, serving
        As `SparseFeature`.
    transform
        ``standard``: (x - mean) / std; ``log``: sign(x) log(1 + abs(x)), then standard; ``quantile``: rank in the
        training rows, to [-1, 1]; ``none``. Fitted on training rows only.
    missing
        What a null or NaN becomes: the training ``mean``, ``zero`` (before the transform), or ``reject`` the row.
        An infinity is never missing: its row is rejected.
    """

    name: str
    side: Side = "context"
    transform: Literal["standard", "log", "quantile", "none"] = "standard"
    missing: Literal["mean", "zero", "reject"] = "mean"
    serving: Serving = "given"


@dataclass(frozen=True)
class SequenceFeature:
    """Several values an exposure, optionally weighted, pooled to one vector.

    Parameters
    ----------
    name, side, min_count, hash_buckets, expected_values, serving
        As `SparseFeature`.
    weights
        Column of weights, one a value, or None for weight 1.
    pooling
        ``mean`` divides the weighted sum by the sum of weights, ``sum`` does not. ``target-attention`` weights each
        value by how it fits `target`, as learned.
    max_length
        Later values are cut off and counted in the value ledger.
    separator
        Splits a text column into values; None where the column holds lists.
    target
        With ``target-attention``: the sparse feature that the values are held against. None takes the column of
        `Columns.item_id` where that is a sparse feature.
    """

    name: str
    side: Side = "context"
    weights: str | None = None
    pooling: Literal["mean", "sum", "target-attention"] = "mean"
    max_length: int = 50
    separator: str | None = None
    min_count: int | None = None
    hash_buckets: int | None = None
    expected_values: int | None = None
    serving: Serving = "given"
    target: str | None = None


@dataclass(frozen=True)
class EmbeddingFeature:
    """A precomputed vector an exposure (a column of equally long lists of numbers).

    Parameters
    ----------
    name, side, serving
        As `SparseFeature`.
    size
        Length of the vector.
    """

    name: str
    size: int
    side: Side = "context"
    serving: Serving = "given"


Feature: TypeAlias = SparseFeature | DenseFeature | SequenceFeature | EmbeddingFeature
KINDS: dict[str, type[SparseFeature] | type[DenseFeature] | type[SequenceFeature] | type[EmbeddingFeature]] = {
    "sparse": SparseFeature,
    "dense": DenseFeature,
    "sequence": SequenceFeature,
    "embedding": EmbeddingFeature,
}
