"""Vectors of entities (users, items) mixed along a graph, and where they enter the features of a row.

An entity is known by one field, its id; m fields of a row are its own, the id first. The graph G [N, N] and the rows
of its N entities are an artefact made elsewhere; a trained module scores without it. Shapes: B rows, F fields,
E embedding size, N entities, m fields of an entity, R table rows, D = m E.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import embedding, embedding_bag

from postclick.nn.embedding import FusedEmbedding

__all__ = ["EntityGraph", "EntityIds", "EntityShift", "EntityTable", "EntityVectors", "mix_rows"]


@dataclass(frozen=True)
class EntityGraph:
    """A graph over N entities in compressed rows, and which table rows they are made of.

    Parameters
    ----------
    entity
        int64 [N], table row of each entity's id.
    features
        int64 [N, m], table rows of its fields, the id first.
    indptr, indices, values
        G [N, N]: row i has the entries ``indptr[i]:indptr[i + 1]``, int64 and float.
    """

    entity: Tensor
    features: Tensor
    indptr: Tensor
    indices: Tensor
    values: Tensor

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> EntityGraph:
        """Take over the arrays of an artefact, by the names above; raises ValueError where they do not fit together."""
        whole = (torch.from_numpy(np.array(arrays[name], np.int64)) for name in ("entity", "features", "indptr"))
        entity, features, indptr = whole
        indices = torch.from_numpy(np.array(arrays["indices"], np.int64))
        values = torch.from_numpy(np.array(arrays["values"], np.float32))
        shapes = (features.dim() == 2, len(features) == len(entity), len(indptr) == len(entity) + 1)
        if not all(shapes) or int(indptr[-1]) != len(indices) or len(indices) != len(values):
            what = f"{len(entity)} entities, features {list(features.shape)}, {len(indptr)} row ends"
            raise ValueError(f"not a graph over entities: {what}, {len(indices)} indices, {len(values)} values")
        return cls(entity, features, indptr, indices, values)

    def __len__(self) -> int:
        return len(self.entity)

    def to(self, like: Tensor) -> EntityGraph:
        """Return the graph on the device of `like`, its values in the type of `like`."""
        places = (self.entity, self.features, self.indptr, self.indices)
        entity, features, indptr, indices = (tensor.to(like.device) for tensor in places)
        return EntityGraph(entity, features, indptr, indices, self.values.to(like.device, like.dtype))

    def propagate(self, vectors: Tensor, layers: int) -> Tensor:
        """Return G^layers x for x [N, ...] (no transform, no activation)."""
        for _ in range(layers):
            vectors = embedding_bag(
                self.indices,
                vectors,
                self.indptr,
                mode="sum",
                per_sample_weights=self.values,
                include_last_offset=True,
            )
        return vectors

    def linked(self) -> Tensor:
        """Return bool [N]: whether an entity has a neighbour at all, that is a row of G that is not 0."""
        ones = self.values.new_ones(len(self), 1)
        return self.propagate(ones, 1)[:, 0] != 0


def mix_rows(graph: EntityGraph, vectors: Tensor, linked: Tensor, gamma: float, layers: int) -> Tensor:
    """Return what x [N, E] moves by: gamma (G^layers x - x), 0 for an entity without a neighbour.

    x plus this is (1 - gamma) x + gamma G^layers x; a row of G that is 0 would shrink by 1 - gamma instead of staying.
    """
    moves = (graph.propagate(vectors, layers) - vectors) * gamma
    return moves.masked_fill_(~linked.unsqueeze(1), 0.0)


class EntityVectors(nn.Module, ABC):
    """Where the vectors of one kind of entity live, how they enter a row, and how they are mixed.

    Parameters
    ----------
    places
        Fields of the entity among the sparse fields of a row, the id first, m in all.
    size
        E.
    """

    def __init__(self, places: tuple[int, ...], size: int) -> None:
        super().__init__()
        self.places, self.size = places, size

    @abstractmethod
    def forward(self, fields: Tensor, rows: Tensor) -> Tensor:
        """Return the vectors of a batch with the entity's in place, [B, F, E] -> [B, F, E]; `rows` is [B, sparse F]."""

    def attach(self, graph: EntityGraph) -> None:
        """Get ready for `graph`; raises ValueError where it has other fields or too many entities."""
        if graph.features.shape[1] != len(self.places):
            raise ValueError(f"entities have {len(self.places)} fields, those of the graph {graph.features.shape[1]}")

    def start(self, graph: EntityGraph, table: Tensor) -> None:
        """Run before the first epoch; `table` [R, E] is the shared one."""

    @abstractmethod
    def mix(self, graph: EntityGraph, table: Tensor, gamma: float, layers: int) -> None:
        """Move the vectors by one step along `graph`, in place."""


class EntityIds(EntityVectors):
    """The id's row in the shared table is the entity's vector: nothing more to keep, and nothing else is mixed."""

    def forward(self, fields: Tensor, rows: Tensor) -> Tensor:  # noqa: ARG002
        """Return `fields`."""
        return fields

    @torch.no_grad()
    def mix(self, graph: EntityGraph, table: Tensor, gamma: float, layers: int) -> None:
        """Set w <- (1 - gamma) w + gamma G^layers w in `table`, w the rows of the ids."""
        graph = graph.to(table)
        moves = mix_rows(graph, table.index_select(0, graph.entity), graph.linked(), gamma, layers)
        table.index_add_(0, graph.entity, moves)


class _Numbered(EntityVectors):
    """Entities that have a place of their own, from 1; 0 is of ids that the graph does not know.

    Parameters
    ----------
    places, size
        As `EntityVectors`.
    entities
        The most entities there can be.
    table_rows
        R.

    Attributes
    ----------
    slot
        Buffer int32 [R]: table row of an id -> place.
    """

    slot: Tensor

    def __init__(self, places: tuple[int, ...], size: int, entities: int, table_rows: int) -> None:
        super().__init__(places, size)
        self.entities = entities
        self.register_buffer("slot", torch.zeros(table_rows, dtype=torch.int32))

    @torch.no_grad()
    def attach(self, graph: EntityGraph) -> None:
        """Number the entities of `graph`."""
        super().attach(graph)
        if len(graph) > self.entities:
            raise ValueError(f"there are at most {self.entities} entities, the graph has {len(graph)}")
        numbers = torch.arange(1, len(graph) + 1, dtype=torch.int32, device=self.slot.device)
        self.slot.zero_().index_copy_(0, graph.entity.to(self.slot.device), numbers)

    def slots(self, rows: Tensor) -> Tensor:
        """Return the places of the entities of a batch, int32 [B]."""
        return self.slot.index_select(0, rows[:, self.places[0]])


class EntityShift(_Numbered):
    """Shared vectors c, and what each entity's are shifted by, d [N, D]: a buffer that no gradient moves, 0 at first.

    The entity's vectors are c + d, c the rows of the shared table that the row's fields hold; `mix` sets
    d <- (1 - gamma) (c + d) + gamma G^layers (c + d) - c, so the table itself stays as it was trained.

    Attributes
    ----------
    shift
        Buffer [entities + 1, D]; row 0 stays 0.
    """

    shift: Tensor

    def __init__(self, places: tuple[int, ...], size: int, entities: int, table_rows: int) -> None:
        super().__init__(places, size, entities, table_rows)
        self.register_buffer("shift", torch.zeros(entities + 1, len(places) * size))
        self._stretches = _runs(places)

    def forward(self, fields: Tensor, rows: Tensor) -> Tensor:
        """Return c + d."""
        held = embedding(self.slots(rows), self.shift).view(len(rows), len(self.places), self.size)
        shifts = torch.zeros_like(fields)
        for first, last, place in self._stretches:
            shifts[:, place : place + last - first] = held[:, first:last]
        return fields + shifts

    @torch.no_grad()
    def mix(self, graph: EntityGraph, table: Tensor, gamma: float, layers: int) -> None:
        """Move d, field by field: the memory this takes is a few times N E."""
        graph = graph.to(self.shift)
        linked, known = graph.linked(), self.shift[1 : len(graph) + 1]
        for field, own in enumerate(torch.split(known, self.size, dim=1)):
            vectors = table.index_select(0, graph.features[:, field]) + own
            own.add_(mix_rows(graph, vectors, linked, gamma, layers))


class EntityTable(_Numbered):
    """A trained row an entity, [N, D], in place of what the shared table has for its fields.

    An id that the graph does not know reads the shared table.

    Attributes
    ----------
    table
        Its weight is a parameter [entities + 1, D]; row 0 is not read.
    """

    def __init__(self, places: tuple[int, ...], size: int, entities: int, table_rows: int) -> None:
        super().__init__(places, size, entities, table_rows)
        self.table = FusedEmbedding(entities + 1, len(places) * size, unknown_rows=entities + 1)

    def forward(self, fields: Tensor, rows: Tensor) -> Tensor:
        """Return the entities' own vectors, and shared ones where there are none."""
        slots = self.slots(rows)
        own = self.table.look_up(slots).view(len(rows), len(self.places), self.size)
        known, columns = (slots > 0).view(-1, 1), list(fields.unbind(1))
        for index, place in enumerate(self.places):
            columns[place] = torch.where(known, own[:, index], columns[place])
        return torch.stack(columns, dim=1)

    @torch.no_grad()
    def start(self, graph: EntityGraph, table: Tensor) -> None:
        """Set each entity's row to the rows of `table` that its fields hold, side by side."""
        features = graph.features.to(table.device)
        own = self.table.weight[1 : len(graph) + 1]
        own.copy_(table.index_select(0, features.flatten()).view(len(graph), -1))

    @torch.no_grad()
    def mix(self, graph: EntityGraph, table: Tensor, gamma: float, layers: int) -> None:  # noqa: ARG002
        """Set w <- (1 - gamma) w + gamma G^layers w, field by field."""
        graph = graph.to(self.table.weight)
        linked, known = graph.linked(), self.table.weight[1 : len(graph) + 1]
        for own in torch.split(known, self.size, dim=1):
            own.add_(mix_rows(graph, own.contiguous(), linked, gamma, layers))


def _runs(places: tuple[int, ...]) -> list[tuple[int, int, int]]:
    """Return (first, last, place) of the stretches whose places follow one another: one copy a stretch."""
    starts = [index for index, place in enumerate(places) if not index or place != places[index - 1] + 1]
    return [(first, last, places[first]) for first, last in zip(starts, [*starts[1:], len(places)], strict=True)]
