"""What is said of a WORLD: its counts, its true rates, and what the truth itself scores."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

from postclick.cli.output import number, table
from postclick.cli.tables import metrics_table

if TYPE_CHECKING:
    from rich.console import RenderableType

    from postclick.data.arrays import Labels
    from postclick.simulation import World

__all__ = ["world_form", "world_parts"]

_ORACLE_ROWS = 5_000_000
"""Larger worlds are judged after `prepare`, split by split: here all labels and truths would be held in memory."""
_HEADS = ("ctr", "cvr", "ctcvr", "action", "ctar")
_METRICS = (*(f"{head}/{metric}@world" for head in _HEADS for metric in ("auc", "logloss")), "cvr/auc@click")


def world_form(world: World) -> dict[str, Any]:
    """Return the plain form of a world, with the oracle's metrics over all exposures."""
    from postclick.binding import plain

    return {
        "format": 1,
        "path": str(world.path),
        "hash": world.hash,
        "world": world.preset,
        "layout": world.layout,
        "exposures": world.exposures,
        "seed": world.seed,
        "knobs": plain(world.knobs),
        "counts": dict(world.counts),
        "rates": dict(world.rates),
        "oracle": _oracle(world) if world.exposures <= _ORACLE_ROWS else {},
    }


def world_parts(form: dict[str, Any]) -> list[RenderableType]:
    """Build what a person sees of a world."""
    rows = [("exposures", number(form["exposures"]))]
    rows += [(name.replace("_", " "), number(value)) for name, value in form["counts"].items()]
    rows += [(f"true {name}", number(value)) for name, value in form["rates"].items()]
    parts = [table(f"World {form['world']}, seed {form['seed']}, {form['layout']}", ("", "number"), rows)]
    if form["oracle"]:
        parts.append(metrics_table("The oracle: the true probabilities as scores", form["oracle"]))
    return parts


def _oracle(world: World) -> dict[str, Any]:
    from postclick.data.log import Truth
    from postclick.evaluation import oracle

    labels, truth = _labels(world), world.truth()
    assert labels.exposure_id is not None
    place = labels.exposure_id - 1  # a world's exposure ids are 1, 2, 3, ...
    known = {entry.name: getattr(truth, entry.name) for entry in fields(Truth)}
    kept = Truth(**{name: share[place] for name, share in known.items() if share is not None})
    return dict(oracle(labels, kept, metrics=_METRICS).to_dict()["metrics"])


def _labels(world: World) -> Labels:
    """Read the labels of all exposures that have no fault, as `prepare` would."""
    import numpy as np

    from postclick.data.arrays import Labels
    from postclick.data.faults import RowFaults
    from postclick.data.labels import parse_labels
    from postclick.data.sources.opening import open_source

    source = open_source(world.path, key="tabular" if world.layout == "parquet" else world.layout)
    parts = []
    for piece in source.pieces():
        for batch in source.read(piece):
            faults = RowFaults(batch.table.num_rows)
            parsed = parse_labels(batch.table, source.schema, faults).labels
            parts.append(parsed.take(~faults.faulty))
    names = [
        name
        for name in ("click", "conversion", "action", "exposure_id", "user_id")
        if getattr(parts[0], name) is not None
    ]
    return Labels(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})
