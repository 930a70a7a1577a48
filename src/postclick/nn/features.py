"""Encoded features as tensors: what every block takes in.

Shapes: B rows, F sparse fields, S sequence fields, N dense features, V width of embedding features, L values in all.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

__all__ = ["Features", "Sequence"]


@dataclass(frozen=True)
class Sequence:
    """Lists of different lengths: row i holds ``values[offsets[i]:offsets[i + 1]]``.

    Parameters
    ----------
    values
        int32 [L], global table rows.
    offsets
        int64 [B + 1].
    weights
        float32 [L], or None for weight 1.
    """

    values: Tensor
    offsets: Tensor
    weights: Tensor | None = None


@dataclass(frozen=True)
class Features:
    """Features of B exposures.

    Parameters
    ----------
    rows
        int32 [B, F], global table rows; field f's unknown row is f.
    dense
        float32 [B, N].
    embeddings
        float32 [B, V].
    sequences
        One a sequence field, S in all.
    """

    rows: Tensor
    dense: Tensor
    embeddings: Tensor
    sequences: tuple[Sequence, ...] = ()

    def __len__(self) -> int:
        return self.rows.shape[0]

    def with_rows(self, rows: Tensor) -> Features:
        """Return the same features with other table rows (id dropout)."""
        return replace(self, rows=rows)
