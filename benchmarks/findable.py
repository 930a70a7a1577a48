"""How much of a world's communities the embeddings of a CTR network show: the figures of docs/decisions/0029.

    python benchmarks/findable.py                         # the grid's three worlds with communities: a few minutes
    python benchmarks/findable.py --users 16000 --items 6154 --set selection=1.0

One network is trained on clicks (MLP with the paper's settings, seed 0). For 2,000 entities of each side, the 8 nearest
by the cosine of what the embedding table holds for them are looked at: of the id alone, and of all single-valued
features of the side (the representation of CSTWA, eq. 2). Printed, with what chance gives: the share of the neighbours
that are of the entity's community, and the correlation of the communities' mean CVR effects. No system is compared.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from postclick.binding import parse_assignments
from postclick.data.log import ExposureLog
from postclick.data.prepare import prepare
from postclick.data.sources.opening import open_source
from postclick.data.vocabulary import Vocabulary
from postclick.models.catalog import build
from postclick.simulation import Knobs, simulate
from postclick.simulation.chunks import Plan, plan
from postclick.structure.representations import representations
from postclick.structure.search import neighbours
from postclick.training.config import TrainingConfig
from postclick.training.loop import train
from postclick.training.seeding import seed_torch

GRID = {
    "contradiction": {"structure": 0.0, "contradiction": 0.5},
    "structure": {"structure": 0.8, "contradiction": 0.0},
    "both": {"structure": 0.8, "contradiction": 0.5},
}
SETTING = {"optimizer": "exact_adam", "l2_mode": "coupled_dense", "l2": 1e-6, "id_dropout": 0.0, "threads": 1}
FIELDS = {"user": ("user_id", "user_segment", "user_age_band"), "item": ("item_id", "item_category", "item_brand")}
NEIGHBOURS, ASKED = 8, 2_000


def click_table(log: ExposureLog) -> NDArray[np.float32]:
    """Train the CTR network and return its embedding table, [R, 5]."""
    seed_torch(0, "model")
    model = build("mlp", log.spec, {"embedding_size": 5})
    train(model, log, TrainingConfig(stop_on="ctr/logloss@exposure", **SETTING), seed=0)
    return dict(model.named_parameters())["ctr_network.encoder.table.weight"].detach().numpy()


def entities(story: Plan, side: str) -> dict[str, NDArray[np.int64]]:
    """Return what the log shows of every entity of a side, column by column."""
    users, items = story.population.users, story.population.items
    if side == "user":
        shown = (users.segment, users.age_band)
        count = len(users.group)
    else:
        shown = (items.category, items.brand)
        count = len(items.group)
    return dict(zip(FIELDS[side], (np.arange(1, count + 1), *(column + 1 for column in shown)), strict=True))


def report(name: str, knobs: Mapping[str, Any], exposures: int) -> list[str]:
    """Return the rows of one world."""
    with tempfile.TemporaryDirectory() as scratch:
        world = simulate(Path(scratch) / "world", knobs=knobs, exposures=exposures, seed=0)
        log = prepare(open_source(world.path), Path(scratch) / "log", jobs=1)
        table, vocabulary = click_table(log), Vocabulary.load(log.path / "vocabulary")
    assert isinstance(world.knobs, Knobs)
    story, rows = plan(world.knobs, exposures, 0), []
    common = story.communities
    assert common is not None
    for side, shown in FIELDS.items():
        columns = entities(story, side)
        places = {field: vocabulary.rows_of(field, pa.array(column)) for field, column in columns.items()}
        ids = places[shown[0]]
        known = np.bincount(ids)[ids] == 1  # the unknown row is shared
        member = getattr(common, side)[known]
        effect = common.conversion.mean(1 if side == "user" else 0)[member]
        asked = np.random.default_rng(0).choice(len(member), min(ASKED, len(member)), replace=False)
        chance = (np.bincount(member) ** 2).sum() / len(member) ** 2
        for what, fields in (("id", shown[:1]), ("all features", shown)):
            vectors = representations(table, np.stack([places[field][known] for field in fields], 1))
            found = neighbours(vectors, NEIGHBOURS, method="exact").indices[asked]
            share = (member[found] == member[asked][:, None]).mean()
            alike = np.corrcoef(np.repeat(effect[asked], NEIGHBOURS), effect[found].ravel())[0, 1]
            cells = f"{share:.3f} | {chance:.3f} | {alike:.2f} | {known.mean():.2f}"
            rows.append(f"| {name} | {side} | {what} | {cells} |")
    return rows


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--exposures", type=int, default=400_000)
    parser.add_argument("--users", type=int, default=2_500)
    parser.add_argument("--items", type=int, default=5_000)
    parser.add_argument("--set", action="append", default=[], metavar="KNOB=VALUE")
    parser.add_argument("--worlds", nargs="+", choices=list(GRID), default=list(GRID))
    chosen = parser.parse_args()
    knobs = {"ctr": 0.2, "cvr": 0.16, "users": chosen.users, "items": chosen.items} | parse_assignments(chosen.set)
    print("| world | side | representation | of the community | by chance | effects correlate | ids known |")
    print("|---|---|---|---:|---:|---:|---:|")
    for name in chosen.worlds:
        print("\n".join(report(name, knobs | GRID[name], chosen.exposures)), flush=True)


if __name__ == "__main__":
    main()
