"""MRDR: doubly robust learning whose imputation minimises the variance of the risk, with double learning."""

from __future__ import annotations

from typing import Annotated, Literal

import torch

from postclick.binding import Argument
from postclick.data.log import LogSpec
from postclick.losses.doubly_robust import mrdr_weights
from postclick.losses.entire_space import click_loss
from postclick.losses.probability import LogProbability
from postclick.losses.reduce import mean_over_exposures
from postclick.models.arguments import Interactions
from postclick.models.base import Batch, Citation, ConversionModel, HeadKind, Losses, Outputs, Phase
from postclick.models.batching import batch_labels
from postclick.models.debiasing import (
    IMPUTATION,
    PropensityName,
    RobustRisk,
    check_propensity,
    propensities,
    robust_rows,
)
from postclick.nn.tower import Tower
from postclick.nn.trunk import TaskNetwork

__all__ = ["MRDR"]


class MRDR(ConversionModel):
    r"""More Robust Doubly Robust learning with double learning (MRDR).

    Three networks that share nothing: the CTR, the CVR, and a second CVR network whose predictions r~ are the labels
    imputed on every exposure. Each batch is two steps, the imputation's and then that of CTR and CVR.

        imputation   theta_i <- argmin 1/|D| sum_D o (1 - p) / p^2 (sg[e] - l(r~, sg[q]))^2
        prediction   theta   <- argmin 1/|D| sum_D [e^ + w (e - e^)]  +  1/|D| sum_D l(o, p)

        e = l(r, q)    e^ = l(sg[r~], q)    w = o min(1 / max(sg[p], floor), cap)    o (1 - p) / p^2 = w (w - 1)

    o is the click, r the conversion, l the cross-entropy; p is detached in the weights; sample weights s turn
    1/\|D\| sum into sum s l / sum s. The imputation's weights are those of the variance of the doubly robust risk,
    1/\|D\|^2 sum p (1 - p) / p^2 (e - e^)^2, estimated on clicks. Double learning: at the start of each epoch the
    imputation network becomes a copy of the CVR network. e - e^ = -(r - r~) logit(q), and ``risk.reach`` (default 3)
    holds the logit in it within 3 of that of r~. ctcvr = p q, which no term fits.

    What it estimates
        As DR-JL, with an imputation that spends itself where weights are large and leaves rows that are always clicked
        alone. That lowers the variance, not the bias: a bias stays wherever both p and r~ are wrong.

    Departures
        The paper fits pre-trained propensities; here a CTR network of its own gives them, trained along. Turns are
        taken by the batch, where the authors' code takes them by the epoch and draws unclicked pairs.

    Parameters
    ----------
    spec
        What is known of the log.
    propensity
        Where p in the weights comes from (`models.debiasing`).
    risk
        Floor, cap, self-normalisation and guard; the imputation's weights are made before self-normalisation.
    double_learning
        False lets the imputation network keep its own weights from epoch to epoch.
    trunk
        ``mf`` and ``ncf`` read the user and the item alone: the authors' code is ``mf``.
    tower
        Hidden layers of each network.
    embedding_size
        E, the width of a table row.
    interaction
        Products of features that each network reads beside them; None forms none.
    biases
        False takes user, item and global biases from ``mf``.

    Raises
    ------
    ValueError
        Where the log has no propensities for ``logged``.

    References
    ----------
    Guo et al., Enhanced Doubly Robust Learning for Debiasing Post-Click Conversion Rate Estimation, SIGIR 2021.
    """

    citation = Citation(
        title="Enhanced Doubly Robust Learning for Debiasing Post-Click Conversion Rate Estimation",
        authors="Siyuan Guo, Lixin Zou, Yiding Liu, Wenwen Ye, Suqi Cheng, Shuaiqiang Wang, Hechang Chen, Dawei Yin, "
        "Yi Chang",
        venue="SIGIR",
        year=2021,
        link="https://arxiv.org/abs/2105.13623",
    )

    def __init__(
        self,
        spec: LogSpec,
        *,
        propensity: Annotated[PropensityName, Argument("where P(click | x) comes from", paper="logged")] = "ctr",
        risk: Annotated[RobustRisk, Argument("how clicks are weighted and errors imputed")] = RobustRisk(),  # noqa: B008 (frozen)
        double_learning: Annotated[bool, Argument("the imputation starts each epoch as a copy of the CVR")] = True,
        trunk: Annotated[
            Literal["shared", "mf", "ncf"], Argument("what a network reads: features, or user and item", paper="mf")
        ] = "shared",
        tower: Annotated[Tower, Argument("hidden layers of each network")] = Tower(),  # noqa: B008 (frozen)
        embedding_size: Annotated[int, Argument("width of an embedding", paper=64, low=4, high=64)] = 8,
        interaction: Interactions = None,
        biases: Annotated[bool, Argument("user, item and global biases of mf")] = True,
    ) -> None:
        super().__init__(spec)
        check_propensity(propensity, spec)
        self.propensity, self.risk, self.double_learning = propensity, risk, double_learning

        def network(task: str, rate: float) -> TaskNetwork:
            return TaskNetwork(
                spec.schema,
                spec.table_rows,
                {task: rate},
                trunk=trunk,
                tower=tower,
                embedding_size=embedding_size,
                interaction=interaction,
                biases=biases,
            )

        self.ctr_network = network("ctr", spec.ctr)
        self.cvr_network = network("cvr", spec.cvr)
        self.imputation_network = network("cvr", spec.cvr)

    @property
    def heads(self) -> dict[str, HeadKind]:
        """All three are outputs of the system; ctcvr is the product."""
        return {"ctr": "head", "cvr": "head", "ctcvr": "head"}

    @property
    def observed(self) -> tuple[tuple[str, str], ...]:
        """The CTR over exposures and the CVR on clicks, unweighted: the noise of weights would choose the step."""
        return (("ctr", "exposure"), ("cvr", "click"))

    def forward(self, batch: Batch) -> Outputs:
        """Return ctr, cvr and their product; extras are the imputation's logit, while training."""
        ctr = LogProbability.from_logit(self.ctr_network(batch.features).logits["ctr"])  # [B]
        cvr = LogProbability.from_logit(self.cvr_network(batch.features).logits["cvr"])
        if batch.click is None:  # to score takes two networks of the three
            return Outputs(ctr, cvr, ctcvr=ctr * cvr)
        imputed = self.imputation_network(batch.features).logits["cvr"]
        return Outputs(ctr, cvr, ctcvr=ctr * cvr, extras={IMPUTATION: imputed})

    def loss(self, outputs: Outputs, batch: Batch) -> Losses:
        """Return ``ctr``, ``cvr`` and ``imputation``; `robust_rows` stops the last two where the other one learns."""
        click, conversion = batch_labels(batch)
        ctr = outputs.ctr.detach() if self.risk.detach_propensity else outputs.ctr
        propensity = propensities(self.propensity, ctr, batch, self.spec.ctr)
        weights = self.risk.weights(click, propensity, self.spec.ctr, batch)
        rows = robust_rows(
            ("label", outputs.extras[IMPUTATION]),
            outputs.cvr,
            click,
            conversion,
            weights.rows,
            guard=self.risk,
            sample_weight=batch.weight,
            fitted_by=mrdr_weights(weights.clipped),
        )
        assert rows.imputation is not None
        per_row = {"ctr": click_loss(outputs.ctr, click), "cvr": rows.risk, IMPUTATION: rows.imputation}
        terms = {name: mean_over_exposures(each, batch.weight_of(name)) for name, each in per_row.items()}
        return Losses(terms, {**weights.diagnostics, **rows.diagnostics})

    def phases(self) -> tuple[Phase, ...]:
        """Return the imputation's step and that of the prediction; no parameter is in both."""
        prediction = (*self.ctr_network.parameters(), *self.cvr_network.parameters())
        return (
            Phase(IMPUTATION, tuple(self.imputation_network.parameters()), (IMPUTATION,)),
            Phase("prediction", prediction, ("ctr", "cvr")),
        )

    @torch.no_grad()
    def on_epoch_start(self, epoch: int) -> None:  # noqa: ARG002
        """Copy the CVR network into the imputation network."""
        if self.double_learning:
            for copy, source in zip(self.imputation_network.parameters(), self.cvr_network.parameters(), strict=True):
                copy.copy_(source)
