"""NISE: the CVR of clicked rows from their labels, of unclicked rows from itself."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from torch import Tensor, nn

from postclick.binding import Argument
from postclick.data.log import LogSpec
from postclick.losses.entire_space import click_loss, clicked_conversion_loss
from postclick.losses.reduce import mean_over_exposures
from postclick.models.arguments import Biases, Interactions, TrunkChoice, TrunkExperts
from postclick.models.base import Batch, Citation, ConversionModel, HeadKind, Losses, Outputs
from postclick.models.batching import batch_labels
from postclick.models.task_heads import product_outputs
from postclick.nn.experts import Experts, gate_use, gates_of
from postclick.nn.tower import Tower
from postclick.nn.trunk import TaskNetwork

__all__ = ["NISE"]

_LEAST = 1e-30
"""Stands for a CVR loss of 0: the ratio is then above every beta."""


class NISE(ConversionModel):
    r"""Non-click samples Improved Semi-supErvised (NISE).

    Clicked rows teach the CVR by their label, unclicked rows by the CVR's own prediction as a soft label, and both
    losses are brought to one size.

        L = L_CTR + omega L_CVR         L_CTR = 1/|D| sum_D l(o, p)

        L_CVR = 1/|D| sum_D [ o l(r, q) + (1 - o) l(q, q) ]         omega = sg[ alpha min(L_CTR / L_CVR, beta) ]

    p, q are the sigmoids of the towers, o the click, r the conversion, l the cross-entropy, sg[.] the stopped gradient;
    sample weights s turn 1/\|D\| sum into sum s l / sum s. l(q, q) is the entropy of q, and its label is *not* stopped:
    it falls as q moves from 1/2 towards the nearer of 0 and 1. With the label stopped its gradient is exactly zero, and
    the system would be a fit on clicks. ctcvr = p q, which no term fits.

    What it estimates
        A ranking rather than a rate. Row by row the two parts meet where p (r - q) = (1 - p) q (1 - q) log((1 - q) / q)
        with r the true CVR: for p = .04 and r = .1 that is q = .0006. Low rates are pulled to 0 on every x that is
        seldom clicked, by more where the CTR is lower; only what table and towers share between rows holds q up.
        Training calibrates afterwards; as it is, the score is not a probability.

    Departures
        None in the loss. The ratio is taken over the batch, as in the authors' code. Embedding size 8 (16 there) and
        towers 128-64-32 (160-80), so that all systems are compared at one size. The authors' figures are AUCs of a step
        chosen on the test set; here early stopping sees validation rows.

    Parameters
    ----------
    spec
        What is known of the log.
    alpha
        Weight of the CVR's loss once it has the size of the CTR's.
    beta
        Largest ratio of the two losses.
    trunk
        What the towers share beside the table; ``mf`` and ``ncf`` read the user and the item alone.
    experts
        Experts of the trunks ``mmoe`` and ``ple``.
    tower
        Hidden layers of each tower.
    embedding_size
        E, the width of a table row.
    interaction
        Products of features that join the input of the trunk; None leaves them to the towers.
    biases
        False takes user, item and global biases from the trunk ``mf``.

    Raises
    ------
    ValueError
        On an alpha below 0 or a beta that is not above 0.

    References
    ----------
    Huang et al., Utilizing Non-click Samples via Semi-supervised Learning for Conversion Rate Prediction, RecSys 2024.
    """

    citation = Citation(
        title="Utilizing Non-click Samples via Semi-supervised Learning for Conversion Rate Prediction",
        authors="Jiahui Huang, Lan Zhang, Junhao Wang, Shanyang Jiang, Dongbo Huang, Cheng Ding, Lan Xu",
        venue="RecSys",
        year=2024,
        link="https://doi.org/10.1145/3640457.3688151",
    )

    def __init__(
        self,
        spec: LogSpec,
        *,
        alpha: Annotated[float, Argument("weight of the CVR's loss at the size of the CTR's", low=0.1, high=5.0)] = 1.0,
        beta: Annotated[float, Argument("largest ratio of the CTR's loss to the CVR's", low=1.0, high=100.0)] = 50.0,
        trunk: TrunkChoice = "shared",
        experts: TrunkExperts = Experts(),  # noqa: B008 (frozen)
        tower: Annotated[Tower, Argument("hidden layers of each tower", paper={"hidden": (160, 80)})] = Tower(),  # noqa: B008 (frozen)
        embedding_size: Annotated[int, Argument("width of an embedding", paper=16, low=4, high=64)] = 8,
        interaction: Interactions = None,
        biases: Biases = True,
    ) -> None:
        super().__init__(spec)
        if not (0.0 <= alpha < math.inf and 0.0 < beta < math.inf):
            raise ValueError(f"alpha is at least 0 and beta above 0, got {alpha} and {beta}")
        self.alpha, self.beta = alpha, beta
        self.network = TaskNetwork(
            spec.schema,
            spec.table_rows,
            {"ctr": spec.ctr, "cvr": spec.cvr},
            trunk=trunk,
            experts=experts,
            tower=tower,
            embedding_size=embedding_size,
            interaction=interaction,
            biases=biases,
        )

    @property
    def heads(self) -> dict[str, HeadKind]:
        """All three are outputs of the system; ctcvr is the product."""
        return {"ctr": "head", "cvr": "head", "ctcvr": "head"}

    @property
    def observed(self) -> tuple[tuple[str, str], ...]:
        """What labels observe; the entropy has none."""
        return (("ctr", "exposure"), ("cvr", "click"))

    def forward(self, batch: Batch) -> Outputs:
        """Return ctr, cvr and their product; extras are the gates, where the trunk has them."""
        return product_outputs(self.network(batch.features))

    def loss(self, outputs: Outputs, batch: Batch) -> Losses:
        """Return the terms ``ctr`` and ``cvr``; omega is detached, the entropy's label is not."""
        click, conversion = batch_labels(batch)
        soft = outputs.cvr.log_p.exp()  # q as its own label: it must keep its gradient
        uncertain = (1.0 - click) * outputs.cvr.cross_entropy(soft)
        clicked = clicked_conversion_loss(outputs.cvr, click, conversion)
        ctr = mean_over_exposures(click_loss(outputs.ctr, click), batch.click_weight)
        cvr = mean_over_exposures(clicked + uncertain, batch.weight)
        omega = self._omega(ctr.detach(), cvr.detach())
        entropy = mean_over_exposures(uncertain, batch.weight).detach()
        gates = gate_use(gates_of(outputs.extras), batch.weight)
        return Losses({"ctr": ctr, "cvr": omega * cvr}, {"omega": omega, "entropy": entropy, **gates})

    def _omega(self, ctr: Tensor, cvr: Tensor) -> Tensor:
        """Return alpha min(L_CTR / L_CVR, beta), scalar, in [0, alpha beta]."""
        return self.alpha * torch.clamp(ctr / torch.clamp(cvr, min=_LEAST), max=self.beta)

    def shared_parameters(self) -> tuple[nn.Parameter, ...]:
        """Return what the towers share beside the table: nothing under the trunk ``shared``."""
        return self.network.shared_parameters()
