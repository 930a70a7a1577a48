"""Factorisation of users and items: the trunks ``mf`` and ``ncf`` of rating data, beside the feature towers.

Both read two features alone, the schema's user and item ids, each a row of the fused table; whatever else the log has
is left to the other trunks. With u, i the rows of a user and an item, the logit of task t is

    mf:   sum_e d_te u_e i_e  [+ a_tu + b_ti + c_t]      d_t = 1 where the task has tables of its own
    ncf:  head_t(tower_t([u, i, u * i]))

Shapes: B rows, E embedding size, T tasks, R table rows.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from postclick.nn.embedding import FusedEmbedding
from postclick.nn.features import Features
from postclick.nn.initialise import log_odds_of_rate
from postclick.schema import Schema

__all__ = ["DotHead", "PairBiases", "PairEncoder", "pair_places"]


def pair_places(schema: Schema) -> tuple[int, int]:
    """Return the places of the user's and the item's id among the sparse features.

    Raises
    ------
    ValueError
        Where one of them is not named by the schema's columns, or is no sparse feature.
    """
    names = [feature.name for feature in schema.sparse]
    columns = (("user_id", schema.columns.user_id), ("item_id", schema.columns.item_id))
    absent = [f"{role} = {name!r}" if name else role for role, name in columns if name not in names]
    if absent:
        how = "name the columns user_id and item_id in the schema and make both a sparse feature"
        raise ValueError(f"the trunks mf and ncf read a user and an item, but {' and '.join(absent)} is none: {how}")
    user, item = (names.index(name) for _, name in columns if name is not None)
    return user, item


class PairEncoder(nn.Module):
    """User and item of a row to the input of the tasks: u * i for ``mf``, [u, i, u * i] for ``ncf``.

    Parameters
    ----------
    schema
        Names the user and the item; other features are not read.
    table_rows
        R, rows of the fused table.
    size
        E.
    kind
        ``mf``: [B, E]. ``ncf``: [B, 3 E]; the product is the GMF half of He et al. (WWW 2017), here an input of the
        tower in place of a second pair of tables beside it.

    Raises
    ------
    ValueError
        As `pair_places`.
    """

    def __init__(self, schema: Schema, table_rows: int, size: int, kind: Literal["mf", "ncf"]) -> None:
        super().__init__()
        self.places = list(pair_places(schema))
        self.kind = kind
        self.width = size if kind == "mf" else 3 * size
        self.table = FusedEmbedding(table_rows, size, unknown_rows=len(schema.fields))

    def forward(self, features: Features) -> Tensor:
        """Return [B, D]; `width` is D."""
        user, item = self.table.look_up(features.rows[:, self.places]).unbind(dim=1)  # [B, E] each
        product = user * item
        return product if self.kind == "mf" else torch.cat([user, item, product], dim=1)

    def dense_parameters(self) -> tuple[nn.Parameter, ...]:
        """Return the parameters beside the table: none."""
        return ()


class PairBiases(nn.Module):
    """a_tu + b_ti: what a user and an item add to the logit of each task, [B] a task; both start at 0.

    Parameters
    ----------
    schema
        Names the user and the item.
    table_rows
        R, rows of the fused table.
    tasks
        T: the table has a column a task.

    Raises
    ------
    ValueError
        As `pair_places`.
    """

    def __init__(self, schema: Schema, table_rows: int, tasks: int) -> None:
        super().__init__()
        self.places = list(pair_places(schema))
        self.table = FusedEmbedding(table_rows, tasks, unknown_rows=len(schema.fields))
        nn.init.zeros_(self.table.weight)

    def forward(self, features: Features) -> tuple[Tensor, ...]:
        """Return the sums, one [B] a task."""
        added: Tensor = self.table.look_up(features.rows[:, self.places]).sum(dim=1)  # [B, T]
        return added.unbind(dim=1)


class Diagonal(nn.Module):
    """A weight an embedding dimension, [B, E] -> [B]; L2 falls on it as on table rows, or the scale would escape it."""

    is_regularised = True
    """`ConversionModel.regularised_parameters` finds it by this."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, product: Tensor) -> Tensor:
        """Return sum_e d_e x_e."""
        return product @ self.weight


class DotHead(nn.Module):
    """One logit a row from u * i: sum_e d_e u_e i_e + c, [B, E] -> [B].

    Parameters
    ----------
    width
        E.
    rate
        Base rate of the label, whose log-odds c starts at; None has no c: sigmoid(u . i) and nothing else.
    diagonal
        Whether d is learned, from 1 on: where several tasks share u and i. A task with tables of its own needs none.
    """

    def __init__(self, width: int, rate: float | None, *, diagonal: bool) -> None:
        super().__init__()
        self.diagonal = Diagonal(width) if diagonal else None
        self.bias = None if rate is None else nn.Parameter(torch.tensor(log_odds_of_rate(rate)))

    def forward(self, product: Tensor) -> Tensor:
        """Return the logits."""
        logit: Tensor = product.sum(dim=1) if self.diagonal is None else self.diagonal(product)
        return logit if self.bias is None else logit + self.bias
