"""What the plain forms of systems are made of: tables, experts, gates."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from plain_torch import DROPOUT
from postclick.nn.initialise import EMBEDDING_SCALE

EXPERT = (64, 32, 16)
COUNT, SPECIFIC, SHARED, LEVELS = 4, 1, 2, 2


def tables(sizes: Sequence[int], embedding: int) -> nn.ModuleList:
    made = nn.ModuleList(nn.Embedding(size, embedding) for size in sizes)
    for table in made:
        nn.init.normal_(table.weight, std=EMBEDDING_SCALE)
    return made


def embed(made: nn.ModuleList, ids: Tensor) -> Tensor:
    return torch.cat([table(ids[:, field]) for field, table in enumerate(made)], dim=1)


def expert(width: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for hidden, rate in zip(EXPERT, DROPOUT, strict=True):
        layers += [nn.Linear(width, hidden), nn.ReLU(), nn.Dropout(rate)]
        width = hidden
    return nn.Sequential(*layers)


def gate(width: int, experts: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, experts, bias=False), nn.Softmax(dim=1))


def mixture(weights: Tensor, outputs: Tensor) -> Tensor:
    return (weights.unsqueeze(2) * outputs).sum(1)


def probability(layers: nn.Module, x: Tensor) -> Tensor:
    return torch.sigmoid(layers(x).squeeze(1))
