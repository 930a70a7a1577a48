"""Random tiny instances, and the comparison of a system with its equations on them, in float64."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any

import numpy as np
import torch

from postclick.data.log import LogSpec
from postclick.models.base import Batch, ConversionModel
from postclick.models.catalog import build
from postclick.nn.embedding import use_sparse_gradients
from postclick.nn.features import Features, Sequence
from postclick.schema import DenseFeature, EmbeddingFeature, Schema, SequenceFeature, SparseFeature

__all__ = ["Case", "HeldParity", "Instance", "Parity", "arrays", "as_dtype", "build_new", "instance", "system", "twin"]

SCHEMA = Schema(
    (
        SparseFeature("user", side="user"),
        SparseFeature("item", side="item"),
        DenseFeature("age", side="user"),
        SequenceFeature("history", side="user", weights="recency"),
        SequenceFeature("tags", side="item", pooling="sum"),
        EmbeddingFeature("image", size=2, side="item"),
    )
)
Plant = Callable[[ConversionModel], None]
ROWS, TABLE_ROWS = 7, 12
SPEC = LogSpec(SCHEMA, TABLE_ROWS, rows=100.0, clicks=30.0, conversions=10.0, actions=12.0)
TOWER = {"hidden": [3], "dropout": [0.0]}
STEP = 1e-5
EVERY_KIND = 74
"""The seed of an instance with every kind of row that counts: unclicked, and clicked with and without either label."""


@dataclass(frozen=True)
class Case:
    """A system, the arguments it is built with, and the equations that it must equal."""

    key: str
    network: str
    objective: str
    arguments: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Instance:
    """One batch twice: for the equations, and as tensors."""

    x: dict[str, Any]
    y: dict[str, np.ndarray]
    batch: Batch


def instance(seed: int, *, rows: int = ROWS, weighted: bool = True, click_rate: float = 0.6) -> Instance:
    """Random features of every kind and random labels: actions on unclicked rows too, conversions on clicked ones."""
    rng = np.random.default_rng(seed)
    x: dict[str, Any] = {
        "rows": rng.integers(0, TABLE_ROWS, (rows, 2)),
        "dense": rng.normal(size=(rows, 1)),
        "embeddings": rng.normal(size=(rows, 2)),
        "sequences": [],
    }
    for feature in SCHEMA.sequences:
        values = [list(rng.integers(0, TABLE_ROWS, length)) for length in rng.integers(0, 4, rows)]  # some are empty
        weights = [list(rng.random(len(v)) + 0.1) if feature.weights else [1.0] * len(v) for v in values]
        x["sequences"].append((list(zip(values, weights, strict=True)), feature.pooling))
    click = (rng.random(rows) < click_rate).astype(float)
    y = {
        "click": click,
        "conversion": click * rng.integers(0, 2, rows),
        "action": rng.integers(0, 2, rows).astype(float),
        # a row of weight 0 is one whose label is censored
        "weight": np.r_[0.0, rng.random(rows - 1) * 2] if weighted else np.ones(rows),
    }
    return Instance(x, y, _batch(x, y, weighted))


def _batch(x: dict[str, Any], y: dict[str, np.ndarray], weighted: bool) -> Batch:
    sequences = tuple(
        Sequence(
            torch.tensor([value for values, _ in rows for value in values], dtype=torch.int32),
            torch.tensor(np.r_[0, np.cumsum([len(values) for values, _ in rows])], dtype=torch.int64),
            torch.tensor([w for _, weights in rows for w in weights]).double() if feature.weights else None,
        )
        for feature, (rows, _) in zip(SCHEMA.sequences, x["sequences"], strict=True)
    )
    dense, embeddings = torch.tensor(x["dense"]), torch.tensor(x["embeddings"])
    features = Features(torch.tensor(x["rows"], dtype=torch.int32), dense, embeddings, sequences)
    click, conversion, action, weight = (torch.tensor(y[name]) for name in ("click", "conversion", "action", "weight"))
    return Batch(features, click, conversion, action, weight if weighted else None)


def as_dtype(batch: Batch, dtype: torch.dtype) -> Batch:
    """Return `batch` with numbers of `dtype`."""

    def cast(part: Any) -> Any:
        if isinstance(part, torch.Tensor):
            return part.to(dtype) if part.is_floating_point() else part
        if isinstance(part, tuple):
            return tuple(cast(inner) for inner in part)
        if is_dataclass(part):
            return replace(part, **{entry.name: cast(getattr(part, entry.name)) for entry in fields(part)})
        return part

    return cast(batch)


def build_new(key: str, arguments: dict[str, Any]) -> ConversionModel:
    """Build a system as it starts, without dropout and with embeddings of 2, in float64."""
    model = build(key, SPEC, {"embedding_size": 2, "tower": TOWER, **arguments}).double()
    use_sparse_gradients(model, False)
    return model


def system(key: str, arguments: dict[str, Any], seed: int) -> ConversionModel:
    """Build a system and draw its weights from N(0, 0.7), its biases from N(0.5, 0.7), so that ReLUs live."""
    model = build_new(key, arguments)
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            mean = 0.5 if parameter.dim() == 1 else 0.0
            parameter.copy_(torch.tensor(rng.normal(mean, 0.7, tuple(parameter.shape))))
    return model


def twin(model: ConversionModel, **methods: Any) -> None:
    """Make `model` a subclass of its own class with other methods: the same weights, another mathematics."""
    model.__class__ = type(f"Twin{type(model).__name__}", (type(model),), methods)


class Parity:
    """Holds a system against its equations."""

    def __init__(self, equations: Any, state: Any) -> None:
        self.equations, self.state = equations, state

    def everywhere(self, case: Case, plant: Plant = lambda _: None) -> None:
        """Forward and terms on random weights and batches: weighted or not, no click at all, nothing but clicks."""
        for seed, rate in ((0, 0.6), (1, 0.6), (2, 0.6), (3, 0.6), (4, 0.0), (5, 1.0)):
            model = system(case.key, case.arguments, seed)
            plant(model)
            self.forward(case, instance(seed, weighted=seed % 2 == 0, click_rate=rate), model)

    def transcribed(self, case: Case, state: dict[str, np.ndarray], given: Instance):
        """Return (heads, terms) of the equations at the weights `state`."""
        weights = self.state.network_weights(case.network, state)
        logits = getattr(self.equations, case.network.removesuffix("_tables"))(given.x, weights)
        options = dict(case.options)
        if options.get("strength") is not None:
            options["towers"] = weights["towers"]
        return getattr(self.equations, case.objective)(logits, given.y, **options)

    def forward(self, case: Case, given: Instance, model: torch.nn.Module) -> None:
        """Every head and every term to 1e-6, in eval mode and in train mode."""
        heads, terms = self.transcribed(case, arrays(model), given)
        for train in (False, True):
            model.train(train)
            outputs = model(given.batch)
            found = {name: np.exp(head.log_p.detach().numpy()) for name, head in outputs.heads().items()}
            assert set(found) == set(heads)
            for name, expected in heads.items():
                np.testing.assert_allclose(found[name], expected, rtol=0, atol=1e-6, err_msg=name)
                rest = np.exp(outputs.heads()[name].log_not_p.detach().numpy())
                np.testing.assert_allclose(rest, 1 - expected, rtol=0, atol=1e-6, err_msg=name)
            losses = {name: term.item() for name, term in model.loss(outputs, given.batch).terms.items()}
            assert set(losses) == set(terms)
            for name, value in terms.items():
                np.testing.assert_allclose(losses[name], value, rtol=1e-6, atol=1e-9, err_msg=name)
            np.testing.assert_allclose(sum(losses.values()), sum(terms.values()), rtol=1e-6)

    def gradients(self, case: Case, plant: Plant = lambda _: None) -> None:
        """Autograd of the total against central differences of the equations' total, parameter by parameter."""
        given, model = instance(EVERY_KIND), system(case.key, case.arguments, 10)
        plant(model)
        model.zero_grad()
        sum(model.loss(model(given.batch), given.batch).terms.values()).backward()
        state = arrays(model)
        for name, parameter in model.named_parameters():
            found = np.zeros(parameter.shape) if parameter.grad is None else parameter.grad.numpy()
            expected = self._differences(case, state, name, given)
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-9, err_msg=name)
            assert np.abs(expected).max() > 1e-6, f"{name} takes no part"

    def _differences(self, case: Case, state: dict[str, np.ndarray], name: str, given: Instance) -> np.ndarray:
        place = state[name]
        slopes = np.zeros_like(place)
        for index in np.ndindex(place.shape):
            kept, totals = place[index], []
            for value in (kept + STEP, kept - STEP):
                place[index] = value
                totals.append(sum(self.transcribed(case, state, given)[1].values()))
            place[index] = kept
            slopes[index] = (totals[0] - totals[1]) / (2 * STEP)
        return slopes


class HeldParity(Parity):
    """Parity where the equations are also given the logits that stopped quantities come from.

    Differences hold these where they are, at the logits of the point itself; values take them from the same weights.
    """

    held: dict[str, np.ndarray] | None = None

    def transcribed(self, case: Case, state: dict[str, np.ndarray], given: Instance):
        """Return (heads, terms) of the equations at the weights `state`."""
        logits = self._logits(case, state, given)
        held = logits if self.held is None else self.held
        return getattr(self.equations, case.objective)(logits, given.y, held, **case.options)

    def gradients(self, case: Case, plant: Plant = lambda _: None) -> None:
        """As of `Parity`, with what is stopped held fixed."""
        self.held = self._logits(case, arrays(system(case.key, case.arguments, 10)), instance(EVERY_KIND))
        try:
            super().gradients(case, plant)
        finally:
            self.held = None

    def _logits(self, case: Case, state: dict[str, np.ndarray], given: Instance) -> dict[str, np.ndarray]:
        weights = self.state.network_weights(case.network, state)
        return getattr(self.equations, case.network)(given.x, weights)


def arrays(model: torch.nn.Module) -> dict[str, np.ndarray]:
    """Return copies of a system's parameters by name."""
    return {name: parameter.detach().numpy().copy() for name, parameter in model.named_parameters()}
