"""Trunks: what several tasks share between the features and their own towers.

A trunk turns features into one input a task. `TaskNetwork` puts a trunk, a tower a task and a head a task together:
features to one logit a task. Systems whose paper leaves the trunk open take its name as an argument.

Shapes: B rows, D input width, K experts, T tasks, H width of a task's input.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor, nn

from postclick.nn.embedding import FeatureEncoder
from postclick.nn.experts import ExpertBank, Experts, Gate, banks_on_one_input, mix
from postclick.nn.factorisation import DotHead, PairBiases, PairEncoder
from postclick.nn.features import Features
from postclick.nn.interaction import Interaction
from postclick.nn.tower import Head, Perceptron, Tower
from postclick.schema import Schema

__all__ = ["MMoETrunk", "PLETrunk", "SharedTrunk", "TaskLogits", "TaskNetwork", "Trunk", "TrunkName"]

TrunkName = Literal["shared", "mmoe", "ple", "mf", "ncf"]
Exchange = Callable[[dict[str, Tensor]], dict[str, Tensor]]


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

    def own_parameters(self, task: int) -> tuple[nn.Parameter, ...]:  # noqa: ARG002
        """Return the parameters that serve this task alone; none by default."""
        return ()


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

    def own_parameters(self, task: int) -> tuple[nn.Parameter, ...]:
        """Return the task's gate, where it has one of its own."""
        return tuple(self.gates[task].parameters()) if len(self.gates) == self.tasks > 1 else ()


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
        *own, shared = self._outputs(inputs, common)  # T x [B, specific, H], [B, shared, H]
        weights = [gate(task) for gate, task in zip(self.gates, inputs, strict=True)]
        mixed = [mix(weight, torch.cat([bank, shared], dim=1)) for weight, bank in zip(weights, own, strict=True)]
        if self.shared_gate is not None:
            common = mix(self.shared_gate(common), torch.cat([*own, shared], dim=1))
        return mixed, common, weights

    def _outputs(self, inputs: list[Tensor], common: Tensor) -> list[Tensor]:
        """Return what the experts of each bank give: each task's own, then the shared ones."""
        banks = [cast("ExpertBank", bank) for bank in (*self.own, self.shared)]
        if all(x is common for x in inputs):  # the first level: all experts read the features
            return list(torch.split(banks_on_one_input(banks, common), [len(bank) for bank in banks], dim=1))
        return [bank(x) for bank, x in zip(banks, [*inputs, common], strict=True)]


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

    def own_parameters(self, task: int) -> tuple[nn.Parameter, ...]:
        """Return the task's experts of the last level and its gates of the last two.

        What it has below also reaches the other tasks, through a shared gate.
        """
        levels = [cast("PLELevel", level) for level in self.levels]
        own = [levels[-1].own[task], *(level.gates[task] for level in levels[-2:])]
        return tuple(parameter for module in own for parameter in module.parameters())


_NUMBERS = frozenset({"count", "specific", "shared", "levels"})
_READ = {"omoe": {"count"}, "mmoe": {"count"}, "ple": {"specific", "shared", "levels"}}


def build_trunk(name: TrunkName | Literal["omoe"], width: int, tasks: int, experts: Experts) -> Trunk:
    """Return a trunk by name.

    Raises
    ------
    ValueError
        Where a number of experts is set that this trunk does not read.
    """
    idle = [field for field in _NUMBERS - _READ.get(name, set()) if getattr(experts, field) != getattr(Experts, field)]
    if idle:
        raise ValueError(f"trunk {name!r} does not read {', '.join(f'experts.{field}' for field in sorted(idle))}")
    if name in ("mmoe", "omoe"):
        return MMoETrunk(width, tasks, experts, one_gate=name == "omoe")
    if name == "ple":
        return PLETrunk(width, tasks, experts)
    return SharedTrunk(width, tasks)


def _check(trunk: str, *, own_tables: bool, tower: Tower, interaction: Interaction | None, biases: bool) -> None:
    """Refuse what a trunk cannot do or does not read; see `TaskNetwork`."""
    if own_tables and trunk in ("mmoe", "omoe", "ple"):
        raise ValueError(f"experts read one table: a table a task goes with trunk 'shared', not {trunk!r}")
    if trunk != "mf" and not biases:
        raise ValueError(f"biases of users and items are those of trunk 'mf', not {trunk!r}")
    if trunk == "mf" and tower != Tower():
        raise ValueError("trunk 'mf' has no tower: the logit is a dot product; trunk 'ncf' has one")
    if trunk in ("mf", "ncf") and interaction is not None:
        raise ValueError(f"trunk {trunk!r} reads a user and an item alone, so no interaction of features")


class TaskNetwork(nn.Module):
    """Features to one logit a task: encoder, trunk, a tower a task, a head a task.

    Parameters
    ----------
    schema, table_rows
        What is encoded.
    rates
        Task name -> base rate of its label, where its head's bias starts; the order of tasks.
    trunk
        What the tasks share; ``omoe`` is ``mmoe`` with one gate.
        ``mf`` and ``ncf`` read the user and the item alone (`nn.factorisation`).
    experts
        Experts of ``mmoe`` and ``ple``.
    tower
        Layers of each task's tower; ``mf`` has none.
    embedding_size
        E.
    interaction
        Products of features that join the input.
    shared_embedding
        False gives every task a table of its own.
    biases
        Of ``mf``: user, item and global ones, a task each; False has none at all.

    Raises
    ------
    ValueError
        On tables of their own under experts, which read one input, and on what a trunk does not read.
    """

    def __init__(
        self,
        schema: Schema,
        table_rows: int,
        rates: Mapping[str, float],
        *,
        trunk: TrunkName | Literal["omoe"] = "shared",
        experts: Experts = Experts(),  # noqa: B008 (frozen)
        tower: Tower = Tower(),  # noqa: B008 (frozen)
        embedding_size: int = 8,
        interaction: Interaction | None = None,
        shared_embedding: bool = True,
        biases: bool = True,
    ) -> None:
        super().__init__()
        _check(trunk, own_tables=not shared_embedding, tower=tower, interaction=interaction, biases=biases)

        def encoder() -> FeatureEncoder | PairEncoder:
            if trunk in ("mf", "ncf"):
                return PairEncoder(schema, table_rows, embedding_size, trunk)
            return FeatureEncoder(schema, table_rows, embedding_size, interaction=interaction)

        self.tasks = tuple(rates)
        self.encoder = encoder()
        self.own_encoders = nn.ModuleList(encoder() for _ in range(0 if shared_embedding else len(rates) - 1))
        self.trunk = build_trunk(trunk, self.encoder.width, len(rates), experts)
        self.biases = PairBiases(schema, table_rows, len(rates)) if trunk == "mf" and biases else None
        self.towers, self.heads = nn.ModuleDict(), nn.ModuleDict()
        for task, rate in rates.items():
            self.towers[task] = hidden = Perceptron(self.trunk.width, Tower(()) if trunk == "mf" else tower)
            if trunk == "mf":
                diagonal = shared_embedding and len(rates) > 1
                self.heads[task] = DotHead(hidden.width, rate if biases else None, diagonal=diagonal)
            else:
                self.heads[task] = Head(hidden.width, rate)

    def forward(self, features: Features, exchange: Exchange | None = None) -> TaskLogits:
        """Return the logits, and the gates where the trunk has them.

        Parameters
        ----------
        features
            A batch.
        exchange
            What passes between the towers below their heads, if anything: their outputs by task, [B, H] each, to such.
        """
        inputs, gates = self.trunk(self.encoder(features))
        if len(self.own_encoders):
            inputs = [inputs[0], *(encoder(features) for encoder in self.own_encoders)]
        hidden = {task: self.towers[task](x) for task, x in zip(self.tasks, inputs, strict=True)}
        if exchange is not None:
            hidden = exchange(hidden)
        logits = {task: self.heads[task](hidden[task]) for task in self.tasks}
        if self.biases is not None:
            added = zip(self.tasks, self.biases(features), strict=True)
            logits = {task: logits[task] + bias for task, bias in added}
        return TaskLogits(logits, dict(zip(self.tasks, gates, strict=False)))

    def own_parameters(self, task: str) -> tuple[nn.Parameter, ...]:
        """Return the parameters that serve one task alone: tower, head, table of its own, what the trunk has for it.

        The biases of ``mf`` are one table with a column a task: it counts as shared.
        """
        index = self.tasks.index(task)
        own: list[nn.Module] = [self.towers[task], self.heads[task]]
        if len(self.own_encoders):
            own.append(self.own_encoders[index - 1] if index else self.encoder)
        found = [parameter for module in own for parameter in module.parameters()]
        return (*found, *self.trunk.own_parameters(index))

    def shared_parameters(self) -> tuple[nn.Parameter, ...]:
        """Return the dense parameters before the towers, which the tasks share; the table is not among them."""
        encoder = () if len(self.own_encoders) else self.encoder.dense_parameters()
        return (*encoder, *self.trunk.parameters())
