"""OMoE: experts that all tasks share, mixed by one gate for all tasks."""

from __future__ import annotations

from typing import Annotated

from torch import nn

from postclick.binding import Argument
from postclick.data.log import LogSpec
from postclick.models.arguments import Interactions
from postclick.models.base import Batch, Citation, ConversionModel, HeadKind, Losses, Outputs
from postclick.models.task_heads import (
    SecondTask,
    pair_heads,
    pair_losses,
    pair_observed,
    pair_outputs,
    pair_rates,
)
from postclick.nn.experts import Experts
from postclick.nn.tower import Tower
from postclick.nn.trunk import TaskNetwork

__all__ = ["OMoE"]


class OMoE(ConversionModel):
    r"""One-gate Mixture-of-Experts (OMoE), the baseline of MMoE.

    K experts on one embedding and a single gate: every task reads the same mixture.

        f = sum_i g_i f_i(v)      g = softmax(W v), W in R^{K x D}, no bias      y_k = sigmoid(tower_k(f))

        L = 1/|D| sum_D l(o, p)  +  one of
            conversion="ctcvr":  1/|D| sum_D l(o r, s)           s is P(click and conversion | x), cvr = s / p
            conversion="cvr":    1/|O| sum_O l(r, q)             q is P(conversion | click, x), ctcvr = p q

    l is the cross-entropy, v the embedding, f_i the experts, D the exposures and O the clicks of the batch; sample
    weights w turn the means into sum w l / sum w. Nothing is detached. It is `mmoe` with its gates tied.

    What it estimates
        ``ctcvr`` (the form of the tables of AITM and CSTWA) is consistent for CTCVR on all exposures in a class that
        holds the true surface; its `cvr` is a quotient, clipped below 1, flagged ``derived`` and never called best.
        ``cvr`` estimates `cvr_click` on clicked rows and extrapolates to the others (sample selection bias), as `mlp`
        does, but its experts and embeddings learn from every exposure through the click.
        With towers of one layer the tasks share all but the last weights, so click and CTCVR must be read off the same
        numbers: a task that needs others pays for the one with more labels.

    Departures
        The paper's tasks are not click and conversion; the two readings above are those of the papers that quote OMoE
        here. Experts 64-32-16, two a task, and a tower of one layer (the logit) are those of AITM's tables; embedding
        size 8 for their 5. Both losses weigh 1.

    Parameters
    ----------
    spec
        What is known of the log.
    conversion
        What the second task is.
    embedding_size
        E, the width of a table row.
    experts
        Number (``count``) and shape of the experts.
    tower
        Hidden layers of each task's tower, below its logit.
    interaction
        Products of features that experts and gates read beside the features; off in the paper.

    References
    ----------
    Ma et al., KDD 2018; sizes: Xi et al., KDD 2021 (Table 4).
    """

    citation = Citation(
        title="Modeling Task Relationships in Multi-task Learning with Multi-gate Mixture-of-Experts",
        authors="Jiaqi Ma, Zhe Zhao, Xinyang Yi, Jilin Chen, Lichan Hong, Ed H. Chi",
        venue="KDD",
        year=2018,
        link="https://doi.org/10.1145/3219819.3220007",
    )

    def __init__(
        self,
        spec: LogSpec,
        *,
        conversion: Annotated[
            SecondTask, Argument("the second task: CTCVR on all exposures, or CVR on clicks")
        ] = "ctcvr",
        embedding_size: Annotated[int, Argument("width of an embedding", paper=5, low=4, high=64)] = 8,
        experts: Annotated[Experts, Argument("number and shape of the experts")] = Experts(),  # noqa: B008 (frozen)
        tower: Annotated[Tower, Argument("hidden layers of each task's tower")] = Tower((), (0.3,)),  # noqa: B008 (frozen)
        interaction: Interactions = None,
    ) -> None:
        super().__init__(spec)
        self.conversion = conversion
        self.network = TaskNetwork(
            spec.schema,
            spec.table_rows,
            pair_rates(spec, conversion),
            trunk="omoe",
            experts=experts,
            tower=tower,
            embedding_size=embedding_size,
            interaction=interaction,
        )

    @property
    def heads(self) -> dict[str, HeadKind]:
        """The cvr is derived where the second task is CTCVR."""
        return pair_heads(self.conversion)

    @property
    def observed(self) -> tuple[tuple[str, str], ...]:
        """What the two terms of the loss observe."""
        return pair_observed(self.conversion)

    def forward(self, batch: Batch) -> Outputs:
        """Return ctr, cvr, ctcvr; extras are the gate, once a task."""
        return pair_outputs(self.network(batch.features), self.conversion)

    def loss(self, outputs: Outputs, batch: Batch) -> Losses:
        """Return the terms ``ctr`` and ``ctcvr`` (or ``cvr``, a mean over clicks)."""
        return pair_losses(outputs, batch, self.conversion)

    def shared_parameters(self) -> tuple[nn.Parameter, ...]:
        """Return the experts and the gate."""
        return self.network.shared_parameters()
