"""What the gates of a system did on many rows, as sums: what scoring counts and evaluation judges."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["GateTotals"]


@dataclass(frozen=True)
class GateTotals:
    """Sums over the rows of one task's gate g, a distribution over K experts a row; each row counts once.

    Parameters
    ----------
    rows
        How many.
    weight
        float64 [K], sum of g.
    top
        int64 [K], rows on which this expert has the largest weight, the first of equal ones.
    entropy
        Sum of -sum_k g_k log g_k, in nats.
    """

    rows: int
    weight: NDArray[np.float64]
    top: NDArray[np.int64]
    entropy: float

    def __add__(self, other: GateTotals) -> GateTotals:
        return GateTotals(
            self.rows + other.rows, self.weight + other.weight, self.top + other.top, self.entropy + other.entropy
        )
