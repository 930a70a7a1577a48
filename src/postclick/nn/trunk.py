"""Trunks: what several tasks share between the features and their own towers.

A trunk turns features into one input a task. `TaskNetwork` puts a trunk, a tower a task and a head a task together:
features to one logit a task. Systems whose paper leaves the trunk open take its name as an argument.

Shapes: B rows, D input width, K experts, T tasks, H width of a task's input.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from postclick.nn.embedding import FeatureEncoder
from postclick.nn.experts import ExpertBank, Experts, Gate, mix
from postclick.nn.features import Features
from postclick.nn.tower import Head, Perceptron, Tower
from postclick.schema import Schema

__all__ = ["MMoETrunk", "PLETrunk", "SharedTrunk", "TaskLogits", "TaskNetwork", "Trunk", "TrunkName"]

TrunkName = Literal["shared", "mmoe", "ple"]


@dataclass(frozen=True)
class TaskLogits:
    """What a `TaskNetwork` gives.

    Parameters
    ----------
    logits
        [B] a task, by name.
    gates
        Gate distributions of the last level, [B, K] a task, by name; empty without gates.
    """

    logits: Mapping[str, Tensor]
    gates: Mapping[str, Tensor]

    def gate_extras(self) -> dict[str, Tensor]:
        """Return the gates under the names that `Outputs.extras` carries them by, ``gate/TASK``."""
        return {f"gate/{task}": gate for task, gate in self.gates.items()}


class Trunk(nn.Module, ABC):
    """Encoded features v [B, D] to one input a task.

    Attributes
    ----------
    width
        H, the width of each task's input.
    """

    width: int

    @abstractmethod
    def forward(self, v: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Return T inputs [B, H] and T gate distributions [B, K] (or none)."""


class SharedTrunk(Trunk):
    """Every task reads v itself: shared embeddings, separate towers (the shared bottom of ESMM)."""

    def __init__(self, width: int, tasks: int) -> None:
        super().__init__()
        self.width, self.tasks = width, tasks

    def forward(self, v: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Return v for each task."""
        return [v] * self.tasks, []


class MMoETrunk(Trunk):
    """f^k = sum_i g^k_i f_i, g^k = softmax(W_k v): K shared experts, a gate a task (Ma et al. 2018).

    Parameters
    ----------
    width
        D.
    tasks
        T.
    experts
        Count and shape.
    one_gate
        One gate for all tasks: OMoE.
    """

    def __init__(self, width: int, tasks: int, experts: Experts, *, one_gate: bool = False) -> None:
        super().__init__()
        self.tasks = tasks
        self.bank = ExpertBank(width, experts.count, experts.network)
        self.gates = nn.ModuleList(Gate(width, experts.count) for _ in range(1 if one_gate else tasks))
        self.width = self.bank.width

    def forward(self, v: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Return a mixture and a gate a task."""
        outputs = self.bank(v)  # [B, K, H]
        weights = [gate(v) for gate in self.gates]
        inputs = [mix(weight, outputs) for weight in weights]
        repeat = self.tasks // len(weights)
        return inputs * repeat, weights * repeat


class PLELevel(nn.Module):
    """One extraction level (Tang et al. 2020, eqs. 2-6): own and shared experts, a gate a task, a shared gate or none.

    Parameters
    ----------
    width
        Width of each input.
    tasks
        T.
    experts
        Shape.
    last
        The last level has no shared gate.
    """

    def __init__(self, width: int, tasks: int, experts: Experts, *, last: bool) -> None:
        super().__init__()
        network = experts.network
        self.own = nn.ModuleList(ExpertBank(width, experts.specific, network) for _ in range(tasks))
        self.shared = ExpertBank(width, experts.shared, network)
        self.gates = nn.ModuleList(Gate(width, experts.specific + experts.shared) for _ in range(tasks))
        self.shared_gate = None if last else Gate(width, tasks * experts.specific + experts.shared)
        self.width = self.shared.width

    def forward(self, inputs: list[Tensor], common: Tensor) -> tuple[list[Tensor], Tensor, list[Tensor]]:
        """Return T mixtures, the shared mixture (`common` after the last level) and T gates."""
        own = [bank(task) for bank, task in zip(self.own, inputs, strict=True)]  # T x [B, specific, H]
        shared = self.shared(common)  # [B, shared, H]
        weights = [gate(task) for gate, task in zip(self.gates, inputs, strict=True)]
        mixed = [mix(weight, torch.cat([bank, shared], dim=1)) for weight, bank in zip(weights, own, strict=True)]
        if self.shared_gate is not None:
            common = mix(self.shared_gate(common), torch.cat([*own, shared], dim=1))
        return mixed, common, weights


class PLETrunk(Trunk):
    """Progressive layered extraction (Tang et al. 2020, eqs. 5-7); one level is CGC.

    Parameters
    ----------
    width
        D.
    tasks
        T.
    experts
        Numbers, levels and shape.
    """

    def __init__(self, width: int, tasks: int, experts: Experts) -> None:
        super().__init__()
        self.tasks = tasks
        self.levels = nn.ModuleList()
        for level in range(experts.levels):
            self.levels.append(PLELevel(width, tasks, experts, last=level == experts.levels - 1))
            width = experts.hidden[-1]
        self.width = width

    def forward(self, v: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Return the mixtures and gates of the last level."""
        inputs, common, gates = [v] * self.tasks, v, list[Tensor]()
        for level in self.levels:
            inputs, common, gates = level(inputs, common)
        return inputs, gates


def build_trunk(name: TrunkName, width: int, tasks: int, experts: Experts) -> Trunk:
    """Return a trunk by name."""
    if name == "mmoe":
        return MMoETrunk(width, tasks, experts)
    if name == "ple":
        return PLETrunk(width, tasks, experts)
    return SharedTrunk(width, tasks)


class TaskNetwork(nn.Module):
    """Features to one logit a task: encoder, trunk, a tower a task, a head a task.

    Parameters
    ----------
    schema, table_rows
        What is encoded.
    rates
        Task name -> base rate of its label, where its head's bias starts; the order of tasks.
    trunk
        What the tasks share, or a function of D that builds it.
    experts
        Experts of ``mmoe`` and ``ple``.
    tower
        Layers of each task's tower.
    embedding_size
        E.
    """

    def __init__(
        self,
        schema: Schema,
        table_rows: int,
        rates: Mapping[str, float],
        *,
        trunk: TrunkName = "shared",
        experts: Experts = Experts(),  # noqa: B008 (frozen)
        tower: Tower = Tower(),  # noqa: B008 (frozen)
        embedding_size: int = 8,
    ) -> None:
        super().__init__()
        self.tasks = tuple(rates)
        self.encoder = FeatureEncoder(schema, table_rows, embedding_size)
        self.trunk = build_trunk(trunk, self.encoder.width, len(rates), experts)
        self.towers = nn.ModuleDict({task: Perceptron(self.trunk.width, tower) for task in rates})
        self.heads = nn.ModuleDict({task: Head(self._width(task), rate) for task, rate in rates.items()})

    def _width(self, task: str) -> int:
        tower = self.towers[task]
        assert isinstance(tower, Perceptron)
        return tower.width

    def forward(self, features: Features) -> TaskLogits:
        """Return the logits, and the gates where the trunk has them."""
        inputs, gates = self.trunk(self.encoder(features))
        logits = {task: self.heads[task](self.towers[task](x)) for task, x in zip(self.tasks, inputs, strict=True)}
        return TaskLogits(logits, dict(zip(self.tasks, gates, strict=False)))

    def shared_parameters(self) -> tuple[nn.Parameter, ...]:
        """Return the dense parameters of the trunk, which the tasks share; the table is not among them."""
        return tuple(self.trunk.parameters())
