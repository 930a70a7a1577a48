"""The systems the ordinary PyTorch way, as a user writes them from the papers: what `train_throughput.py` times.

One ``nn.Embedding`` a field, a module a network, probabilities multiplied as the formulas stand and
``binary_cross_entropy`` on them. They are the systems of `postclick.models` with towers 128-64-32:
`tests/models/test_plain_systems.py` copies weights and compares losses. Starting values are PyTorch's own
but for the tables, whose N(0, 1) would saturate the heads.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy, binary_cross_entropy_with_logits

from plain_causal import PlainDRJL, PlainESCM2DR, PlainESCM2IPS, PlainMRDR, PlainMultiDR, PlainWeighted
from plain_parts import COUNT, EXPERT, LEVELS, SHARED, SPECIFIC, embed, expert, gate, mixture, probability, tables
from plain_torch import PlainESMM, tower
from plain_two_sided import PlainChorus, PlainDCMT, PlainDDPO, PlainNISE


class PlainMLP(nn.Module):
    """Two networks with tables of their own."""

    def __init__(self, sizes: Sequence[int], embedding: int) -> None:
        super().__init__()
        self.tables = nn.ModuleDict({task: tables(sizes, embedding) for task in ("ctr", "conversion")})
        self.towers = nn.ModuleDict({task: tower(len(sizes) * embedding) for task in ("ctr", "conversion")})

    def loss(self, ids: Tensor, click: Tensor, conversion: Tensor, action: Tensor) -> Tensor:  # noqa: ARG002
        ctr, cvr = (self.towers[task](embed(self.tables[task], ids)).squeeze(1) for task in ("ctr", "conversion"))
        per_row = binary_cross_entropy_with_logits(cvr, conversion, reduction="none")
        return binary_cross_entropy_with_logits(ctr, click) + (click * per_row).mean()


class PlainTwoTowers(PlainESMM):
    """ESMM as it is timed by default; the action is not read."""

    def __init__(self, sizes: Sequence[int], embedding: int) -> None:
        super().__init__(sizes, embedding, 0.1, 0.1)

    def loss(self, ids: Tensor, click: Tensor, conversion: Tensor, action: Tensor) -> Tensor:  # noqa: ARG002
        return super().loss(ids, click, conversion)


class PlainTwoTasks(nn.Module, ABC):
    """Click, and click and conversion, each a tower on what a trunk gives it."""

    def __init__(self, sizes: Sequence[int], embedding: int, width: int) -> None:
        super().__init__()
        self.tables = tables(sizes, embedding)
        self.towers = nn.ModuleDict({task: tower(width) for task in ("ctr", "ctcvr")})

    @abstractmethod
    def inputs(self, v: Tensor) -> Sequence[Tensor]:
        """Return what each task reads."""

    def loss(self, ids: Tensor, click: Tensor, conversion: Tensor, action: Tensor) -> Tensor:  # noqa: ARG002
        clicked, both = self.inputs(embed(self.tables, ids))
        ctr, ctcvr = self.towers["ctr"](clicked).squeeze(1), self.towers["ctcvr"](both).squeeze(1)
        joint = binary_cross_entropy_with_logits(ctcvr, click * conversion)
        return binary_cross_entropy_with_logits(ctr, click) + joint


class PlainMMoE(PlainTwoTasks):
    gates = 2

    def __init__(self, sizes: Sequence[int], embedding: int) -> None:
        super().__init__(sizes, embedding, EXPERT[-1])
        width = len(sizes) * embedding
        self.experts = nn.ModuleList(expert(width) for _ in range(COUNT))
        self.task_gates = nn.ModuleList(gate(width, COUNT) for _ in range(self.gates))

    def inputs(self, v: Tensor) -> Sequence[Tensor]:
        outputs = torch.stack([each(v) for each in self.experts], dim=1)
        mixed = [mixture(each(v), outputs) for each in self.task_gates]
        return mixed * (2 // self.gates)


class PlainOMoE(PlainMMoE):
    gates = 1


class PlainLevel(nn.Module):
    """One extraction level of PLE for two tasks."""

    def __init__(self, width: int, *, last: bool) -> None:
        super().__init__()
        self.own = nn.ModuleList(nn.ModuleList(expert(width) for _ in range(SPECIFIC)) for _ in range(2))
        self.shared = nn.ModuleList(expert(width) for _ in range(SHARED))
        self.gates = nn.ModuleList(gate(width, SPECIFIC + SHARED) for _ in range(2))
        self.shared_gate = None if last else gate(width, 2 * SPECIFIC + SHARED)

    def forward(self, inputs: Sequence[Tensor], common: Tensor) -> tuple[list[Tensor], Tensor]:
        own = [[each(x) for each in experts] for experts, x in zip(self.own, inputs, strict=True)]
        shared = [each(common) for each in self.shared]
        mixed = [
            mixture(weigh(x), torch.stack([*outputs, *shared], dim=1))
            for weigh, x, outputs in zip(self.gates, inputs, own, strict=True)
        ]
        if self.shared_gate is not None:
            common = mixture(self.shared_gate(common), torch.stack([*own[0], *own[1], *shared], dim=1))
        return mixed, common


class PlainPLE(PlainTwoTasks):
    def __init__(self, sizes: Sequence[int], embedding: int) -> None:
        super().__init__(sizes, embedding, EXPERT[-1])
        widths = [len(sizes) * embedding, *[EXPERT[-1]] * (LEVELS - 1)]
        self.levels = nn.ModuleList(PlainLevel(width, last=level == LEVELS - 1) for level, width in enumerate(widths))

    def inputs(self, v: Tensor) -> Sequence[Tensor]:
        mixed, common = [v, v], v
        for level in self.levels:
            mixed, common = level(mixed, common)
        return mixed


class PlainAITM(nn.Module):
    def __init__(self, sizes: Sequence[int], embedding: int) -> None:
        super().__init__()
        self.tables = tables(sizes, embedding)
        self.click, self.both = (tower(len(sizes) * embedding)[:-1] for _ in range(2))
        self.information = nn.Sequential(nn.Linear(32, 32), nn.ReLU(), nn.Dropout(0.3))
        self.value, self.query, self.key = (nn.Linear(32, 32, bias=False) for _ in range(3))
        self.click_head, self.both_head = nn.Linear(32, 1), nn.Linear(32, 1)

    def loss(self, ids: Tensor, click: Tensor, conversion: Tensor, action: Tensor) -> Tensor:  # noqa: ARG002
        v = embed(self.tables, ids)
        clicked = self.click(v)
        sources = torch.stack([self.information(clicked), self.both(v)], dim=1)
        scores = (self.query(sources) * self.key(sources)).sum(2, keepdim=True) / 32**0.5
        transferred = (torch.softmax(scores, dim=1) * self.value(sources)).sum(1)
        ctr, ctcvr = probability(self.click_head, clicked), probability(self.both_head, transferred)
        terms = binary_cross_entropy(ctr, click) + binary_cross_entropy(ctcvr, click * conversion)
        return terms + 0.6 * torch.clamp(ctcvr - ctr, min=0).mean()


class PlainCSTWA(nn.Module):
    """Two tables, a gate, weights by quantiles of the last predictions; nothing is migrated."""

    WINDOW, QUANTILES, EPSILON, CAP = 10_000, (0.10, 0.99), 3, 4

    def __init__(self, sizes: Sequence[int], embedding: int) -> None:
        super().__init__()
        width = len(sizes) * embedding
        self.tables = nn.ModuleDict({task: tables(sizes, embedding) for task in ("ctr", "ctcvr")})
        self.click, self.both = (tower(width)[:-1] for _ in range(2))
        self.gate_layer = nn.Linear(32, width)
        self.click_head, self.both_head = nn.Linear(32, 1), nn.Linear(32, 1)
        self.last = torch.zeros(0)

    def weights(self, p: Tensor, bought: Tensor) -> Tensor:
        if len(self.last) < self.WINDOW:
            return torch.ones_like(p)
        low, high = torch.quantile(self.last, torch.tensor(self.QUANTILES))
        above = torch.where((p > high) & (bought == 0), (p / high) ** self.EPSILON, 1.0)
        below = torch.where((p < low) & (bought == 1), (low / p) ** self.EPSILON, 1.0)
        return (above * below).clamp(max=self.CAP)

    def loss(self, ids: Tensor, click: Tensor, conversion: Tensor, action: Tensor) -> Tensor:  # noqa: ARG002
        clicked = self.click(embed(self.tables["ctr"], ids))
        gate = 2 * torch.sigmoid(self.gate_layer(clicked))
        ctr = probability(self.click_head, clicked)
        ctcvr = probability(self.both_head, self.both(embed(self.tables["ctcvr"], ids) * gate))
        bought, p = click * conversion, ctr.detach()
        terms = binary_cross_entropy(ctr, click)
        terms = terms + binary_cross_entropy(ctcvr, bought, weight=self.weights(p, bought))
        if self.training:
            self.last = torch.cat([self.last, p])[-self.WINDOW :]
        return terms + 0.6 * torch.clamp(ctcvr - ctr, min=0).mean()


class PlainESM2(nn.Module):
    tasks = ("ctr", "action", "purchase_action", "purchase_other")

    def __init__(self, sizes: Sequence[int], embedding: int) -> None:
        super().__init__()
        self.tables = tables(sizes, embedding)
        self.towers = nn.ModuleDict({task: tower(len(sizes) * embedding) for task in self.tasks})

    def loss(self, ids: Tensor, click: Tensor, conversion: Tensor, action: Tensor) -> Tensor:
        v = embed(self.tables, ids)
        y1, y2, y3, y4 = (probability(self.towers[task], v) for task in self.tasks)
        joint = y1 * (y2 * y3 + (1 - y2) * y4)
        return (
            binary_cross_entropy(y1, click)
            + binary_cross_entropy(y1 * y2, click * action)
            + binary_cross_entropy(joint, click * conversion)
        )


class PlainESMC(nn.Module):
    """`twins` apart or tied; `chained`: products with the click, or three probabilities of exposures (ESMG)."""

    def __init__(self, sizes: Sequence[int], embedding: int, *, twins: bool = True, chained: bool = True) -> None:
        super().__init__()
        self.chained = chained
        self.tables = tables(sizes, embedding)
        self.click, self.action = (tower(len(sizes) * embedding)[:-1] for _ in range(2))
        self.purchase = deepcopy(self.action) if twins else None
        self.heads = nn.ModuleDict({task: nn.Linear(32, 1) for task in ("click", "action", "purchase")})

    def loss(self, ids: Tensor, click: Tensor, conversion: Tensor, action: Tensor) -> Tensor:
        v = embed(self.tables, ids)
        acted = self.action(v)
        bought = acted if self.purchase is None else self.purchase(v)
        ctr = probability(self.heads["click"], self.click(v))
        ctar, ctcvr = probability(self.heads["action"], acted), probability(self.heads["purchase"], bought)
        if self.chained:
            ctar, ctcvr = ctr * ctar, ctr * ctcvr
        terms = (
            binary_cross_entropy(ctr, click)
            + binary_cross_entropy(ctar, click * action)
            + binary_cross_entropy(ctcvr, click * conversion)
        )
        if self.purchase is None:
            return terms
        pairs = zip(self.action.parameters(), self.purchase.parameters(), strict=True)
        return terms + 1e-3 * sum((one - other).square().sum() for one, other in pairs)


class PlainESMS(PlainESMC):
    def __init__(self, sizes: Sequence[int], embedding: int) -> None:
        super().__init__(sizes, embedding, twins=False)


class PlainESMG(PlainESMC):
    def __init__(self, sizes: Sequence[int], embedding: int) -> None:
        super().__init__(sizes, embedding, chained=False)


PLAIN: dict[str, Callable[[Sequence[int], int], nn.Module]] = {
    "mlp": PlainMLP,
    "esmm": PlainTwoTowers,
    "omoe": PlainOMoE,
    "mmoe": PlainMMoE,
    "ple": PlainPLE,
    "aitm": PlainAITM,
    "esm2": PlainESM2,
    "esmc": PlainESMC,
    "esms": PlainESMS,
    "esmg": PlainESMG,
    "multi-ipw": PlainWeighted,
    "multi-dr": PlainMultiDR,
    "escm2-ips": PlainESCM2IPS,
    "escm2-dr": PlainESCM2DR,
    "dr-jl": PlainDRJL,
    "mrdr": PlainMRDR,
    "dcmt": PlainDCMT,
    "ddpo": PlainDDPO,
    "nise": PlainNISE,
    "chorus": PlainChorus,
    "cstwa": PlainCSTWA,
}
