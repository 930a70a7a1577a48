"""Worlds with in-shop actions, systems that are trained on them, and what the chain misses: see `behaviour_path.py`.

A module of its own, so that worker processes can import it. Everything is kept in one folder and taken up again: a
world or a training that is there is not made twice.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from postclick import files
from postclick.data.arrays import Labels
from postclick.data.log import ExposureLog, Truth
from postclick.data.options import PrepareOptions
from postclick.data.prepare import prepare
from postclick.data.scores import Scores, log_odds, probability
from postclick.data.sources.opening import open_source
from postclick.metrics.significance import satterthwaite, student_quantile
from postclick.models.catalog import build
from postclick.models.scoring import score
from postclick.simulation import Behaviour, World, psc_gap, simulate
from postclick.training.config import TrainingConfig
from postclick.training.loop import train
from postclick.training.seeding import seed_torch

RATES = {"ctr": 0.2, "cvr": 0.16, "action_rate": 0.4}
CHAIN = {"other_action": False, "purchase": "direct"}
SYSTEMS: dict[str, tuple[str, Mapping[str, Any]]] = {
    "esmm": ("esmm", {}),
    "esm2": ("esm2", {}),
    "esmc": ("esmc", {}),
    "esms": ("esms", {}),
    "esmg": ("esmg", {}),
    "chain": ("esm2", CHAIN),
    "chain, cart log": ("esm2", CHAIN | {"purchase": "global"}),
}
HEADS = ("ctr", "cvr", "ctcvr")
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Cell:
    """A world: the share of conversions that no action comes before, and the share logged outside the window."""

    without: float
    outside: float

    @property
    def name(self) -> str:
        return f"without-{self.without:g}-outside-{self.outside:g}"

    def knobs(self) -> dict[str, float]:
        """Actions and purchases leave the window alike; an action that left is logged on some unclicked exposure."""
        ctr, lost = RATES["ctr"], self.outside * RATES["action_rate"]
        return RATES | {
            "purchase_without_action": self.without,
            "action_outside_window": self.outside,
            "purchase_outside_window": self.outside,
            "orphan_actions": lost * ctr / (1.0 - ctr),
        }

    def systems(self, chosen: Sequence[str]) -> list[str]:
        """Without orphan actions the cart log is the log itself, and its chain the chain."""
        return [name for name in chosen if name != "chain, cart log" or self.outside]


@dataclass(frozen=True)
class Setting:
    """What all worlds and trainings of a folder have in common.

    The step size is a third of the default: at the default the mean of a network's predictions moves by 5 to 10 % from
    one check to the next, which would drown the bias that is looked for.
    """

    exposures: int = 400_000
    max_epochs: int = 12
    patience: int = 4
    embedding: int = 8
    batch_size: int = 2000
    learning_rate: float = 3e-4
    entities: int = 0  # users of the world, and twice its items; 0: the world's own, some 16,000

    def entity_knobs(self) -> dict[str, int]:
        return {"users": self.entities, "items": self.entities // 2} if self.entities else {}

    def training(self) -> TrainingConfig:
        return TrainingConfig(
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


def make_log(folder: Path, cell: Cell, setting: Setting) -> ExposureLog:
    """Simulate and prepare a cell, or take what is there.

    Rows are split at random: split by time the test split has later hours of the day, with a CTR 4 % above that of the
    training rows, and the networks' error in following that would stand beside the chain's bias.
    """
    at = folder / cell.name
    if (at / "log" / files.MANIFEST).is_file():
        return ExposureLog(at / "log")
    at.mkdir(parents=True, exist_ok=True)
    knobs = {**cell.knobs(), **setting.entity_knobs()}
    world = simulate(at / "world", world="behaviour", knobs=knobs, exposures=setting.exposures, force=True)
    truth, options = world.path / "truth.parquet", PrepareOptions(split="random")
    return prepare(open_source(world.path), at / "log", options, truth=truth, force=True, jobs=1)


def train_piece(piece: Piece) -> tuple[Piece, float]:
    """Train once and keep the test split's scores, uncalibrated: calibration would hide a bias. Returns seconds."""
    began = time.monotonic()
    log = ExposureLog(piece.folder / piece.cell.name / "log")
    key, arguments = SYSTEMS[piece.system]
    seed_torch(piece.seed, "model")
    model = build(key, log.spec, {**arguments, "embedding_size": piece.setting.embedding})
    result = train(model, log, piece.setting.training(), seed=piece.seed)
    found = score(model, log.split("test").blocks())
    with files.create(piece.path) as handle:
        kept: dict[str, Any] = {head: found.odds[head].astype(np.float32) for head in HEADS}
        if "chain" in piece.system:
            kept["centred"] = centred(
                score(model, log.split("train").blocks()), found, log.split("train").labels(), piece
            )
        kept |= {"derived": np.array(sorted(found.derived), str), "steps": result.best_step or 0}
        np.savez(handle, **kept)
    return piece, time.monotonic() - began


def centred(own: Scores, found: Scores, labels: Labels, piece: Piece) -> Floats:
    """Return the chain's CTCVR on `found` with each factor's mean put right on the very training rows it was fitted on.

    Early stopping and dropout leave the mean of a network a few per cent off on its own rows, whatever it is a factor
    of. An offset to the log-odds of each factor, P(o) on exposures, P(a | o) on clicks, P(b | a) on its action rows,
    takes that away and nothing else: what is left is the chain's own bias, and what the factors miss of each other.
    """
    click, action = labels.click == 1, labels.action == 1
    rows = (np.ones_like(click), click, action if "cart log" in piece.system else click & action)
    told = (labels.click, labels.action, labels.conversion)
    ctcvr = np.ones(len(found.odds["ctr"]))
    for here, there, kept, label in zip(factors(own), factors(found), rows, told, strict=True):
        assert label is not None
        ctcvr *= probability(there + offset(here[kept], label[kept]))
    return ctcvr


def factors(scores: Scores) -> tuple[Floats, Floats, Floats]:
    """Return the log-odds of P(o), P(a | o) and P(b | a) = P(a, b | o) / P(a | o)."""
    action, both = (probability(scores.odds[head]) for head in ("action", "cvr"))
    last = np.clip(both / action, 1e-7, 1.0 - 1e-7)
    return scores.odds["ctr"], scores.odds["action"], np.log(last) - np.log1p(-last)


def offset(odds: Floats, label: NDArray[np.int8]) -> float:
    """Return what to add to the log-odds so that their mean probability is that of the label; by bisection."""
    low, high = -5.0, 5.0
    for _ in range(60):
        middle = (low + high) / 2.0
        low, high = (middle, high) if probability(odds + middle).mean() < label.mean() else (low, middle)
    return (low + high) / 2.0


def load(piece: Piece) -> tuple[Scores, int]:
    """Read what `train_piece` kept: scores, and steps to the best check."""
    with np.load(piece.path) as kept:
        odds = {head: kept[head].astype(np.float64) for head in HEADS}
        return Scores(odds, {}, frozenset(kept["derived"].tolist())), int(kept["steps"])


@dataclass(frozen=True)
class Split:
    """The truth of one split, exposure by exposure."""

    truth: Truth
    paths: Behaviour

    @property
    def size(self) -> int:
        return len(self.truth.ctr)

    def last_factor(self, system: str) -> Floats:
        """P(b | a) as the chain fits it: on the exposures' own action rows, or on all rows with an action."""
        return self.paths.cvr_given_any_action if system == "chain, cart log" else self.paths.cvr_given_action

    def chain(self, system: str) -> Floats:
        """Return the exact CVR of the chain."""
        return self.paths.action * self.last_factor(system)

    def chain_scores(self, system: str) -> Scores:
        """Return the scores that the chain would have, had it learned its factors exactly."""
        shares = {"ctr": self.truth.ctr, "cvr": self.chain(system)}
        shares["ctcvr"] = shares["ctr"] * shares["cvr"]
        return Scores({head: log_odds(np.log(p), np.log1p(-p)) for head, p in shares.items()}, {})


def split_truth(log: ExposureLog, world: World, name: str) -> Split:
    """Look the truth of a split's exposures up: a world's ids are 1, 2, 3, ..."""
    truth, ids = log.truth(name), log.split(name).labels().exposure_id
    assert truth is not None
    assert ids is not None
    every = world.behaviour()
    return Split(truth, Behaviour(**{key: column[ids - 1] for key, column in vars(every).items()}))


@dataclass(frozen=True)
class Bias:
    """A bias of the mean CTCVR over exposures as a share of the true mean: what the formula says, what was measured."""

    formula: float
    value: float
    low: float
    high: float

    @property
    def holds(self) -> bool:
        return self.low <= self.formula <= self.high


def load_centred(piece: Piece) -> Floats:
    """Read the CTCVR of `centred` that `train_piece` kept."""
    with np.load(piece.path) as kept:
        return kept["centred"].astype(np.float64)


def chain_bias(
    system: str, scored: Sequence[Floats], against: Sequence[Floats] | None, train: Split, test: Split
) -> Bias:
    """Hold the chain's bias, or its difference from `against` (an unbiased system's), against the formula.

    Seeds share one log, so the variance has a part for the log's own draws. With K conversions after a logged action
    and U others expected in training, both Poisson, the chain's mean follows K (by the factor T / K, with T its exact
    total) and the full system's follows K + U: relative variances 1 / K, and ((T - K)^2 / K + U) / (K + U)^2 for the
    difference.
    """
    gap = psc_gap(test.truth.ctr, test.paths, test.last_factor(system)).total
    mean = test.truth.ctcvr.mean()
    values = np.array([ctcvr.mean() / mean - 1.0 for ctcvr in scored])
    own = psc_gap(train.truth.ctr, train.paths)
    k = float(train.paths.ctar @ train.paths.cvr_given_action)
    u, t = float(own.without_action.sum()), float(train.truth.ctr @ train.chain(system))
    label = t**2 / k / (k + u) ** 2
    if against is not None:
        values = values - np.array([ctcvr.mean() / mean - 1.0 for ctcvr in against])
        label = ((t - k) ** 2 / k + u) / (k + u) ** 2
    seed = float(values.var(ddof=1)) / len(values)
    width = student_quantile(satterthwaite([seed, label], [len(values) - 1.0, np.inf]), 0.05) * np.sqrt(seed + label)
    value = float(values.mean())
    return Bias(0.0 - float(gap.mean() / mean), value, value - width, value + width)
