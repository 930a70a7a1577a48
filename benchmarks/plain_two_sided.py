"""The systems that learn from clicked and unclicked rows, the ordinary PyTorch way; part of `plain_systems.py`."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy, binary_cross_entropy_with_logits

from plain_parts import embed, tables
from plain_torch import HIDDEN, tower

FLOOR = 0.01
RELATIVE = 0.1
"""Floors are this share of the CTR and of 1 - CTR."""


def errors(logits: Tensor, labels: Tensor) -> Tensor:
    return binary_cross_entropy_with_logits(logits, labels, reduction="none")


class PlainTwoSided(nn.Module, ABC):
    """A tower a task on one table; both sides of the click are weighted by the inverse of their chance."""

    floor, normalised = FLOOR, True
    tasks: tuple[str, ...] = ("ctr", "cvr")

    def __init__(self, sizes: Sequence[int], embedding: int) -> None:
        super().__init__()
        self.tables = tables(sizes, embedding)
        self.towers = nn.ModuleDict({task: tower(len(sizes) * embedding) for task in self.tasks})

    def logits(self, v: Tensor) -> list[Tensor]:
        return [self.towers[task](v).squeeze(1) for task in self.tasks]

    def weights(self, ctr: Tensor, click: Tensor) -> tuple[Tensor, Tensor]:
        chance = torch.sigmoid(ctr).detach()
        clicked = click / chance.clamp(min=self.floor)
        unclicked = (1 - click) / (1 - chance).clamp(min=RELATIVE - self.floor)
        if self.normalised:
            clicked, unclicked = (w * len(w) / w.sum().clamp(min=1e-12) for w in (clicked, unclicked))
        return clicked, unclicked

    def loss(self, ids: Tensor, click: Tensor, conversion: Tensor, action: Tensor) -> Tensor:  # noqa: ARG002
        logits = self.logits(embed(self.tables, ids))
        own = binary_cross_entropy_with_logits(logits[0], click)
        return own + self.rest(logits, click, conversion, own.detach())

    @abstractmethod
    def rest(self, logits: list[Tensor], click: Tensor, conversion: Tensor, own: Tensor) -> Tensor:
        """Return the loss without the click's own, whose size is `own`."""


def joint(ctr: Tensor, other: Tensor, label: Tensor) -> Tensor:
    return binary_cross_entropy(torch.sigmoid(ctr) * torch.sigmoid(other), label)


class PlainDCMT(PlainTwoSided):
    tasks = ("ctr", "cvr", "counterfactual")

    def rest(self, logits: list[Tensor], click: Tensor, conversion: Tensor, own: Tensor) -> Tensor:  # noqa: ARG002
        ctr, cvr, counterfactual = logits
        clicked, unclicked = self.weights(ctr, click)
        both = clicked * errors(cvr, conversion) + unclicked * errors(counterfactual, torch.ones_like(click))
        apart = (1 - torch.sigmoid(cvr) - torch.sigmoid(counterfactual)).abs()
        return joint(ctr, cvr, click * conversion) + both.mean() + 1e-3 * apart.mean()


class PlainNISE(PlainTwoSided):
    def rest(self, logits: list[Tensor], click: Tensor, conversion: Tensor, own: Tensor) -> Tensor:
        chance = torch.sigmoid(logits[1])
        entropy = binary_cross_entropy(chance, chance, reduction="none")
        loss = torch.where(click == 1, errors(logits[1], conversion), entropy).mean()
        return (own / loss.detach()).clamp(max=50.0) * loss


class PlainChorus(PlainTwoSided):
    tasks, normalised = ("ctr", "cvr", "uncvr"), False

    def rest(self, logits: list[Tensor], click: Tensor, conversion: Tensor, own: Tensor) -> Tensor:  # noqa: ARG002
        ctr, cvr, uncvr = logits
        clicked, unclicked = self.weights(ctr, click)
        aligned = errors(cvr, torch.sigmoid(-uncvr).detach()) + errors(uncvr, torch.sigmoid(-cvr).detach())
        labelled = errors(cvr, conversion) + errors(uncvr, 1 - conversion)
        both = joint(ctr, cvr, click * conversion) + joint(ctr, uncvr, click * (1 - conversion))
        return both + (clicked * labelled + (clicked + unclicked) * aligned).mean()


class PlainAttention(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))

    def forward(self, given: Tensor, own: Tensor) -> Tensor:
        inputs = torch.stack([given, own], dim=1)
        scores = (self.query(inputs) * self.key(inputs)).sum(-1) / math.sqrt(inputs.shape[-1])
        return (torch.softmax(scores, dim=1).unsqueeze(-1) * self.value(inputs)).sum(1)


class PlainDDPO(PlainTwoSided):
    tasks = ("ctr", "cvr", "conversion")
    others = ("ctr", "conversion")

    def __init__(self, sizes: Sequence[int], embedding: int) -> None:
        super().__init__(sizes, embedding)
        width = HIDDEN[-1]
        self.information = nn.ModuleDict({t: nn.Sequential(nn.Linear(width, width), nn.ReLU()) for t in self.others})
        self.attention = nn.ModuleDict({task: PlainAttention(width) for task in self.others})
        self.fuse = nn.Sequential(nn.Linear(2 * width, width), nn.ReLU())

    def logits(self, v: Tensor) -> list[Tensor]:
        hidden = {task: self.towers[task][:-1](v) for task in self.tasks}
        taken = [self.attention[task](self.information[task](hidden[task]), hidden["cvr"]) for task in self.others]
        hidden["cvr"] = self.fuse(torch.cat(taken, dim=1))
        return [self.towers[task][-1](hidden[task]).squeeze(1) for task in self.tasks]

    def rest(self, logits: list[Tensor], click: Tensor, conversion: Tensor, own: Tensor) -> Tensor:  # noqa: ARG002
        ctr, cvr, propensity = logits
        clicked, unclicked = self.weights(ctr, click)
        bought = click * conversion
        label = torch.where(bought == 1, bought, torch.sigmoid(propensity).detach())
        on_clicks = (click * errors(propensity, conversion)).mean()
        two_sided = ((clicked + unclicked) * errors(cvr, label)).mean()
        return on_clicks + 0.1 * two_sided + joint(ctr, cvr, bought)
