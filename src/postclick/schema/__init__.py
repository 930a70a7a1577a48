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
from postclick.schema.keep_rates import KeepRates
from postclick.schema.schema import Columns, Schema

__all__ = [
    "KINDS",
    "Columns",
    "DenseFeature",
    "EmbeddingFeature",
    "Feature",
    "KeepRates",
    "Schema",
    "SequenceFeature",
    "Side",
    "SparseFeature",
]
