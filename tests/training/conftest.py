"""A small log on disk and a small system, so that training is tested without the systems it must not know."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import Tensor, nn

from postclick import files
from postclick.data.arrays import Exposures, Labels, Ragged
from postclick.data.log import ExposureLog, to_arrow
from postclick.losses.probability import LogProbability
from postclick.models.base import Batch, Citation, ConversionModel, HeadKind, Losses, Outputs, Phase
from postclick.nn.embedding import FusedEmbedding
from postclick.schema import Schema, SequenceFeature, SparseFeature
from postclick.training.seeding import seed_torch

SCHEMA = Schema((SparseFeature("user"), SparseFeature("item"), SequenceFeature("tags", pooling="mean")))
VALUES = (30, 20, 10)
FIELDS = len(VALUES)
TABLE_ROWS = FIELDS + sum(VALUES)


def make_exposures(rows: int, seed: int) -> Exposures:
    """Rows whose click depends on user and item, and whose conversion depends on the item."""
    random = np.random.default_rng(seed)
    starts = FIELDS + np.concatenate([[0], np.cumsum(VALUES)])
    user = random.integers(0, VALUES[0], rows)
    item = random.integers(0, VALUES[1], rows)
    lengths = random.integers(0, 4, rows)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    tags = random.integers(starts[2], starts[3], offsets[-1]).astype(np.int32)
    click = random.random(rows) < np.where((user + item) % 2 == 0, 0.7, 0.2)
    conversion = click & (random.random(rows) < np.where(item % 3 == 0, 0.8, 0.2))
    labels = Labels(
        click.astype(np.int8), conversion.astype(np.int8), exposure_id=np.arange(rows, dtype=np.int64) + seed * 100_000
    )
    matrix = np.stack([starts[0] + user, starts[1] + item], axis=1).astype(np.int32)
    empty = np.zeros((rows, 0), np.float32)
    return Exposures(matrix, empty, empty, (Ragged(tags, offsets),), labels)


def write_log(path: Path, splits: dict[str, Exposures]) -> ExposureLog:
    """Write a LOG folder with what training reads of it."""
    with files.new_folder(path, "log") as scratch:
        files.write_text(scratch / "schema.toml", SCHEMA.to_toml())
        (scratch / "vocabulary").mkdir()
        vocabulary = {"table_rows": TABLE_ROWS, "fields": [{"size": size} for size in VALUES]}
        files.write_json(scratch / "vocabulary" / "vocabulary.json", vocabulary)
        for name, exposures in splits.items():
            (scratch / name).mkdir()
            batch = to_arrow(exposures, SCHEMA)
            with (
                files.create(scratch / name / "part-00000.arrow") as handle,
                pa.ipc.new_file(handle, batch.schema) as writer,
            ):
                writer.write_batch(batch)
    return ExposureLog(path)


class TinyModel(ConversionModel):
    """Sum of embeddings, one linear layer a head, dropout: a product system with every kind of state."""

    citation = Citation("Tiny", "nobody", "nowhere", 2026, "")
    two_phases = False

    def __init__(self, log: ExposureLog) -> None:
        super().__init__(log.spec)
        self.table = FusedEmbedding(log.spec.table_rows, 4, unknown_rows=FIELDS, pooling=("mean",))
        self.ctr = nn.Linear(4 * FIELDS, 1)
        self.cvr = nn.Linear(4 * FIELDS, 1)
        self.register_buffer("epochs_started", torch.zeros((), dtype=torch.int64))
        self.poison_at: int | None = None
        self.forwards = 0

    @property
    def heads(self) -> dict[str, HeadKind]:
        return {"ctr": "head", "cvr": "head", "ctcvr": "head"}

    @property
    def observed(self) -> tuple[tuple[str, str], ...]:
        return (("ctr", "exposure"), ("cvr", "click"))

    def forward(self, batch: Batch) -> Outputs:
        x = self.table(batch.features).flatten(1)
        x = nn.functional.dropout(x, 0.1, self.training)
        ctr = LogProbability.from_logit(self.ctr(x).squeeze(-1))
        cvr = LogProbability.from_logit(self.cvr(x).squeeze(-1))
        return Outputs(ctr, cvr, ctr * cvr)

    def loss(self, outputs: Outputs, batch: Batch) -> Losses:
        assert batch.click is not None
        assert batch.conversion is not None
        ctr = outputs.ctr.cross_entropy(batch.click).mean()
        cvr = (batch.click * outputs.cvr.cross_entropy(batch.conversion)).mean()
        if self.forwards == self.poison_at:
            ctr = ctr * float("nan")
        self.forwards += 1
        return Losses({"ctr": ctr, "cvr": cvr}, {"clicks": batch.click.sum(), "never": torch.tensor(float("nan"))})

    def phases(self) -> tuple[Phase, ...]:
        if not self.two_phases:
            return super().phases()
        return (
            Phase("ctr", (self.table.weight, *self.ctr.parameters()), ("ctr",)),
            Phase("cvr", tuple(self.cvr.parameters()), ("cvr",)),
        )

    def on_epoch_start(self, epoch: int) -> None:
        started = self.epochs_started
        assert isinstance(started, Tensor)
        started += 1


@pytest.fixture(scope="session")
def log_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("training") / "log"
    write_log(path, {"train": make_exposures(1000, 1), "valid": make_exposures(600, 2)})
    return path


@pytest.fixture
def log(log_folder: Path) -> ExposureLog:
    return ExposureLog(log_folder)


@pytest.fixture
def log_without_valid(log_folder: Path, tmp_path: Path) -> ExposureLog:
    shutil.copytree(log_folder, tmp_path / "log")
    shutil.rmtree(tmp_path / "log" / "valid")
    return ExposureLog(tmp_path / "log")


@pytest.fixture
def build(log: ExposureLog) -> Callable[..., TinyModel]:
    """Return a builder of equal models; ``two_phases=True`` trains the heads in turn."""

    def make(seed: int = 0, two_phases: bool = False) -> TinyModel:
        seed_torch(seed, "model")
        model = TinyModel(log)
        model.two_phases = two_phases
        return model

    return make


class SharedTinyModel(TinyModel):
    """With a dense layer that both heads read."""

    def __init__(self, log: ExposureLog) -> None:
        super().__init__(log)
        self.shared = nn.Linear(4 * FIELDS, 4 * FIELDS)

    def forward(self, batch: Batch) -> Outputs:
        x = torch.tanh(self.shared(nn.functional.dropout(self.table(batch.features).flatten(1), 0.1, self.training)))
        ctr = LogProbability.from_logit(self.ctr(x).squeeze(-1))
        cvr = LogProbability.from_logit(self.cvr(x).squeeze(-1))
        return Outputs(ctr, cvr, ctr * cvr)

    def shared_parameters(self) -> tuple[nn.Parameter, ...]:
        # the head of one task is among them, as the gate of one task is among a trunk's
        return (*self.shared.parameters(), *self.ctr.parameters())


@pytest.fixture
def build_shared(log: ExposureLog) -> Callable[..., SharedTinyModel]:
    """Return a builder of equal models with shared dense parameters."""

    def make(seed: int = 0) -> SharedTinyModel:
        seed_torch(seed, "model")
        return SharedTinyModel(log)

    return make


@pytest.fixture
def exposures() -> Callable[[int, int], Exposures]:
    return make_exposures
