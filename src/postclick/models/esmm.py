"""ESMM: the CVR is trained through the product CTR * CVR on every exposure."""

from __future__ import annotations

from typing import Annotated

from torch import nn

from postclick.binding import Argument
from postclick.data.log import LogSpec
from postclick.losses.entire_space import click_loss, joint_loss
from postclick.losses.reduce import mean_over_exposures
from postclick.models.arguments import Biases, Interactions, TrunkChoice, TrunkExperts
from postclick.models.base import Batch, Citation, ConversionModel, HeadKind, Losses, Outputs
from postclick.models.batching import batch_labels
from postclick.models.task_heads import product_outputs
from postclick.nn.experts import Experts, gate_use, gates_of
from postclick.nn.tower import Tower
from postclick.nn.trunk import TaskNetwork

__all__ = ["ESMM"]


class ESMM(ConversionModel):
    r"""Entire Space Multi-task Model (ESMM).

    Two towers on one embedding table, trained on clicks and on click-and-conversion over every exposure.

        p = sigmoid(ctr tower(v))    q = sigmoid(cvr tower(v))    P(click and conversion | x) = t = p q              (1)

        L = 1/|D| sum_D l(o, p)  +  1/|D| sum_D l(o r, p q)                                                          (3)

    l is the cross-entropy, v the embedding shared by both towers; sample weights w turn 1/\|D\| sum into
    sum w l / sum w. The CVR tower has no loss of its own, and nothing is detached: the second term moves both towers.
    On a row without conversion dL/dlogit(q) = t (1 - q) / (1 - t) >= 0, on a converted one -(1 - q).

    What it estimates
        `cvr` is P(conversion | click, x) over the entire exposure space, through CTCVR = CTR * cvr_click. It is
        consistent for `cvr_click` in a class that holds the true surfaces. In a restricted class it is biased: each
        unclicked row pushes pCVR down (Zhang et al., WWW 2020, give a counter-example), and an error of the CTR is
        passed on to the CVR. It differs from `cvr_do` where a hidden confounder moves click and conversion.
        ctcvr <= ctr by construction.

    Departures
        Embedding size 8 (paper 18) and towers 128-64-32 with dropout (paper 360-200-80, no dropout given), so that all
        systems are compared at one size; one logit in place of the paper's two-way softmax, which is the same model;
        the product is taken in log space, so no probability is clamped.

    Parameters
    ----------
    spec
        What is known of the log.
    embedding_size
        E, the width of a table row.
    tower
        Hidden layers of each tower.
    trunk
        ``shared`` is the paper: both towers read the embedding. ``mmoe`` and ``ple`` put experts in between, so that
        objective and trunk can be told apart; ``mf`` and ``ncf`` read the user and the item alone (ratings).
    experts
        Numbers and shape of the experts, where the trunk has them.
    shared_embedding
        False gives each tower its own table: the paper's ablation ESMM-NS.
    interaction
        Products of features that the towers read beside the features; off in the paper.
    biases
        False takes user, item and global biases from the trunk ``mf``.

    References
    ----------
    Ma et al., Entire Space Multi-Task Model, SIGIR 2018.
    """

    citation = Citation(
        title="Entire Space Multi-Task Model: An Effective Approach for Estimating Post-Click Conversion Rate",
        authors="Xiao Ma, Liqin Zhao, Guan Huang, Zhi Wang, Zelin Hu, Xiaoqiang Zhu, Kun Gai",
        venue="SIGIR",
        year=2018,
        link="https://arxiv.org/abs/1804.07931",
    )

    def __init__(
        self,
        spec: LogSpec,
        *,
        embedding_size: Annotated[int, Argument("width of an embedding", paper=18, low=4, high=64)] = 8,
        tower: Annotated[Tower, Argument("hidden layers of each tower", paper={"hidden": (360, 200, 80)})] = Tower(),  # noqa: B008 (frozen)
        trunk: TrunkChoice = "shared",
        experts: TrunkExperts = Experts(),  # noqa: B008 (frozen)
        shared_embedding: Annotated[bool, Argument("one table for both towers; false is ESMM-NS")] = True,
        interaction: Interactions = None,
        biases: Biases = True,
    ) -> None:
        super().__init__(spec)
        self.network = TaskNetwork(
            spec.schema,
            spec.table_rows,
            {"ctr": spec.ctr, "cvr": spec.cvr},
            trunk=trunk,
            experts=experts,
            tower=tower,
            embedding_size=embedding_size,
            interaction=interaction,
            shared_embedding=shared_embedding,
            biases=biases,
        )

    @property
    def heads(self) -> dict[str, HeadKind]:
        """All three are outputs of the system; ctcvr is the product it is trained on."""
        return {"ctr": "head", "cvr": "head", "ctcvr": "head"}

    @property
    def observed(self) -> tuple[tuple[str, str], ...]:
        """What the two terms of the loss observe."""
        return (("ctr", "exposure"), ("ctcvr", "exposure"))

    def forward(self, batch: Batch) -> Outputs:
        """Return ctr, cvr and their product; extras are the gates, where the trunk has them."""
        return product_outputs(self.network(batch.features))

    def loss(self, outputs: Outputs, batch: Batch) -> Losses:
        """Return the terms ``ctr`` and ``ctcvr``, both over all exposures, nothing detached."""
        click, conversion = batch_labels(batch)
        ctr = click_loss(outputs.ctr, click)
        ctcvr = joint_loss(outputs.ctcvr, click, conversion)
        return Losses(
            {"ctr": mean_over_exposures(ctr, batch.click_weight), "ctcvr": mean_over_exposures(ctcvr, batch.weight)},
            gate_use(gates_of(outputs.extras), batch.weight),
        )

    def shared_parameters(self) -> tuple[nn.Parameter, ...]:
        """Return what the towers share beside the table: nothing under the paper's trunk."""
        return self.network.shared_parameters()
