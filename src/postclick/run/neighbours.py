"""Who is like whom: the neighbours of one user or item in the graph that a run was trained with."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from postclick import files
from postclick.bundle import Bundle
from postclick.data.entities import EntitySide
from postclick.data.vocabulary import Vocabulary
from postclick.errors import ConfigError, Finding, InputMissingError, nearest
from postclick.run.stages import locate
from postclick.structure.storage import StoredArrays, read_arrays

__all__ = ["Entity", "EntityNeighbours", "entity_neighbours"]


@dataclass(frozen=True)
class Entity:
    """A user or item.

    Parameters
    ----------
    id
        As in the raw data; text where the column's kind has no JSON form.
    features
        Feature -> raw value; None for a missing or rare one, of a hashed field the number of the bucket.
    similarity
        Cosine with the one asked for, in (0, 1]; None for that one.
    """

    id: Any
    features: dict[str, Any]
    similarity: float | None = None


@dataclass(frozen=True)
class EntityNeighbours:
    """An entity and its neighbours, the nearest first.

    Parameters
    ----------
    side
        ``user`` or ``item``.
    entity
        The one asked for.
    neighbours
        Those with a positive cosine, at most as many as the graph holds.
    held
        Neighbours an entity has in the graph, at most (the paper's K).
    """

    side: EntitySide
    entity: Entity
    neighbours: tuple[Entity, ...]
    held: int

    def to_dict(self) -> dict[str, Any]:
        """Return what ``--json`` prints."""
        return {
            "format": 1,
            "side": self.side,
            "held": self.held,
            "id": self.entity.id,
            "features": self.entity.features,
            "neighbours": [asdict(one) for one in self.neighbours],
        }


def entity_neighbours(trained: str | Path, side: EntitySide, value: str, *, k: int = 8) -> EntityNeighbours:
    """Return the neighbours of one user or item by the cosine of the pre-trained CTR embeddings (CSTWA, eqs. 2 to 4).

    Parameters
    ----------
    trained
        A RUN whose system uses the graph of that side, or the BUNDLE inside it.
    side
        Whose graph.
    value
        The id, as in the raw data.
    k
        How many, at most.

    Raises
    ------
    ConfigError
        ``config.value`` for a `k` below 1.
    InputMissingError
        ``input.missing``: the run used no such graph, it is gone, or the id is in none of the training rows (or too
        rare, under ``min_count``); ``input.wrong_kind``: a bundle away from its run, which carries no graph.
    """
    if k < 1:
        raise ConfigError(Finding("config.value", f"k is {k}, wanted 1 or more", "neighbours"))
    run = _run_of(Path(trained))
    held = read_arrays(locate(run, f"{side}-graph"))
    vocabulary = Bundle.load(run).encoder.vocabulary
    position = _position(held, vocabulary, side, value)
    indices, cosines = held.arrays["neighbours"][position], held.arrays["similarities"][position]
    real = (indices >= 0) & (indices != position)
    entities = _entities(held, vocabulary, np.concatenate([[position], indices[real][:k]]))
    near = (
        Entity(one.id, one.features, float(cosine)) for one, cosine in zip(entities[1:], cosines[real], strict=False)
    )
    return EntityNeighbours(side, entities[0], tuple(near), len(indices))


def _run_of(path: Path) -> Path:
    """Return the RUN: itself, or the folder around a bundle."""
    if files.read_manifest(path, "run", "bundle").kind == "run":
        return path
    around = path.absolute().parent
    if (around / files.MANIFEST).is_file() and files.read_manifest(around).kind == "run":
        return around
    what = "a bundle carries no graph of neighbours; they lie in the run that it was trained in"
    raise InputMissingError(Finding("input.wrong_kind", what, str(path), fix="pass the RUN folder"))


def _position(held: StoredArrays, vocabulary: Vocabulary, side: EntitySide, value: str) -> int:
    """Return the position of an id in the graph."""
    name = held.about["names"][0]
    row = int(vocabulary.rows_of(name, pa.array([value]))[0])
    entity = held.arrays["entity"]
    position = int(np.searchsorted(entity, row))
    if position < len(entity) and int(entity[position]) == row:
        return position
    known = vocabulary.decode(name, np.asarray(entity[:100_000])).cast(pa.string()).to_pylist()
    near = nearest(value, [one for one in known if one is not None])
    what = f"no {side} {value!r} ({name}) in the training rows, or it is too rare to have a row of its own"
    fix = f"did you mean {near!r}?" if near else f"{len(entity):,} {side}s are known, for example {known[0]!r}"
    raise InputMissingError(Finding("input.missing", what, f"{side} graph", fix=fix))


def _entities(held: StoredArrays, vocabulary: Vocabulary, positions: np.ndarray[Any, Any]) -> list[Entity]:
    names, rows = held.about["names"], np.asarray(held.arrays["features"][positions])
    columns = [vocabulary.decode(name, rows[:, place]).to_pylist() for place, name in enumerate(names)]
    return [Entity(values[0], dict(zip(names[1:], values[1:], strict=True))) for values in zip(*columns, strict=True)]
