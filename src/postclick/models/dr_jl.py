"""DR-JL: doubly robust joint learning, a prediction and an imputation model that take turns."""

from __future__ import annotations

from typing import Annotated, Literal

from postclick.binding import Argument
from postclick.data.log import LogSpec
from postclick.losses.entire_space import click_loss
from postclick.losses.probability import LogProbability
from postclick.losses.reduce import mean_over_exposures
from postclick.models.arguments import EmbeddingSize, Interactions
from postclick.models.base import Batch, Citation, ConversionModel, HeadKind, Losses, Outputs, Phase
from postclick.models.batching import batch_labels
from postclick.models.debiasing import (
    IMPUTATION,
    PropensityName,
    RobustRisk,
    check_propensity,
    imputation_rate,
    propensities,
    robust_rows,
)
from postclick.nn.tower import Tower
from postclick.nn.trunk import TaskNetwork

__all__ = ["DRJL"]


class DRJL(ConversionModel):
    r"""Doubly Robust Joint Learning (DR-JL).

    Three networks that share nothing: the CTR, the CVR, and an imputation of the CVR's error e^ on every exposure. Each
    batch is two steps, the imputation's and then that of CTR and CVR, which sees what the first one moved.

        imputation   theta_i <- argmin 1/|D| sum_D w (sg[e] - e^)^2
        prediction   theta   <- argmin 1/|D| sum_D [sg'[e^] + w (e - sg'[e^])]  +  1/|D| sum_D l(o, p)

        e = l(r, q)    w = o min(1 / max(sg[p], floor), cap)    sg'[.] stops theta_i alone

        imputation="label":  e^ = l(r~, q), r~ = sigmoid(z)        imputation="error":  e^ = softplus(z)

    z is the imputation network's logit, o the click, r the conversion, l the cross-entropy; sample weights s turn
    1/\|D\| sum into sum s l / sum s. In the label form e - e^ = -(r - r~) logit(q), and ``risk.reach`` (default 3)
    holds the logit in it within 3 of z. ctcvr = p q, which no term fits.

    What it estimates
        `cvr_do`, which is `cvr_click` where x holds every confounder. With the floor off and the CVR within reach of
        its imputed label, the risk is unbiased for the mean of l(r, q) over exposures if p is the true CTR or e^ the
        expected error. What it costs beside Multi-DR: three tables for one.

    Departures
        The paper fits ratings with given propensities; here a CTR network of its own gives them, trained along. Its
        imputed error is a distance to a pseudo-label, the label form. Turns are taken by the batch, where public code
        takes them by the epoch.

    Parameters
    ----------
    spec
        What is known of the log.
    propensity
        Where p in the weight comes from (`models.debiasing`).
    imputation
        What the imputation network is.
    risk
        Floor, cap, self-normalisation and guard.
    trunk
        ``mf`` and ``ncf`` read the user and the item alone: ``mf`` is the paper.
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
    Wang et al., Doubly Robust Joint Learning for Recommendation on Data Missing Not at Random, ICML 2019.
    """

    citation = Citation(
        title="Doubly Robust Joint Learning for Recommendation on Data Missing Not at Random",
        authors="Xiaojie Wang, Rui Zhang, Yu Sun, Jianzhong Qi",
        venue="ICML",
        year=2019,
        link="https://proceedings.mlr.press/v97/wang19n.html",
    )

    def __init__(
        self,
        spec: LogSpec,
        *,
        propensity: Annotated[PropensityName, Argument("where P(click | x) comes from", paper="logged")] = "ctr",
        imputation: Annotated[Literal["label", "error"], Argument("what is imputed on every row")] = "label",
        risk: Annotated[RobustRisk, Argument("how clicks are weighted and errors imputed")] = RobustRisk(),  # noqa: B008 (frozen)
        trunk: Annotated[
            Literal["shared", "mf", "ncf"], Argument("what a network reads: features, or user and item", paper="mf")
        ] = "shared",
        tower: Annotated[Tower, Argument("hidden layers of each network")] = Tower(),  # noqa: B008 (frozen)
        embedding_size: EmbeddingSize = 8,
        interaction: Interactions = None,
        biases: Annotated[bool, Argument("user, item and global biases of mf")] = True,
    ) -> None:
        super().__init__(spec)
        check_propensity(propensity, spec)
        self.propensity, self.imputation, self.risk = propensity, imputation, risk

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
        self.imputation_network = network(IMPUTATION, imputation_rate(imputation, spec.cvr))

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
        return Outputs(ctr, cvr, ctcvr=ctr * cvr, extras=dict(self.imputation_network(batch.features).logits))

    def loss(self, outputs: Outputs, batch: Batch) -> Losses:
        """Return ``ctr``, ``cvr`` and ``imputation``; `robust_rows` stops the last two where the other one learns."""
        click, conversion = batch_labels(batch)
        ctr = outputs.ctr.detach() if self.risk.detach_propensity else outputs.ctr
        propensity = propensities(self.propensity, ctr, batch, self.spec.ctr)
        weights = self.risk.weights(click, propensity, self.spec.ctr, batch)
        rows = robust_rows(
            (self.imputation, outputs.extras[IMPUTATION]),
            outputs.cvr,
            click,
            conversion,
            weights.rows,
            guard=self.risk,
            sample_weight=batch.weight,
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
