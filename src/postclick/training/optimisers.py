"""The optimisers of a system: one a phase, dense parameters by Adam, tables by what the configuration names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from postclick.models.base import ConversionModel, Phase
from postclick.training.config import TrainingConfig
from postclick.training.table_optimisers import (
    AdamState,
    ExactAdam,
    LazyAdam,
    LazyRMSprop,
    RowGradient,
    RowwiseAdagrad,
    TableOptimiser,
    row_gradient,
)

__all__ = ["PhaseOptimiser", "phase_optimisers"]


def _table_optimiser(table: Tensor, config: TrainingConfig) -> TableOptimiser:
    if config.optimizer == "lazy_rmsprop":
        return LazyRMSprop(table, config.table_rate)
    if config.optimizer == "lazy_adam":
        return LazyAdam(table, config.table_rate)
    if config.optimizer == "rowwise_adagrad":
        return RowwiseAdagrad(table, config.table_rate)
    return ExactAdam(table, config.table_rate, config.weight_decay)


class PhaseOptimiser:
    """Moves the parameters of one phase; its state is its own, also where two phases share a parameter.

    Parameters
    ----------
    phase
        Name, parameters and terms.
    tables
        The system's embedding tables.
    config
        Settings.
    regularised
        Dense parameters that L2 in the mode ``batch_rows`` falls on, too.
    whole
        Whether the phase moves every parameter of the system (then gradients need no selection).
    """

    def __init__(
        self,
        phase: Phase,
        tables: Iterable[nn.Parameter],
        config: TrainingConfig,
        *,
        regularised: Iterable[nn.Parameter] = (),
        whole: bool = False,
    ) -> None:
        known = {id(table) for table in tables}
        moving = [parameter for parameter in phase.parameters if parameter.requires_grad]
        self.phase = phase
        self.inputs = None if whole else moving
        self.batch_l2 = config.batch_l2
        self.dense = [parameter for parameter in moving if id(parameter) not in known]
        self.tables = [parameter for parameter in moving if id(parameter) in known]
        held = {id(parameter) for parameter in regularised}
        self.regularised = [parameter for parameter in self.dense if id(parameter) in held] if self.batch_l2 else []
        self.adam = AdamState(list(self.dense), config.learning_rate, config.weight_decay)
        self.table_optimisers = [_table_optimiser(table, config) for table in self.tables]
        self._rows: list[RowGradient | None] = []

    def backward(self, total: Tensor) -> Tensor:
        """Compute the gradients of `total` for this phase; returns their norm, which is not finite where one is not."""
        for parameter in (*self.dense, *self.tables):
            parameter.grad = None
        torch.autograd.backward(total, inputs=self.inputs)
        self._rows = [row_gradient(table, self.batch_l2) for table in self.tables]
        gradients = [parameter.grad for parameter in self.dense if parameter.grad is not None]
        gradients += [rows.values for rows in self._rows if rows is not None]
        if not gradients:
            return torch.zeros((), device=total.device)
        # one norm of everything joined: the copy is cheaper than a kernel a tensor
        norm: Tensor = torch.linalg.vector_norm(torch.cat([gradient.reshape(-1) for gradient in gradients]))
        return norm

    @torch.no_grad()
    def step(self) -> None:
        """Move the parameters by the gradients of the last `backward`."""
        for parameter in self.regularised:
            if parameter.grad is not None:
                parameter.grad.add_(parameter, alpha=self.batch_l2)
        self.adam.move([parameter.grad for parameter in self.dense])
        for optimiser, rows in zip(self.table_optimisers, self._rows, strict=True):
            if rows is not None:
                optimiser.step(rows)

    def state(self) -> dict[str, Tensor]:
        """Return the state by name, for a checkpoint."""
        named = {f"dense.{name}": tensor for name, tensor in self.adam.state().items()}
        for index, optimiser in enumerate(self.table_optimisers):
            named |= {f"table{index}.{name}": tensor for name, tensor in optimiser.state().items()}
        return named

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take over a state that `state` returned."""
        self.adam.load(_below(state, "dense."))
        for index, optimiser in enumerate(self.table_optimisers):
            optimiser.load(_below(state, f"table{index}."))


def _below(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


def phase_optimisers(model: ConversionModel, config: TrainingConfig) -> list[PhaseOptimiser]:
    """Return one optimiser a phase of `model`, in the order of its phases."""
    every = {id(parameter) for parameter in model.parameters() if parameter.requires_grad}
    tables, regularised = list(model.tables()), model.regularised_parameters()
    return [
        PhaseOptimiser(
            phase,
            tables,
            config,
            regularised=regularised,
            whole=every <= {id(parameter) for parameter in phase.parameters},
        )
        for phase in model.phases()
    ]
