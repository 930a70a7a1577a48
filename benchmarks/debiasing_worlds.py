"""Worlds whose clicks are a biased sample of the exposures, and systems trained on them: see `debiasing.py`.

A module of its own, so that worker processes can import it. Everything is kept in one folder and taken up again: a
world or a training that is there is not made twice.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from postclick import files
from postclick.data.arrays import Labels
from postclick.data.log import ExposureLog
from postclick.data.options import PrepareOptions
from postclick.data.prepare import prepare
from postclick.data.scores import Scores
from postclick.data.sources.opening import open_source
from postclick.models.base import ConversionModel
from postclick.models.catalog import build
from postclick.models.scoring import score
from postclick.simulation import simulate
from postclick.training.config import TrainingConfig
from postclick.training.loop import train
from postclick.training.seeding import seed_torch
from postclick.training.stopping import loss_name

KNOBS: dict[str, Any] = {
    "ctr": 0.2,
    "cvr": 0.16,
    "underspecification": 0.5,
    "logged_propensity": True,
    "users": 1_000,
    "items": 500,
}
"""Of every world. Half of the CVR latent's variance is an interaction that an additive class cannot hold. Users and
items are few (128 clicks a user), so that what is wrong is the class and not that ids have not been learned."""
BASELINE = "mlp"
SMALL = {"tower": {"hidden": []}, "trunk": "shared"}
"""A CVR class (and CTR class) that is additive in the ids and features: the misspecified towers."""
LOGGED = {"propensity": "logged"}
SYSTEMS: dict[str, tuple[str, Mapping[str, Any]]] = {
    "mlp": ("mlp", {}),
    "esmm": ("esmm", {}),
    "multi-ipw": ("multi-ipw", LOGGED),
    "multi-dr": ("multi-dr", LOGGED),
    "escm2-ips": ("escm2-ips", LOGGED),
    "escm2-dr": ("escm2-dr", LOGGED),
    "dr-jl": ("dr-jl", LOGGED),
    "mrdr": ("mrdr", LOGGED),
    "dcmt": ("dcmt", LOGGED),
    "ddpo": ("ddpo", LOGGED),
    "nise": ("nise", {}),
    "chorus": ("chorus", LOGGED),
    "multi-ipw, own ctr": ("multi-ipw", {}),
    "multi-dr, own ctr": ("multi-dr", {}),
}
"""Label -> key and arguments. All that weigh clicks read the logged propensity, but for the last two."""
FEW = ("mlp", "esmm", "multi-ipw", "multi-dr", "escm2-ips", "escm2-dr")
CAUSAL = tuple(name for name in SYSTEMS if name not in ("mlp", "esmm"))


@dataclass(frozen=True)
class Cell:
    """A world, the class of the systems on it, and whether the bar is judged there.

    Parameters
    ----------
    name
        Of its folder.
    title
        In the table.
    knobs
        Beside `KNOBS`.
    systems
        Labels of `SYSTEMS`.
    small
        Towers that are additive in the ids; else the systems' defaults.
    judged
        ``gain``, ``no loss``, or "" for a world that is shown and not judged.
    world
        Cell whose world and log it shares; "" has its own.
    """

    name: str
    title: str
    knobs: Mapping[str, Any] = field(default_factory=dict)
    systems: tuple[str, ...] = tuple(SYSTEMS)
    small: bool = True
    judged: str = ""
    world: str = ""

    def log(self, folder: Path) -> Path:
        """Return where its world and log are."""
        return folder / (self.world or self.name)


STRENGTHS = (0.0, 0.5, 1.0, 1.5, 2.0)
GAIN, NO_LOSS = (1.0, 1.5), 0.0
"""Strengths at which the bar is judged; the others are shown."""


def _strength(strength: float) -> Cell:
    judged = "gain" if strength in GAIN else "no loss" if strength == NO_LOSS else ""
    return Cell(f"selection-{strength:g}", f"selection {strength:g}", {"selection": strength}, judged=judged)


CELLS = (
    *(_strength(strength) for strength in STRENGTHS),
    Cell(
        "confounder",
        "selection 1 and an unobserved confounder of weight 1",
        {"selection": 1.0, "unobserved_confounder": 1.0},
    ),
    Cell(
        "wrong-propensity",
        "selection 1.5, the logged propensity flattened by 0.7",
        {"selection": 1.5, "propensity_misspecification": 0.7},
        (*FEW, "multi-ipw, own ctr", "multi-dr, own ctr"),
    ),
    Cell("thin", "selection 1, thin overlap on 0.4 of the exposures", {"selection": 1.0, "thin_overlap": 0.4}, FEW),
    Cell("never", "selection 1, 0.3 of the exposures never clicked", {"selection": 1.0, "support_violation": 0.3}, FEW),
    Cell("large-class", "selection 1.5, towers 128-64-32", {"selection": 1.5}, FEW, small=False, world="selection-1.5"),
)


@dataclass(frozen=True)
class Setting:
    """What all worlds and trainings of a folder have in common."""

    exposures: int = 800_000
    world_seed: int = 100
    max_epochs: int = 12
    patience: int = 6
    embedding: int = 8
    batch_size: int = 2000
    learning_rate: float = 1e-3

    def training(self, stop_on: str) -> TrainingConfig:
        return TrainingConfig(
            stop_on=stop_on,
            max_epochs=self.max_epochs,
            patience=self.patience,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            threads=1,
        )


@dataclass(frozen=True)
class Piece:
    """One training."""

    folder: Path
    cell: Cell
    system: str
    seed: int
    setting: Setting

    @property
    def path(self) -> Path:
        return self.folder / self.cell.name / f"{self.system.replace(', ', '-').replace(' ', '-')}-{self.seed}.npz"

    def arguments(self) -> dict[str, Any]:
        """Return the system's arguments; DDPO's transfer modules would make the small class a large one."""
        given = {**SYSTEMS[self.system][1], "embedding_size": self.setting.embedding}
        if self.cell.small:
            given |= SMALL | ({"transfer": None} if self.system == "ddpo" else {})
        return given


def make_log(folder: Path, cell: Cell, setting: Setting) -> ExposureLog:
    """Simulate and prepare a cell, or take what is there; rows are split at random, so all splits have one rate."""
    at = cell.log(folder)
    if (at / "log" / files.MANIFEST).is_file():
        return ExposureLog(at / "log")
    at.mkdir(parents=True, exist_ok=True)
    knobs = {**KNOBS, **cell.knobs}
    world = simulate(at / "world", knobs=knobs, exposures=setting.exposures, seed=setting.world_seed, force=True)
    truth, options = world.path / "truth.parquet", PrepareOptions(split="random")
    return prepare(open_source(world.path), at / "log", options, truth=truth, force=True, jobs=1)


def train_piece(piece: Piece) -> tuple[Piece, float]:
    """Train once and keep the test split's CVR, uncalibrated; returns seconds."""
    began = time.monotonic()
    log = ExposureLog(piece.cell.log(piece.folder) / "log")
    seed_torch(piece.seed, "model")
    model = build(SYSTEMS[piece.system][0], log.spec, piece.arguments())
    result = train(model, log, piece.setting.training(watched(piece.system, model)), seed=piece.seed)
    found = score(model, log.split("test").blocks())
    piece.path.parent.mkdir(parents=True, exist_ok=True)
    with files.create(piece.path) as handle:
        kept: dict[str, Any] = {"cvr": found.odds["cvr"].astype(np.float32), "steps": result.best_step or 0}
        np.savez(handle, **kept)
    return piece, time.monotonic() - began


def watched(system: str, model: ConversionModel) -> str:
    """Return the loss that stops a training: that of conversions, as a CTR that still learns would overfit the CVR.

    NISE stops on its CTR. Its CVR is a ranking and not a rate, so its log-loss is best before anything is learned.
    """
    losses = {head: loss_name(head, where) for head, where in model.observed}
    return losses["ctr"] if system == "nise" else next(losses[head] for head in ("cvr", "ctcvr") if head in losses)


def load(piece: Piece) -> tuple[Scores, int]:
    """Read what `train_piece` kept: scores, and steps to the best check."""
    with np.load(piece.path) as kept:
        return Scores({"cvr": kept["cvr"].astype(np.float64)}, {}), int(kept["steps"])


def effective_share(labels: Labels, floor: float = 0.0) -> float:
    """Return (sum w)^2 / sum w^2 over the clicks, as a share of them, with w = 1 / max(logged propensity, floor)."""
    assert labels.propensity is not None
    weight = 1.0 / np.maximum(labels.propensity[labels.click == 1], max(floor, 1e-12))
    return float(weight.sum() ** 2 / (weight @ weight) / len(weight))
