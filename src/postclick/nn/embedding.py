"""The fused embedding table and the encoder that turns features into the input of a tower.

Shapes: B rows, F sparse fields, S sequence fields, E embedding size, R table rows, D input width, L sequence values.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, embedding_bag

from postclick.nn.attention import TargetAttention
from postclick.nn.features import Features, Sequence
from postclick.nn.initialise import initialise_embedding
from postclick.nn.interaction import CrossNetwork, Interaction, bi_interaction
from postclick.schema import Schema

__all__ = ["FeatureEncoder", "FusedEmbedding", "Pooling", "fill_unknown_rows", "use_sparse_gradients"]

Pooling = Literal["mean", "sum"]


class FusedEmbedding(nn.Module):
    """One table for every (field, value): a batch is one gather, plus one pooled gather for all sequence fields.

    A sequence field gives sum(w e) (pooling ``sum``) or sum(w e) / sum(w) (``mean``), w = 1 without weights; an empty
    sequence, or one whose weights sum to 0 under ``mean``, gives the plain sum, which for an empty one is the zero
    vector.

    Parameters
    ----------
    table_rows
        R. Unknown rows come first, one a field: row f belongs to field f.
    size
        E.
    unknown_rows
        How many unknown rows there are; they start at 0.
    pooling
        One a sequence field.

    Attributes
    ----------
    weight
        Parameter float32 [R, E].
    sparse
        Whether the gradient of `weight` is a sparse tensor of the batch's rows (the default: row-wise optimisers) or
        dense (R x E numbers a step; PyTorch's own Adam takes nothing else). See `use_sparse_gradients`.
    """

    is_table = True
    """`ConversionModel.tables` finds tables by this."""

    def __init__(self, table_rows: int, size: int, *, unknown_rows: int = 0, pooling: tuple[Pooling, ...] = ()) -> None:
        super().__init__()
        if size < 1:
            raise ValueError(f"an embedding size is at least 1, got {size}")
        self.pooling = pooling
        self.sparse = True
        self.weight = nn.Parameter(torch.empty(table_rows, size))
        initialise_embedding(self.weight, unknown_rows)

    def forward(self, features: Features) -> Tensor:
        """Return [B, F + S, E]."""
        single = self.look_up(features.rows)
        if not features.sequences:
            return single
        return torch.cat([single, self._pooled(features.sequences)], dim=1)

    def look_up(self, rows: Tensor) -> Tensor:
        """Return the table's rows, [...] -> [..., E]."""
        return embedding(rows, self.weight, sparse=self.sparse)

    def _pooled(self, sequences: tuple[Sequence, ...]) -> Tensor:
        """Return [B, S, E]: one bag a (field, row), all fields in one call."""
        values, offsets, weights = _joined(sequences)
        weights = None if weights is None else weights.to(self.weight.dtype)
        sums = embedding_bag(
            values,
            self.weight,
            offsets,
            mode="sum",
            sparse=self.sparse,
            per_sample_weights=weights,
            include_last_offset=True,
        ).view(len(sequences), -1, self.weight.shape[1])
        divisors = [
            _divisor(sequence) if pooling == "mean" else torch.ones_like(sums[0, :, 0])
            for sequence, pooling in zip(sequences, self.pooling, strict=True)
        ]
        return (sums / torch.stack(divisors).unsqueeze(-1)).transpose(0, 1)

    def extra_repr(self) -> str:
        """Return the shape, for printing."""
        return f"{self.weight.shape[0]} x {self.weight.shape[1]}, sparse={self.sparse}"


def _joined(sequences: tuple[Sequence, ...]) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return all fields' lists one after the other: values [L], offsets [S * B + 1], weights [L] or None."""
    values = torch.cat([sequence.values for sequence in sequences])
    starts = [sequence.offsets[:-1] for sequence in sequences]
    before = 0
    for index, sequence in enumerate(sequences):
        starts[index] = starts[index] + before
        before += len(sequence.values)
    last = torch.full((1,), before, dtype=torch.int64, device=values.device)
    # embedding_bag wants one integer type for both.
    offsets = torch.cat([*starts, last]).to(values.dtype)
    if all(sequence.weights is None for sequence in sequences):
        return values, offsets, None
    return values, offsets, torch.cat([_weights(sequence) for sequence in sequences])


def _weights(sequence: Sequence) -> Tensor:
    if sequence.weights is not None:
        return sequence.weights
    return torch.ones(len(sequence.values), device=sequence.values.device)


def _divisor(sequence: Sequence) -> Tensor:
    """Return the sum of weights a row, [B], with 1 in place of 0."""
    if sequence.weights is None:
        return sequence.offsets.diff().clamp(min=1).to(torch.float32)
    totals = torch.segment_reduce(sequence.weights, "sum", offsets=sequence.offsets)
    return torch.where(totals == 0, 1.0, totals)


def use_sparse_gradients(model: nn.Module, on: bool) -> None:
    """Make the gradients of every fused table in `model` sparse by rows (`on`) or dense."""
    for module in model.modules():
        if isinstance(module, FusedEmbedding):
            module.sparse = on


@torch.no_grad()
def fill_unknown_rows(weight: Tensor, row_field: Tensor, touched: Tensor) -> Tensor:
    """Give each unknown row that training never touched the mean of its field's touched rows (SYSTEMS, Decision 12).

    Untouched value rows are still the noise they were drawn as and do not enter the mean. A field without a touched
    row keeps its unknown row (0 by `initialise_embedding`).

    Parameters
    ----------
    weight
        [R, E].
    row_field
        int [R]: the field of each row; row f < number of fields is field f's unknown row.
    touched
        bool [R]: rows that some batch held.

    Returns
    -------
    Tensor
        A new [R, E]; `weight` is not changed.
    """
    fields = int(row_field.max()) + 1
    index = row_field.to(torch.int64)
    usable = touched.clone()
    usable[:fields] = False
    sums = torch.zeros(fields, weight.shape[1], dtype=torch.float64, device=weight.device)
    sums.index_add_(0, index[usable], weight[usable].to(torch.float64))
    counts = torch.bincount(index[usable], minlength=fields)
    means = (sums / counts.clamp(min=1).unsqueeze(1)).to(weight.dtype)
    replace = ~touched[:fields] & (counts > 0)
    filled = weight.clone()
    filled[:fields] = torch.where(replace.unsqueeze(1), means, weight[:fields])
    return filled


class FeatureEncoder(nn.Module):
    """Features to the input of a tower, [B, D]: rows, pooled sequences, dense and embedding features side by side.

    Parameters
    ----------
    schema
        Which features there are, in order.
    table_rows
        R, rows of the fused table.
    size
        E.
    interaction
        Products of features to append; None appends nothing.

    Raises
    ------
    ValueError
        ``fm`` with fewer than two fields: there is no pair.
    """

    def __init__(self, schema: Schema, table_rows: int, size: int, *, interaction: Interaction | None = None) -> None:
        super().__init__()
        fields = len(schema.fields)
        pooling = tuple(feature.pooling for feature in schema.sequences)
        self.targets = schema.targets
        bags = tuple(pool for pool in pooling if pool != "target-attention")
        self.table = FusedEmbedding(table_rows, size, unknown_rows=fields, pooling=bags)
        self.attention = nn.ModuleDict(
            {str(index): TargetAttention(size) for index, target in enumerate(self.targets) if target is not None}
        )
        self.width = fields * size + len(schema.dense) + sum(feature.size for feature in schema.embeddings)
        self.interaction = interaction
        self.cross: CrossNetwork | None = None
        if interaction is None:
            return
        if interaction.kind == "cross":
            self.cross = CrossNetwork(self.width, interaction.layers, interaction.rank)
        elif fields < 2:
            raise ValueError(f"an fm interaction needs two fields or more, the schema has {fields}")
        self.width += size if self.cross is None else self.width

    def forward(self, features: Features) -> Tensor:
        """Return [B, D]; `width` is D."""
        return self.joined(self.fields(features), features)

    def joined(self, looked_up: Tensor, features: Features) -> Tensor:
        """Return [B, D] from the vectors that `fields` gave, [B, F + S, E], or others in their place."""
        others = [part for part in (features.dense, features.embeddings) if part.shape[1]]
        v = torch.cat([looked_up.flatten(1), *others], dim=1) if others else looked_up.flatten(1)
        if self.interaction is None:
            return v
        products = bi_interaction(looked_up) if self.cross is None else self.cross(v)
        return torch.cat([v, products], dim=1)

    def fields(self, features: Features) -> Tensor:
        """Return one vector a field, sparse fields first, [B, F + S, E]."""
        if not len(self.attention):
            looked_up: Tensor = self.table(features)
            return looked_up
        bags = tuple(bag for bag, target in zip(features.sequences, self.targets, strict=True) if target is None)
        single, *pooled = self.table(replace(features, sequences=bags)).split(
            [features.rows.shape[1], *[1] * len(bags)], dim=1
        )
        vectors, rest = [single], iter(pooled)
        for index, (sequence, target) in enumerate(zip(features.sequences, self.targets, strict=True)):
            if target is None:
                vectors.append(next(rest))
                continue
            values = self.table.look_up(sequence.values)
            vectors.append(self.attention[str(index)](values, single[:, target], sequence).unsqueeze(1))
        return torch.cat(vectors, dim=1)

    def dense_parameters(self) -> tuple[nn.Parameter, ...]:
        """Return the parameters beside the table: of target attention and of a cross network."""
        return tuple(parameter for parameter in self.parameters() if parameter is not self.table.weight)
