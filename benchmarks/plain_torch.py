"""ESMM the ordinary PyTorch way, as a competent user writes it from the manual: the reference of `train_throughput.py`.

One ``nn.Embedding`` a field, ``DataLoader`` over a ``TensorDataset`` with its default collate, ``torch.optim.Adam``
over everything with its defaults. The same network, loss and batch size as postclick's, and the same distributions of
starting values, so that what differs is how it is computed and what moves the tables.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import logsigmoid
from torch.utils.data import DataLoader, TensorDataset

from postclick.nn.initialise import EMBEDDING_SCALE

HIDDEN = (128, 64, 32)
DROPOUT = (0.1, 0.3, 0.3)


def tower(width: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for hidden, rate in zip(HIDDEN, DROPOUT, strict=True):
        layers += [nn.Linear(width, hidden), nn.ReLU(), nn.Dropout(rate)]
        width = hidden
    return nn.Sequential(*layers, nn.Linear(width, 1))


def log_odds(rate: float) -> float:
    return math.log(rate / (1 - rate))


class PlainESMM(nn.Module):
    """Two towers on shared embeddings; ids count from 0 within each field."""

    def __init__(self, sizes: Sequence[int], embedding: int, ctr: float, cvr: float) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(size, embedding) for size in sizes)
        for table in self.tables:
            nn.init.normal_(table.weight, std=EMBEDDING_SCALE)
        self.ctr = tower(len(sizes) * embedding)
        self.cvr = tower(len(sizes) * embedding)
        for layers, rate in ((self.ctr, ctr), (self.cvr, cvr)):
            *hidden, last = (layer for layer in layers if isinstance(layer, nn.Linear))
            for layer in hidden:
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                nn.init.zeros_(layer.bias)
            nn.init.xavier_normal_(last.weight)
            nn.init.constant_(last.bias, log_odds(rate))

    def forward(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        x = torch.cat([table(ids[:, field]) for field, table in enumerate(self.tables)], dim=1)
        return self.ctr(x).squeeze(1), self.cvr(x).squeeze(1)

    def loss(self, ids: Tensor, click: Tensor, conversion: Tensor) -> Tensor:
        ctr, cvr = self(ids)
        ctr_loss = nn.functional.binary_cross_entropy_with_logits(ctr, click)
        log_joint = logsigmoid(ctr) + logsigmoid(cvr)
        log_not = torch.logaddexp(logsigmoid(-ctr), logsigmoid(ctr) + logsigmoid(-cvr))
        joint = click * conversion
        return ctr_loss - (joint * log_joint + (1 - joint) * log_not).mean()


class PlainTraining:
    """Epochs without end over rows in memory; `steps` yields the rows of each step taken."""

    def __init__(
        self,
        ids: NDArray[np.int64],
        click: NDArray[np.float32],
        conversion: NDArray[np.float32],
        sizes: Sequence[int],
        *,
        embedding: int,
        batch_size: int,
        seed: int,
    ) -> None:
        torch.manual_seed(seed)
        rates = float(click.mean()), float(conversion.sum() / click.sum())
        self.model = PlainESMM(sizes, embedding, *rates)
        self.loop = PlainLoop(self.model, (ids, click, conversion), batch_size)

    def steps(self) -> Iterator[int]:
        return self.loop.steps()


class PlainLoop:
    """The loop of the manual: `model` has a ``loss`` of a batch of `arrays`, or ``losses``, each a step."""

    def __init__(self, model: nn.Module, arrays: Sequence[NDArray[Any]], batch_size: int) -> None:
        self.model = model
        self.optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
        data = TensorDataset(*(torch.from_numpy(array) for array in arrays))
        self.loader = DataLoader(data, batch_size=batch_size, shuffle=True)

    def steps(self) -> Iterator[int]:
        self.model.train()
        while True:
            for batch in self.loader:
                for loss in self.model.losses(*batch) if hasattr(self.model, "losses") else (self.model.loss(*batch),):
                    self.optimizer.zero_grad()
                    loss.backward()
                    self.optimizer.step()
                yield len(batch[0])
