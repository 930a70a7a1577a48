"""What CSTWA costs beside ESMM: a step of each of its parts, and the migration as an epoch starts, at Ali-CCP's sizes.

    python benchmarks/cstwa_cost.py                         processor seconds, one thread, Markdown on stdout
    python benchmarks/cstwa_cost.py --exposures 42300000    rows of the epoch that the migration is held against

Pre-training and mining are stages and not timed here; the graphs are drawn: K neighbours an entity, rows that sum to 1.
Exits with 1 where an epoch takes more than 1.6 times ESMM's a row, or the migration more than 5 % of an epoch.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from contestants import Contestant, PostclickTraining
from drawn_rows import ALI_CCP, drawn_split, table_sizes
from postclick.data.entities import entity_features
from postclick.models.base import NeighbourGraph
from postclick.models.cstwa import CSTWA
from postclick.training.config import TrainingConfig

STEP_BAR, MIGRATION_BAR = 1.6, 0.05
NOTHING: dict[str, Any] = {"migrator": None, "perceptron": None, "escaper": None, "calibrator": None}
WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    "esmm": ("esmm", {}),
    "esmm, a table a tower": ("esmm", {"shared_embedding": False}),
    "cstwa, nothing on": ("cstwa", NOTHING),
    "cstwa, migrator": ("cstwa", {**NOTHING, "migrator": "on"}),
    "cstwa, perceptron": ("cstwa", {**NOTHING, "perceptron": "on"}),
    "cstwa, escaper": ("cstwa", {**NOTHING, "escaper": "on"}),
    "cstwa": ("cstwa", {}),
}


def drawn_graph(model: CSTWA, graph: NeighbourGraph, sizes: tuple[int, ...], seed: int) -> dict[str, NDArray[Any]]:
    """Return an artefact over every value of the side's id."""
    random, schema = np.random.default_rng(seed), model.spec.schema
    places = [schema.sparse.index(feature) for feature in entity_features(schema, graph.side)]
    firsts = len(sizes) + np.concatenate([[0], np.cumsum(sizes)[:-1]])
    count, kept = sizes[places[0]], graph.neighbours
    columns = [firsts[place] + random.integers(0, sizes[place], count) for place in places[1:]]
    entity = firsts[places[0]] + np.arange(count)
    return {
        "entity": entity.astype(np.int32),
        "features": np.stack([entity, *columns], axis=1).astype(np.int32),
        "indptr": np.arange(0, kept * count + 1, kept, dtype=np.int64),
        "indices": random.integers(0, count, kept * count).astype(np.int32),
        "values": np.full(kept * count, 1 / kept, np.float32),
    }


def migration_seconds(model: CSTWA, sizes: tuple[int, ...]) -> float:
    """Return processor seconds of one migration, all sides; graphs as they lie in memory."""
    for graph in model.requires():
        if isinstance(graph, NeighbourGraph):
            model.provide(graph, drawn_graph(model, graph, sizes, 0))
    model.on_epoch_start(1)
    begun = time.process_time()
    model.on_epoch_start(2)
    return time.process_time() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description="what cstwa costs beside esmm")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--exposures", type=int, default=38_000_000)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    sizes, config = table_sizes(len(ALI_CCP), None), TrainingConfig()
    with tempfile.TemporaryDirectory() as folder:
        split, spec = drawn_split(Path(folder), sizes, 200_000, 0)
        trainings = {
            name: PostclickTraining(split, spec, config, 5, 0, system=key, arguments=arguments)
            for name, (key, arguments) in WAYS.items()
        }
        ways = [Contestant(name, training.steps()) for name, training in trainings.items()]
        for way in ways:
            way.run(0.0, 10)
        for _ in range(chosen.rounds):
            for way in ways:
                way.rates.append(way.run(0.0, chosen.steps, time.process_time))
        steps = {way.name: 1e3 * config.batch_size / median(way.rates) for way in ways}
        seconds = migration_seconds(cast("CSTWA", trainings["cstwa"].model), sizes)
    rows = f"{len(sizes)} fields, {sum(sizes):,} table rows of 5, batches of {config.batch_size:,}"
    print(f"torch {torch.__version__}, one thread, {rows}")
    print("\n| | ms a step | time a row, ESMM = 1 |\n|---|---:|---:|")
    for name, each in steps.items():
        print(f"| {name} | {each:.2f} | {each / steps['esmm']:.2f} |")
    epoch = chosen.exposures / config.batch_size * steps["cstwa"] / 1e3
    held = f"an epoch of {chosen.exposures:,} exposures ({epoch:,.0f} s)"
    print(f"\nmigration: {seconds:.2f} s, {seconds / epoch:.3%} of {held}")
    if steps["cstwa"] / steps["esmm"] > STEP_BAR or seconds / epoch > MIGRATION_BAR:
        sys.exit(f"over the bars of {STEP_BAR:g} times and {MIGRATION_BAR:.0%}")


if __name__ == "__main__":
    main()
