"""How a system uses its experts: the gates of its outputs, summed over rows as they are scored."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from postclick.data.arrays import Exposures
from postclick.data.gates import GateTotals
from postclick.models.base import ConversionModel, Outputs
from postclick.models.scoring import score
from postclick.nn.experts import gates_of

__all__ = ["GateSums", "gate_use_of"]


class GateSums:
    """Sums of the gates that it is shown; hand `add` to `score` as ``observe``. A system without gates costs nothing.

    Attributes
    ----------
    totals
        Task -> sums so far, in the order of the system's tasks; empty without gates.
    """

    def __init__(self) -> None:
        self.totals: dict[str, GateTotals] = {}

    def add(self, outputs: Outputs) -> None:
        """Take in the gates of a batch, ``gate/TASK`` among the extras."""
        for task, gate in gates_of(outputs.extras).items():
            wide = gate.double()
            found = GateTotals(
                len(gate),
                wide.sum(dim=0).cpu().numpy(),
                torch.bincount(gate.argmax(dim=1), minlength=gate.shape[1]).cpu().numpy(),
                float(torch.special.entr(wide).sum()),
            )
            self.totals[task] = self.totals[task] + found if task in self.totals else found


def gate_use_of(
    model: ConversionModel,
    exposures: Exposures | Iterable[Exposures],
    *,
    batch_size: int = 16_384,
    device: torch.device | str | None = None,
) -> dict[str, GateTotals]:
    """Return how the gates of `model` weigh its experts on these rows, by task; empty for a system without gates.

    ``postclick.evaluation.expert_use`` turns the sums into shares and a verdict.

    Parameters
    ----------
    model, exposures, batch_size, device
        As for `score`.
    """
    sums = GateSums()
    score(model, exposures, batch_size=batch_size, device=device, observe=sums.add)
    return sums.totals
