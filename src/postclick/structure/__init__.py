"""Structure among users and items: who is like whom, as a sparse graph (NumPy and SciPy; never torch)."""

from postclick.structure.estimate import Estimate, estimate
from postclick.structure.graph import has_neighbours, normalise, similarities
from postclick.structure.propagate import propagate
from postclick.structure.recall import Recall, recall_at
from postclick.structure.representations import representations
from postclick.structure.search import Neighbours, neighbours
from postclick.structure.storage import StoredArrays, read_arrays, write_arrays

__all__ = [
    "Estimate",
    "Neighbours",
    "Recall",
    "StoredArrays",
    "estimate",
    "has_neighbours",
    "neighbours",
    "normalise",
    "propagate",
    "read_arrays",
    "recall_at",
    "representations",
    "similarities",
    "write_arrays",
]
