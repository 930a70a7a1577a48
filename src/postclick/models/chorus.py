"""ChorusCVR: a CVR and an un-CVR that teach each other, on clicked and unclicked rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from torch import Tensor, nn

from postclick.binding import Argument
from postclick.data.log import LogSpec
from postclick.losses.entire_space import click_loss, joint_loss
from postclick.losses.probability import LogProbability
from postclick.losses.reduce import mean_over_exposures
from postclick.models.arguments import Biases, EmbeddingSize, Interactions, Propensity, TrunkChoice, TrunkExperts
from postclick.models.base import Batch, Citation, ConversionModel, HeadKind, Losses, Outputs
from postclick.models.batching import batch_labels
from postclick.models.debiasing import check_propensity, propensities
from postclick.models.task_heads import product_outputs
from postclick.models.two_sided import TwoSidedRisk
from postclick.nn.experts import Experts, gate_use, gates_of
from postclick.nn.tower import Tower
from postclick.nn.trunk import TaskNetwork

__all__ = ["Chorus", "ChorusRisk"]

UNCVR = "uncvr"
"""Name of the un-CVR's task, of its term, and of its logit among the extras."""


@dataclass(frozen=True)
class ChorusRisk(TwoSidedRisk):
    """The losses of ChorusCVR.

    Parameters
    ----------
    ctr_weight
        Weight of the click's own loss, which the sum in print lacks; 0 is that sum.
    weighted
        Weight of the two losses on weighted clicks.
    align
        Weight of the alignment; a third-party reproduction found 0 best.

    Raises
    ------
    ValueError
        On a weight below 0.
    """

    ctr_weight: Annotated[float, Argument("weight of the click's own loss", paper=0.0, low=0.0, high=5.0)] = 1.0
    weighted: Annotated[float, Argument("weight of the two losses on weighted clicks", low=0.0, high=5.0)] = 1.0
    align: Annotated[float, Argument("weight of the alignment of the two heads", low=0.0, high=5.0)] = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        weights = (self.ctr_weight, self.weighted, self.align)
        if not all(0.0 <= weight < float("inf") for weight in weights):
            raise ValueError(f"ctr_weight, weighted and align are at least 0, got {list(weights)}")


class Chorus(ConversionModel):
    r"""Chorus supervision for entire-space CVR (ChorusCVR).

    A second head says how likely a click is *not* to convert. Its joint event with the click, "clicked and left", has a
    label on every exposure, which tells a clicked row without conversion from one that was never clicked. The two heads
    are then aligned on all rows, each with the other, stopped, as its soft label.

        L = ctr_weight L_ctr + L_ctcvr + L_ctuncvr + weighted (L_cvr + L_uncvr) + align L_align

        L_ctr   = 1/|D| sum_D l(o, p)
        L_ctcvr = 1/|D| sum_D l(o r, p q)              L_cvr   = 1/|D| sum_D w1 l(r, q)
        L_ctuncvr = 1/|D| sum_D l(o (1 - r), p u)      L_uncvr = 1/|D| sum_D w1 l(1 - r, u)
        L_align = 1/|D| sum_D (w1 + w0) [ l(sg[1 - u], q) + l(sg[1 - q], u) ]

        w1 = o min(1 / max(sg[p], c1), cap)     w0 = (1 - o) min(1 / max(1 - sg[p], c0), cap)

    p, q, u are the sigmoids of the towers, o the click, r the conversion, l the cross-entropy, sg[.] the stopped
    gradient; sample weights s turn 1/\|D\| sum into sum s l / sum s. `cvr` is q; u serves in training alone.

    What it estimates
        Every term agrees on one optimum: the joint terms give p q and p u = p (1 - q), the weighted ones q and 1 - q,
        and the alignment asks for q + u = 1, which both meet. So `cvr` is consistent for `cvr_click`, and for `cvr_do`
        where x holds every confounder, in a class that holds the true surfaces. The alignment adds no label: on
        unclicked rows it averages what the two heads extrapolate.

    Departures
        The paper's text was not read: losses as in its abstract and a third-party reproduction. The click has a loss of
        its own (``risk.ctr_weight=0`` is the printed sum, where p q + p u alone identify p): the weights rest on it.
        Weighted losses are averaged over exposures, where that reproduction divides by clicks, which is 1 / CTR larger.
        Floors are relative, a tenth of the share of either side, where it has .01. Embedding size and towers are those
        of all systems here.

    Parameters
    ----------
    spec
        What is known of the log.
    propensity
        Where p in the weights comes from (`models.debiasing`).
    risk
        Weights of the losses, floors, cap, self-normalisation (off in the paper).
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
        Where the log has no propensities for ``logged``.

    References
    ----------
    Cheng et al., ChorusCVR: Chorus Supervision for Entire Space Post-Click Conversion Rate Modeling, 2025.
    """

    citation = Citation(
        title="ChorusCVR: Chorus Supervision for Entire Space Post-Click Conversion Rate Modeling",
        authors="Wei Cheng, Yucheng Lu, Boyang Xia, Jiangxia Cao, Kuan Xu, Mingxing Wen, Wei Jiang, Jiaming Zhang, "
        "Zhaojie Liu, Liyin Hong, Kun Gai, Guorui Zhou",
        venue="arXiv",
        year=2025,
        link="https://arxiv.org/abs/2502.08277",
    )

    def __init__(
        self,
        spec: LogSpec,
        *,
        propensity: Propensity = "ctr",
        risk: Annotated[ChorusRisk, Argument("the losses and how both sides are weighted")] = ChorusRisk(),
        trunk: TrunkChoice = "shared",
        experts: TrunkExperts = Experts(),  # noqa: B008 (frozen)
        tower: Annotated[Tower, Argument("hidden layers of each tower")] = Tower(),  # noqa: B008 (frozen)
        embedding_size: EmbeddingSize = 8,
        interaction: Interactions = None,
        biases: Biases = True,
    ) -> None:
        super().__init__(spec)
        check_propensity(propensity, spec)
        self.propensity, self.risk = propensity, risk
        self.network = TaskNetwork(
            spec.schema,
            spec.table_rows,
            {"ctr": spec.ctr, "cvr": spec.cvr, UNCVR: 1.0 - spec.cvr},
            trunk=trunk,
            experts=experts,
            tower=tower,
            embedding_size=embedding_size,
            interaction=interaction,
            biases=biases,
        )

    @property
    def heads(self) -> dict[str, HeadKind]:
        """All three are outputs of the system; ctcvr is the product it is trained on."""
        return {"ctr": "head", "cvr": "head", "ctcvr": "head"}

    @property
    def observed(self) -> tuple[tuple[str, str], ...]:
        """The unweighted terms of the heads it serves: the noise of weights would choose the step."""
        return (("ctr", "exposure"), ("ctcvr", "exposure"))

    def forward(self, batch: Batch) -> Outputs:
        """Return ctr, cvr and their product; extras are the un-CVR's logit, and gates where there are any."""
        found = self.network(batch.features)
        return product_outputs(found, {UNCVR: found.logits[UNCVR]})

    def loss(self, outputs: Outputs, batch: Batch) -> Losses:
        """Return ``ctr``, ``ctcvr``, ``ctuncvr``, ``cvr``, ``uncvr``, ``align``; weights and soft labels detached."""
        click, conversion = batch_labels(batch)
        ctr = outputs.ctr.detach() if self.risk.detach_propensity else outputs.ctr
        weights = self.risk.both_sides(
            click, propensities(self.propensity, ctr, batch, self.spec.ctr), self.spec.ctr, batch
        )
        uncvr = LogProbability.from_logit(outputs.extras[UNCVR])
        aligned = _taught_by(outputs.cvr, uncvr.detach()) + _taught_by(uncvr, outputs.cvr.detach())
        weighted = self.risk.weighted * weights.clicked
        per_row = {
            "ctr": self.risk.ctr_weight * click_loss(outputs.ctr, click),
            "ctcvr": joint_loss(outputs.ctcvr, click, conversion),
            "ctuncvr": joint_loss(outputs.ctr * uncvr, click, 1.0 - conversion),
            "cvr": weighted * outputs.cvr.cross_entropy(conversion),
            UNCVR: weighted * uncvr.cross_entropy(1.0 - conversion),
            "align": self.risk.align * (weights.clicked + weights.unclicked) * aligned,
        }
        terms = {name: mean_over_exposures(rows, batch.weight_of(name)) for name, rows in per_row.items()}
        return Losses(terms, {**weights.diagnostics, **gate_use(gates_of(outputs.extras), batch.weight)})

    def shared_parameters(self) -> tuple[nn.Parameter, ...]:
        """Return what the towers share beside the table: nothing under the trunk ``shared``."""
        return self.network.shared_parameters()


def _taught_by(head: LogProbability, other: LogProbability) -> Tensor:
    """Return l(1 - other, head), [B]: the complement of the other head as a soft label."""
    return head.cross_entropy(other.log_not_p.exp())
