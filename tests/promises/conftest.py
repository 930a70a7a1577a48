"""The systems under promise, and a small world with a known answer that all of them must learn."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch

from postclick.data.arrays import Exposures, Labels, Ragged
from postclick.data.log import LogSpec
from postclick.models.base import ConversionModel, Pretraining, Requirement
from postclick.models.batching import to_batch
from postclick.models.catalog import build
from postclick.models.systems import MODELS
from postclick.nn.embedding import use_sparse_gradients
from postclick.schema import Columns, DenseFeature, EmbeddingFeature, Schema, SequenceFeature, SparseFeature

SCHEMA = Schema(
    (
        SparseFeature("user", side="user"),
        SparseFeature("item", side="item"),
        DenseFeature("age", side="user"),
        SequenceFeature("history", side="user", weights="recency"),
        SequenceFeature("tags", side="item", pooling="sum"),
        EmbeddingFeature("image", size=2, side="item"),
    ),
    Columns(
        user_id="user",
        item_id="item",
        click_time="clicked",
        conversion_time="bought",
        observed_until="until",
        attribution_window=432_000.0,
        immature="censor",
    ),
)
FIELDS, USERS, ITEMS, TAGS = 4, 30, 20, 12
DAY, DAYS = 86_400_000_000, 60.0
TABLE_ROWS = FIELDS + USERS + ITEMS + TAGS


@dataclass(frozen=True)
class Case:
    """A system and arguments that change what it promises."""

    key: str
    arguments: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return "-".join([self.key, *(f"{name}={value}" for name, value in self.arguments.items())])


# Every system with its defaults, and the arguments that make another system of it.
VARIANTS = (
    Case("mlp", {"conversion": "exposure"}),
    Case("mlp", {"interaction": {"rank": 2}}),
    Case("esmm", {"shared_embedding": False}),
    Case("esmm", {"trunk": "mmoe"}),
    Case("mlp", {"trunk": "mf"}),
    Case("mlp", {"click_space": "aman"}),
    Case("mlp", {"click_space": "oversample"}),
    Case("mlp", {"click_space": "unbias"}),
    Case("esmm", {"trunk": "mf"}),
    Case("esmm", {"trunk": "ncf"}),
    Case("omoe", {"conversion": "cvr"}),
    Case("mmoe", {"conversion": "cvr"}),
    Case("ple", {"conversion": "cvr"}),
    Case("esm2", {"other_action": False}),
    Case("esm2", {"purchase": "both"}),
    Case("multi-dr", {"imputation": "error"}),
    Case("escm2-dr", {"risk": {"updates": "alternating"}}),
    Case("ddpo", {"transfer": None}),
    Case("dfm", {"cut_at_window": False}),
    Case("cstwa", {"migrator": None}),
    Case("cstwa", {"perceptron": None}),
    Case("cstwa", {"escaper": None}),
    Case("cstwa", {"calibrator": None}),
    Case("cstwa", {"migrator": None, "perceptron": None, "escaper": None}),
    Case("cstwa", {"migrator": {"reading": "B"}}),
    Case("cstwa", {"migrator": {"reading": "D"}}),
)
CASES = (*(Case(key) for key in MODELS), *VARIANTS)


def logit(p: float) -> float:
    return float(np.log(p / (1 - p)))


@dataclass(frozen=True)
class Toy:
    """Exposures, the true probabilities of their clicks, conversions and actions, and the spec of their log."""

    exposures: Exposures
    ctr: np.ndarray
    cvr: np.ndarray
    action: np.ndarray
    spec: LogSpec

    @property
    def labels(self) -> Labels:
        assert self.exposures.labels is not None
        return self.exposures.labels


def _ragged(rng: np.random.Generator, rows: int, low: int, high: int, weighted: bool) -> Ragged:
    lengths = rng.integers(0, 4, rows)  # some are empty
    offsets = np.r_[0, np.cumsum(lengths)].astype(np.int64)
    values = rng.integers(low, high, offsets[-1]).astype(np.int32)
    return Ragged(values, offsets, rng.random(len(values)).astype(np.float32) if weighted else None)


def make_toy(rows: int, seed: int) -> Toy:
    """Clicks and conversions from the log-odds of user plus item, the same world for every seed of rows."""
    world, rng = np.random.default_rng(2026), np.random.default_rng(seed)
    effects = world.normal(size=(2, TABLE_ROWS)) * 1.2
    user, item = rng.integers(0, USERS, rows) + FIELDS, rng.integers(0, ITEMS, rows) + FIELDS + USERS
    odds = effects[:, user] + effects[:, item] + np.array([[-0.5], [-0.3]])
    ctr, cvr = 1 / (1 + np.exp(-odds))
    click = rng.random(rows) < ctr
    conversion = click & (rng.random(rows) < cvr)
    action, action_rate = _actions(odds[1], cvr, conversion, seed)
    tags = (FIELDS + USERS + ITEMS, TABLE_ROWS)
    exposures = Exposures(
        np.stack([user, item], 1).astype(np.int32),
        rng.normal(size=(rows, 1)).astype(np.float32),
        rng.normal(size=(rows, 2)).astype(np.float32),
        (_ragged(rng, rows, *tags, weighted=True), _ragged(rng, rows, *tags, weighted=False)),
        Labels(click.astype(np.int8), conversion.astype(np.int8), action.astype(np.int8), **_times(conversion, seed)),
    )
    counts = (float(count) for count in (rows, click.sum(), conversion.sum(), (click & action).sum()))
    return Toy(exposures, ctr, cvr, action_rate, LogSpec(SCHEMA, TABLE_ROWS, *counts, days=DAYS))


def _times(conversion, seed):
    """Clicks evenly over 50 days, conversions within their window of 5, all of them closed; a generator of its own."""
    rng = np.random.default_rng([seed, 2])
    until = np.full(len(conversion), round(DAYS * DAY))
    click = (50 * DAY * rng.random(len(conversion))).astype(np.int64)
    bought = click + (DAY * np.minimum(rng.exponential(1.5, len(conversion)), 5.0)).astype(np.int64)
    return {
        "immature": np.zeros(len(conversion), np.int8),
        "click_time": click,
        "conversion_time": np.where(conversion, bought, np.iinfo(np.int64).min),
        "observed_until": until,
    }


def _actions(odds, cvr, conversion, seed):
    """Actions, with and without a conversion, on unclicked rows too, and P(action | click, x); its own generator."""
    without, given = (1 / (1 + np.exp(-(0.5 * odds + shift))) for shift in (-0.2, 2.2))
    action = np.random.default_rng([seed, 1]).random(len(odds)) < np.where(conversion, given, without)
    return action, cvr * given + (1 - cvr) * without


def artefact(requirement: Requirement) -> dict[str, np.ndarray]:
    """What a system may require of the toy: a table, or a ring of users or items whose first has no neighbour."""
    if isinstance(requirement, Pretraining):
        size = requirement.arguments["embedding_size"]
        return {"table": np.random.default_rng(5).normal(size=(TABLE_ROWS, size)).astype(np.float32)}
    first, count = (FIELDS, USERS) if requirement.side == "user" else (FIELDS + USERS, ITEMS)
    entity = np.arange(first, first + count, dtype=np.int32)
    ends = np.r_[0, 2 * np.arange(count)].astype(np.int64)
    others = np.arange(1, count)[:, None] + np.array([-1, 1])
    values = np.full(2 * (count - 1), 0.5, np.float32)
    graph = {"indptr": ends, "indices": (others % count).ravel().astype(np.int32), "values": values}
    return {"entity": entity, "features": entity[:, None], **graph}


@pytest.fixture(params=CASES, ids=lambda case: case.name)
def case(request) -> Case:
    return request.param


@pytest.fixture(scope="session")
def cases() -> tuple[Case, ...]:
    return CASES


@pytest.fixture(scope="session")
def toy() -> Toy:
    return make_toy(6000, seed=0)


@pytest.fixture(scope="session")
def fresh_toy() -> Toy:
    return make_toy(4000, seed=1)


@pytest.fixture(scope="session")
def make_model(toy):
    """Build a case's system with dense gradients, so that PyTorch's own optimisers take it."""

    def make(case: Case, seed: int = 0, *, train: bool = False) -> ConversionModel:
        torch.manual_seed(seed)
        model = build(case.key, toy.spec, case.arguments)
        for requirement in model.requires():
            model.provide(requirement, artefact(requirement))
        use_sparse_gradients(model, False)
        return model.train(train)

    return make


@pytest.fixture(scope="session")
def fit(toy, make_model):
    """Build and train with PyTorch's Adam, one optimiser a phase."""

    def fit(case: Case, seed: int = 0, epochs: int = 12, batch_size: int = 500) -> ConversionModel:
        model = make_model(case, seed, train=True)
        phases = model.phases()
        optimisers = [torch.optim.Adam(phase.parameters, lr=0.01) for phase in phases]
        shuffle = np.random.default_rng(seed)
        for epoch in range(epochs):
            model.on_epoch_start(epoch)
            order = shuffle.permutation(len(toy.exposures))
            for start in range(0, len(order), batch_size):
                batch = to_batch(toy.exposures.take(order[start : start + batch_size]))
                for phase, optimiser in zip(phases, optimisers, strict=True):
                    terms = model.loss(model(batch), batch).terms
                    optimiser.zero_grad()
                    sum(terms[name] for name in phase.terms or terms).backward()
                    optimiser.step()
        return model.eval()

    return fit


@pytest.fixture(scope="session")
def fitted(fit):
    """The trained system of a case; trained once."""
    models: dict[str, ConversionModel] = {}

    def get(case: Case) -> ConversionModel:
        if case.name not in models:
            models[case.name] = fit(case)
        return models[case.name]

    return get
