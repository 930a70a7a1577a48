"""PLE: experts of each task alone beside experts of all tasks, in levels."""

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

__all__ = ["PLE"]


class PLE(ConversionModel):
    r"""Progressive Layered Extraction (PLE).

    Experts of each task alone beside experts of all tasks, in levels; one level is CGC, Customized Gate Control.

        task k, level j:  g^{k,j} = softmax(W^{k,j} g^{k,j-1}) S^{k,j}                                             (5)
                          S^{k,j}: k's experts of level j on g^{k,j-1}, then the shared ones on g^{s,j-1}
        shared, level j:  g^{s,j} = softmax(W^{s,j} g^{s,j-1}) S^{s,j}, S^{s,j}: all experts of the level          (6)
        g^{k,0} = g^{s,0} = v, gates without bias          y_k = sigmoid(tower_k(g^{k,N})), N the last level       (7)

        L = 1/|D| sum_D l(o, p)  +  one of
            conversion="ctcvr":  1/|D| sum_D l(o r, s)           s is P(click and conversion | x), cvr = s / p
            conversion="cvr":    1/|O| sum_O l(r, q)             q is P(conversion | click, x), ctcvr = p q     (8)-(10)

    l is the cross-entropy, v the embedding, D the exposures and O the clicks of the batch; sample weights w turn the
    means into sum w l / sum w. The last level has no shared gate. Nothing is detached; a task's own experts move by
    its own loss on the last level, and by both on the levels below, through the shared gate.

    What it estimates
        ``ctcvr`` (the form of the tables of AITM and CSTWA) is consistent for CTCVR on all exposures in a class that
        holds the true surface; its `cvr` is a quotient, clipped below 1, flagged ``derived`` and never called best.
        ``cvr`` estimates `cvr_click` on clicked rows and extrapolates to the others (sample selection bias), as `mlp`
        does, but its experts and embeddings learn from every exposure through the click.

    Departures
        The joint loss of the paper lets each task's weight decay over the epochs, omega_k gamma_k^t; both weigh 1 here.
        Its CVR is ``cvr`` (eqs. 8-10: each task's loss is a mean over its own sample space); the default is the joint
        label of the tables that quote PLE. Experts 64-32-16, one a task and two shared, a tower of one layer (the
        logit) are AITM's sizes (the paper: layers 256-128-64); embedding size 8 for their 5.

    Parameters
    ----------
    spec
        What is known of the log.
    conversion
        What the second task is.
    embedding_size
        E, the width of a table row.
    experts
        Numbers (``specific`` a task, ``shared``), ``levels`` and shape of the experts.
    tower
        Hidden layers of each task's tower, below its logit.
    interaction
        Products of features that experts and gates read beside the features; off in the paper.

    References
    ----------
    Tang et al., RecSys 2020; sizes: Xi et al., KDD 2021 (Table 4).
    """

    citation = Citation(
        title="Progressive Layered Extraction (PLE): A Novel Multi-Task Learning (MTL) Model for Personalized "
        "Recommendations",
        authors="Hongyan Tang, Junning Liu, Ming Zhao, Xudong Gong",
        venue="RecSys",
        year=2020,
        link="https://doi.org/10.1145/3383313.3412236",
    )

    def __init__(
        self,
        spec: LogSpec,
        *,
        conversion: Annotated[
            SecondTask, Argument("the second task: CTCVR on all exposures, or CVR on clicks")
        ] = "ctcvr",
        embedding_size: Annotated[int, Argument("width of an embedding", paper=5, low=4, high=64)] = 8,
        experts: Annotated[Experts, Argument("numbers, levels and shape of the experts")] = Experts(),  # noqa: B008 (frozen)
        tower: Annotated[Tower, Argument("hidden layers of each task's tower")] = Tower((), (0.3,)),  # noqa: B008 (frozen)
        interaction: Interactions = None,
    ) -> None:
        super().__init__(spec)
        self.conversion = conversion
        self.network = TaskNetwork(
            spec.schema,
            spec.table_rows,
            pair_rates(spec, conversion),
            trunk="ple",
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
        """Return ctr, cvr, ctcvr; extras are the gates of the last level."""
        return pair_outputs(self.network(batch.features), self.conversion)

    def loss(self, outputs: Outputs, batch: Batch) -> Losses:
        """Return the terms ``ctr`` and ``ctcvr`` (or ``cvr``, a mean over clicks)."""
        return pair_losses(outputs, batch, self.conversion)

    def shared_parameters(self) -> tuple[nn.Parameter, ...]:
        """Return the experts and gates of all levels."""
        return self.network.shared_parameters()
