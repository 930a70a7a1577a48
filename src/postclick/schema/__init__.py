"""Feature kinds, funnel columns and entity sides."""

from postclick.schema.features import (
    KINDS,
    DenseFeature,
    EmbeddingFeature,
    Feature,
    SequenceFeature,
    Side,
    SparseFeature,
)
from postclick.schema.schema import Columns, Schema

__all__ = [
    "KINDS",
    "Columns",
    "DenseFeature",
    "EmbeddingFeature",
    "Feature",
    "Schema",
    "SequenceFeature",
    "Side",
    "SparseFeature",
]
