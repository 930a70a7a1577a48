"""DCMT: a factual CVR on clicked rows, a counterfactual one on the others, each weighted to the exposure space."""

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

__all__ = ["DCMT", "DCMTRisk"]

COUNTERFACTUAL = "counterfactual"
"""Name of the second CVR head's task, of its term, and of its logit among the extras."""


@dataclass(frozen=True)
class DCMTRisk(TwoSidedRisk):
    """The two CVR risks of DCMT and what ties them.

    Parameters
    ----------
    self_normalise
        The paper has it, a public port does not.
    complement_weight
        lambda of the soft constraint that the two heads sum to 1.
    """

    self_normalise: Annotated[bool, Argument("weights of a side sum to the rows of the batch (SNIPS)")] = True
    complement_weight: Annotated[float, Argument("weight of |1 - (factual + counterfactual)|", low=0.0, high=1.0)] = (
        1e-3
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.0 <= self.complement_weight < float("inf"):
            raise ValueError(f"complement_weight is at least 0, got {self.complement_weight}")


class DCMT(ConversionModel):
    r"""Direct entire-space Causal Multi-Task framework (DCMT).

    Two CVR heads on one embedding. The factual one learns from clicked rows; the counterfactual one, "this would not
    have converted", from unclicked rows, whose conversion is taken to be 0. Each side is weighted to stand for all
    exposures, and a soft constraint asks the heads to sum to 1.

        L = 1/|D| sum_D l(o, p)  +  1/|D| sum_D l(o r, p q)
            + 1/|D| sum_D [ w1 l(r, q) + w0 l(1 - o r, q*) ]  +  lambda/|D| sum_D | 1 - (q + q*) |

        w1 = o min(1 / max(sg[p], c1), cap)     w0 = (1 - o) min(1 / max(1 - sg[p], c0), cap)

    p, q, q* are the sigmoids of the towers, o the click, r the conversion, l the cross-entropy, sg[.] the stopped
    gradient; sample weights s turn 1/\|D\| sum into sum s l / sum s. By default w1 is divided by its mean, and so is
    w0 (SNIPS). `cvr` is q; q* serves in training alone.

    What it estimates
        Two terms are right for q: w1 l(r, q) for `cvr_do`, the joint one for `cvr_click` over exposures; with every
        confounder in x these are one function. The constraint is not: q* only ever sees the label 1, so it goes to 1,
        and the constraint then pulls q to 0. Against w1 l(r, q) alone that moves the optimum from c to c - lambda
        c (1 - c), a thousandth at lambda = 1e-3; ``risk.complement_weight=0`` takes it away, and q* then serves the
        shared table alone. DDPO's authors report that the gradients of the two heads conflict.

    Departures
        The paper's text was not read: losses as in papers that compare with it and in a public port. Propensities are
        detached. Floors are relative, a tenth of the share of either side; the port has none that bites. The two CVR
        heads have towers of their own on the shared table. The counterfactual head starts at 1 - CVR, where the
        constraint is met. Embedding size and towers are those of all systems here.

    Parameters
    ----------
    spec
        What is known of the log.
    propensity
        Where p in the weights comes from (`models.debiasing`).
    risk
        Floors, cap, self-normalisation, lambda.
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
    Zhu et al., DCMT: A Direct Entire-Space Causal Multi-Task Framework, ICDE 2023.
    """

    citation = Citation(
        title="DCMT: A Direct Entire-Space Causal Multi-Task Framework for Post-Click Conversion Estimation",
        authors="Feng Zhu, Mingjie Zhong, Xinxing Yang, Longfei Li, Lu Yu, Tiehua Zhang, Jun Zhou, Chaochao Chen, "
        "Fei Wu, Guanfeng Liu, Yan Wang",
        venue="ICDE",
        year=2023,
        link="https://arxiv.org/abs/2302.06141",
    )

    def __init__(
        self,
        spec: LogSpec,
        *,
        propensity: Propensity = "ctr",
        risk: Annotated[DCMTRisk, Argument("how both sides are weighted and tied")] = DCMTRisk(),
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
            {"ctr": spec.ctr, "cvr": spec.cvr, COUNTERFACTUAL: 1.0 - spec.cvr},
            trunk=trunk,
            experts=experts,
            tower=tower,
            embedding_size=embedding_size,
            interaction=interaction,
            biases=biases,
        )

    @property
    def heads(self) -> dict[str, HeadKind]:
        """All three are outputs of the system; cvr is the factual head, ctcvr the product it is trained on."""
        return {"ctr": "head", "cvr": "head", "ctcvr": "head"}

    @property
    def observed(self) -> tuple[tuple[str, str], ...]:
        """What the two unweighted terms observe: the noise of weights would choose the step."""
        return (("ctr", "exposure"), ("ctcvr", "exposure"))

    def forward(self, batch: Batch) -> Outputs:
        """Return ctr, cvr and their product; extras are the counterfactual logit, and gates where there are any."""
        found = self.network(batch.features)
        return product_outputs(found, {COUNTERFACTUAL: found.logits[COUNTERFACTUAL]})

    def loss(self, outputs: Outputs, batch: Batch) -> Losses:
        """Return ``ctr``, ``ctcvr``, ``cvr``, ``counterfactual``, ``complement``; both weights are detached."""
        click, conversion = batch_labels(batch)
        ctr = outputs.ctr.detach() if self.risk.detach_propensity else outputs.ctr
        weights = self.risk.both_sides(
            click, propensities(self.propensity, ctr, batch, self.spec.ctr), self.spec.ctr, batch
        )
        counterfactual = LogProbability.from_logit(outputs.extras[COUNTERFACTUAL])
        per_row = {
            "ctr": click_loss(outputs.ctr, click),
            "ctcvr": joint_loss(outputs.ctcvr, click, conversion),
            "cvr": weights.clicked * outputs.cvr.cross_entropy(conversion),
            COUNTERFACTUAL: weights.unclicked * counterfactual.cross_entropy(1.0 - click * conversion),
            "complement": self.risk.complement_weight * _apart(outputs.cvr, counterfactual),
        }
        terms = {name: mean_over_exposures(rows, batch.weight_of(name)) for name, rows in per_row.items()}
        return Losses(terms, {**weights.diagnostics, **gate_use(gates_of(outputs.extras), batch.weight)})

    def shared_parameters(self) -> tuple[nn.Parameter, ...]:
        """Return what the towers share beside the table: nothing under the trunk ``shared``."""
        return self.network.shared_parameters()


def _apart(factual: LogProbability, counterfactual: LogProbability) -> Tensor:
    """Return |1 - (q + q*)|, [B]."""
    return (counterfactual.log_not_p.exp() - factual.log_p.exp()).abs()
