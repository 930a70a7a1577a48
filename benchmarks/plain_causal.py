"""The systems that weigh clicks the ordinary PyTorch way: the second half of `plain_systems.py`.

Where postclick's default is another form than the paper's (a guard on imputed labels), this is the paper's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, softplus

from plain_parts import COUNT, EXPERT, embed, expert, gate, mixture, tables
from plain_torch import tower

FLOOR = 0.01


def errors(logits: Tensor, labels: Tensor) -> Tensor:
    return binary_cross_entropy_with_logits(logits, labels, reduction="none")


class PlainWeighted(nn.Module):
    """Tasks on one table: the click, the conversion with clicks weighted by 1 / CTR, and an imputed error or none."""

    floor, risk, joint = FLOOR, 1.0, 0.0
    tasks: tuple[str, ...] = ("ctr", "cvr")

    def __init__(self, sizes: Sequence[int], embedding: int) -> None:
        super().__init__()
        self.tables = tables(sizes, embedding)
        self.towers = nn.ModuleDict({task: tower(self.width(sizes, embedding)) for task in self.tasks})

    def width(self, sizes: Sequence[int], embedding: int) -> int:
        return len(sizes) * embedding

    def inputs(self, v: Tensor) -> list[Tensor]:
        return [v] * len(self.tasks)

    def loss(self, ids: Tensor, click: Tensor, conversion: Tensor, action: Tensor) -> Tensor:  # noqa: ARG002
        inputs = self.inputs(embed(self.tables, ids))
        ctr, cvr, *imputed = (self.towers[task](x).squeeze(1) for task, x in zip(self.tasks, inputs, strict=True))
        weights = click / torch.sigmoid(ctr).detach().clamp(min=self.floor)
        error = errors(cvr, conversion)
        risk = weights * error
        if imputed:
            guess = softplus(imputed[0])
            held = guess.detach()
            risk = held + weights * (error - held) + weights * (error.detach() - guess).square()
        loss = binary_cross_entropy_with_logits(ctr, click) + self.risk * risk.mean()
        if self.joint:
            joint = torch.sigmoid(ctr) * torch.sigmoid(cvr)
            loss = loss + self.joint * nn.functional.binary_cross_entropy(joint, click * conversion)
        return loss


class PlainMultiDR(PlainWeighted):
    tasks = ("ctr", "cvr", "imputation")


class PlainESCM2IPS(PlainWeighted):
    """On experts, and with the product of CTR and CVR fitted on all exposures."""

    risk, joint = 0.1, 1.0

    def __init__(self, sizes: Sequence[int], embedding: int) -> None:
        super().__init__(sizes, embedding)
        width = len(sizes) * embedding
        self.experts = nn.ModuleList(expert(width) for _ in range(COUNT))
        self.task_gates = nn.ModuleList(gate(width, COUNT) for _ in self.tasks)

    def width(self, sizes: Sequence[int], embedding: int) -> int:  # noqa: ARG002
        return EXPERT[-1]

    def inputs(self, v: Tensor) -> list[Tensor]:
        outputs = torch.stack([each(v) for each in self.experts], dim=1)
        return [mixture(each(v), outputs) for each in self.task_gates]


class PlainESCM2DR(PlainESCM2IPS):
    tasks = ("ctr", "cvr", "imputation")


class PlainDRJL(nn.Module):
    """Three networks that share nothing; each batch is the imputation's step, then that of CTR and CVR."""

    floor = FLOOR
    tasks = ("ctr", "cvr", "imputation")

    def __init__(self, sizes: Sequence[int], embedding: int) -> None:
        super().__init__()
        self.tables = nn.ModuleDict({task: tables(sizes, embedding) for task in self.tasks})
        self.towers = nn.ModuleDict({task: tower(len(sizes) * embedding) for task in self.tasks})

    def logits(self, task: str, ids: Tensor) -> Tensor:
        return self.towers[task](embed(self.tables[task], ids)).squeeze(1)

    def fit(self, weights: Tensor) -> Tensor:
        return weights

    def losses(self, ids: Tensor, click: Tensor, conversion: Tensor, action: Tensor) -> Iterator[Tensor]:  # noqa: ARG002
        with torch.no_grad():
            weights = click / torch.sigmoid(self.logits("ctr", ids)).clamp(min=self.floor)
            cvr = self.logits("cvr", ids)
        label = torch.sigmoid(self.logits("imputation", ids))
        yield (self.fit(weights) * (errors(cvr, conversion) - errors(cvr, label)).square()).mean()
        with torch.no_grad():
            label = torch.sigmoid(self.logits("imputation", ids))
        ctr, cvr = self.logits("ctr", ids), self.logits("cvr", ids)
        weights = click / torch.sigmoid(ctr).detach().clamp(min=self.floor)
        imputed = errors(cvr, label)
        risk = imputed + weights * (errors(cvr, conversion) - imputed)
        yield binary_cross_entropy_with_logits(ctr, click) + risk.mean()


class PlainMRDR(PlainDRJL):
    def fit(self, weights: Tensor) -> Tensor:
        return weights * torch.relu(weights - 1)
