"""Feature interaction: products of features, formed before any tower and read beside the features themselves.

Shapes: B rows, F fields (sparse and sequence), E embedding size, D input width, R rank.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import Tensor, nn

from postclick.binding import Argument
from postclick.nn.initialise import initialise_linear

__all__ = ["CrossNetwork", "Interaction", "bi_interaction"]


@dataclass(frozen=True)
class Interaction:
    """Which products the towers read beside v.

    Parameters
    ----------
    kind
        ``cross``: the cross network of DCN-V2, D more inputs. ``fm``: the bi-interaction of the fields' embeddings, E
        more inputs.
    layers
        Layers of the cross network; L of them form products of up to L + 1 features.
    rank
        R of a cross layer's matrix; None is full rank.

    Raises
    ------
    ValueError
        On a number below 1, or a rank of ``fm``, which has none.
    """

    kind: Annotated[Literal["fm", "cross"], Argument("products of pairs of fields, or DCN-V2's cross network")] = (
        "cross"
    )
    layers: Annotated[int, Argument("layers of the cross network", low=1, high=4)] = 2
    rank: Annotated[int | None, Argument("rank of a cross layer's matrix; off is full", low=4, high=64)] = None

    def __post_init__(self) -> None:
        if self.layers < 1:
            raise ValueError(f"a cross network has at least one layer, got {self.layers}")
        if self.rank is not None and self.rank < 1:
            raise ValueError(f"a rank is at least 1, got {self.rank}")
        if self.kind == "fm" and self.rank is not None:
            raise ValueError("rank is of kind = 'cross'; an fm interaction has none")


def bi_interaction(embeddings: Tensor) -> Tensor:
    """Return sum_{i<j} e_i * e_j = ((sum_i e_i)^2 - sum_i e_i^2) / 2, [B, F, E] -> [B, E], in O(B F E).

    The second-order term of the factorisation machine (Rendle, ICDM 2010) is the sum of this vector's entries; the
    vector itself (NFM, He and Chua, SIGIR 2017) leaves it to the tower to weigh them.
    """
    total = embeddings.sum(dim=1)
    return 0.5 * (total.square() - embeddings.square().sum(dim=1))


class CrossNetwork(nn.Module):
    """x_{l+1} = x_0 * (W_l x_l + b_l) + x_l, [B, D] -> [B, D] (DCN-V2, Wang et al., WWW 2021, eqs. 1 and 2).

    With a rank, W_l = U_l V_l', U_l and V_l in R^{D x R}: 2 D R numbers in place of D^2.

    Parameters
    ----------
    width
        D.
    layers
        How many.
    rank
        R, or None.
    """

    def __init__(self, width: int, layers: int, rank: int | None = None) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_layer(width, rank) for _ in range(layers))

    def forward(self, x: Tensor) -> Tensor:
        """Return the last x."""
        start = x
        for layer in self.layers:
            x = torch.addcmul(x, start, layer(x))
        return x


def _layer(width: int, rank: int | None) -> nn.Module:
    """Return W x + b, or U V' x + b."""
    outer = nn.Linear(width if rank is None else rank, width)
    initialise_linear(outer)
    if rank is None:
        return outer
    inner = nn.Linear(width, rank, bias=False)
    initialise_linear(inner)
    return nn.Sequential(inner, outer)
