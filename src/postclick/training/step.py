"""One step: forward, loss, and one optimiser move a phase. Nothing is read back from the device but a finite check."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from postclick.models.base import Batch, ConversionModel, Losses, Phase
from postclick.training.balancing import balancers
from postclick.training.config import TrainingConfig
from postclick.training.optimisers import phase_optimisers

__all__ = ["TrainingStep"]

_NEVER = 2**62


class TrainingStep:
    """Takes a batch, moves the parameters, and adds terms and diagnostics to running sums.

    Each phase has its own forward pass, so a second phase sees what the first one moved (alternating updates); a
    system of one phase, the usual case, has one forward pass. A loss or gradient that is not finite moves nothing. The
    terms of a phase are summed, or joined by what ``config.balance`` names where there is more than one.

    Parameters
    ----------
    model
        A system, on its device; its phases are read once.
    config
        Settings.
    seed
        Of the training, for what a balancer draws.

    Raises
    ------
    ConfigError
        ``config.combination``: the balance needs shared dense parameters, and the system has none.
    """

    def __init__(self, model: ConversionModel, config: TrainingConfig, seed: int = 0) -> None:
        self.model = model
        self.optimisers = phase_optimisers(model, config)
        self.balancers = balancers(model, self.optimisers, config, seed)
        self.sums: dict[str, Tensor] = {}
        self.steps_summed = 0
        self._device = next(model.parameters()).device
        self._first_bad = torch.full((), _NEVER, dtype=torch.int64, device=self._device)

    def __call__(self, batch: Batch, step: int) -> bool:
        """Train on one batch; returns False, with the parameters as they were, where something was not finite.

        On an accelerator the answer is kept there and read by `first_bad`, since reading it would make each step wait.
        """
        for index, optimiser in enumerate(self.optimisers):
            losses = self.model.loss(self.model(batch), batch)
            chosen = _terms(losses, optimiser.phase)
            balancer = self.balancers[index] if len(chosen) > 1 else None
            total = torch.stack([*chosen.values()]).sum() if len(chosen) > 1 else next(iter(chosen.values()))
            norm = optimiser.backward(total) if balancer is None else balancer.backward(chosen, optimiser, step)
            if not self._finite(total.detach() + norm, step):
                return False
            optimiser.step()
            if balancer is not None:
                balancer.step()
                self._add("diagnostic", {self._label(index, key): each for key, each in balancer.diagnostics().items()})
            self._add("term", losses.terms if index == 0 and not optimiser.phase.terms else chosen)
            if index == 0:
                self._add("diagnostic", losses.diagnostics)
                if batch.delays is not None:
                    self._add("diagnostic", {"immature": batch.delays.immature.mean()})
        self.steps_summed += 1
        return True

    def _label(self, phase: int, name: str) -> str:
        """Return the name of a balancer's diagnostic; two phases may have a term in common."""
        return f"balance/{name}" if len(self.optimisers) == 1 else f"balance/{self.optimisers[phase].phase.name}/{name}"

    def _finite(self, value: Tensor, step: int) -> bool:
        if self._device.type == "cpu":
            if math.isfinite(value.item()):
                return True
            self._first_bad.fill_(min(int(self._first_bad), step))
            return False
        bad = torch.where(torch.isfinite(value), _NEVER, step)
        torch.minimum(self._first_bad, bad, out=self._first_bad)
        return True

    @property
    def first_bad(self) -> int | None:
        """The first step whose loss or gradient was not finite."""
        step = int(self._first_bad)
        return None if step == _NEVER else step

    def _add(self, kind: str, values: Mapping[str, Tensor]) -> None:
        for name, value in values.items():
            key = f"{kind}.{name}"
            if key not in self.sums:
                self.sums[key] = torch.zeros((), dtype=torch.float64, device=self._device)
            self.sums[key].add_(value.detach())

    def means(self) -> tuple[dict[str, float], dict[str, float | None]]:
        """Return the means of terms and diagnostics since the last `reset`; None for a diagnostic without a value."""
        found = {key: float(value) / max(self.steps_summed, 1) for key, value in self.sums.items()}
        terms = {key.removeprefix("term."): value for key, value in found.items() if key.startswith("term.")}
        diagnostics = {
            key.removeprefix("diagnostic."): value if math.isfinite(value) else None
            for key, value in found.items()
            if key.startswith("diagnostic.")
        }
        return terms, diagnostics

    def reset(self) -> None:
        """Start the running sums anew."""
        self.sums = {}
        self.steps_summed = 0


def _terms(losses: Losses, phase: Phase) -> Mapping[str, Tensor]:
    """Return the terms that `phase` minimises; all where it names none."""
    return {name: losses.terms[name] for name in phase.terms} if phase.terms else losses.terms
