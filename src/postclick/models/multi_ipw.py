"""Multi-IPW and Multi-DR (Zhang et al., WWW 2020): one paper, two systems."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from torch import nn

from postclick.binding import Argument
from postclick.data.log import LogSpec
from postclick.losses.entire_space import click_loss
from postclick.losses.propensity import ips_risk
from postclick.losses.reduce import mean_over_exposures
from postclick.models.arguments import Biases, EmbeddingSize, Interactions, Propensity, TrunkChoice, TrunkExperts
from postclick.models.base import Batch, Citation, ConversionModel, HeadKind, Losses, Outputs, Phase
from postclick.models.batching import batch_labels
from postclick.models.debiasing import (
    IMPUTATION,
    ImputationName,
    ImputedRisk,
    WeightedRisk,
    alternating_phases,
    check_propensity,
    imputation_rate,
    propensities,
    robust_rows,
)
from postclick.models.task_heads import product_outputs
from postclick.nn.experts import Experts, gate_use, gates_of
from postclick.nn.tower import Tower
from postclick.nn.trunk import TaskNetwork

__all__ = ["MultiDR", "MultiDRRisk", "MultiIPW", "MultiIPWRisk"]

Layers = Annotated[Tower, Argument("hidden layers of each tower")]

CITATION = Citation(
    title="Large-scale Causal Approaches to Debiasing Post-click Conversion Rate Estimation with Multi-task Learning",
    authors="Wenhao Zhang, Wentian Bao, Xiao-Yang Liu, Keping Yang, Quan Lin, Hong Wen, Ramin Ramezani",
    venue="WWW",
    year=2020,
    link="https://arxiv.org/abs/1910.09337",
)


@dataclass(frozen=True)
class MultiIPWRisk(WeightedRisk):
    """The weighted risk of Multi-IPW.

    Parameters
    ----------
    lambda_c
        Its weight beside the CTR's loss.
    """

    lambda_c: Annotated[float, Argument("weight of the CVR's risk", low=0.0)] = 1.0


@dataclass(frozen=True)
class MultiDRRisk(ImputedRisk):
    """The doubly robust risk of Multi-DR.

    Parameters
    ----------
    lambda_c
        Its weight beside the CTR's loss.
    """

    lambda_c: Annotated[float, Argument("weight of the CVR's risk", low=0.0)] = 1.0


class MultiIPW(ConversionModel):
    r"""Multi-task inverse propensity weighting (Multi-IPW).

    The CVR tower learns from clicked rows, each weighted by the inverse of its CTR; CTR and CVR share their embeddings.

        L = 1/|D| sum_D l(o, p)  +  lambda_c/|D| sum_D w l(r, q)        w = o min(1 / max(sg[p], floor), cap)

    p, q are the sigmoids of the towers, o the click, r the conversion, l the cross-entropy, sg[.] the stopped
    gradient; sample weights s turn 1/\|D\| sum into sum s l / sum s. ctcvr = p q, which no term fits.

    What it estimates
        `cvr_do`, which is `cvr_click` where x holds every confounder. With the true CTR in w, floor off and every
        exposure clickable, the second term is unbiased for the mean of l(r, q) over exposures. In a class that holds
        the true surface it has the optimum of the fit on clicks, and more variance; it earns its keep where the class
        is too small for the exposure space. A hidden confounder of click and conversion stays in it. Few clicks of
        small p carry it: watch ``effective_share`` and ``clipped_mass``.

    Departures
        The paper's loss is reconstructed from notes on it; what it detaches, clips and how it weighs the two terms are
        in no source that was read. The propensity is detached: otherwise the second term falls by raising p on clicks.
        The floor is a tenth of the log's CTR. Trunks other than ``shared`` are not the paper's. Embedding size and
        towers are those of all systems here.

    Parameters
    ----------
    spec
        What is known of the log.
    propensity
        Where p comes from (`models.debiasing`): ``ctr`` the paper, ``constant`` the naive fit, whose weights are all
        alike.
    risk
        Floor, cap, self-normalisation and weight of the second term.
    trunk
        ``shared`` is the paper: both towers read the embedding. ``mf`` and ``ncf`` read the user and the item alone.
    experts
        Experts of the trunks ``mmoe`` and ``ple``.
    tower
        Hidden layers of each tower.
    embedding_size
        E, the width of a table row.
    interaction
        Products of features that the towers read beside the features; off in the paper.
    biases
        False takes user, item and global biases from the trunk ``mf``.

    Raises
    ------
    ValueError
        Where the log has no propensities for ``logged``.

    References
    ----------
    Zhang et al., Large-scale Causal Approaches to Debiasing Post-click Conversion Rate Estimation, WWW 2020.
    """

    citation = CITATION

    def __init__(
        self,
        spec: LogSpec,
        *,
        propensity: Propensity = "ctr",
        risk: Annotated[MultiIPWRisk, Argument("how clicks are weighted")] = MultiIPWRisk(),
        trunk: TrunkChoice = "shared",
        experts: TrunkExperts = Experts(),  # noqa: B008 (frozen)
        tower: Layers = Tower(),  # noqa: B008 (frozen)
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
        """The CTR over exposures and the CVR on clicks, unweighted: the noise of weights would choose the step."""
        return (("ctr", "exposure"), ("cvr", "click"))

    def forward(self, batch: Batch) -> Outputs:
        """Return ctr, cvr and their product; extras are the gates, where the trunk has them."""
        return product_outputs(self.network(batch.features))

    def loss(self, outputs: Outputs, batch: Batch) -> Losses:
        """Return the terms ``ctr`` and ``cvr``, both averaged over exposures; the propensity is detached."""
        click, conversion = batch_labels(batch)
        ctr = outputs.ctr.detach() if self.risk.detach_propensity else outputs.ctr
        propensity = propensities(self.propensity, ctr, batch, self.spec.ctr)
        weights = self.risk.weights(click, propensity, self.spec.ctr, batch)
        per_row = {
            "ctr": click_loss(outputs.ctr, click),
            "cvr": self.risk.lambda_c * ips_risk(outputs.cvr.cross_entropy(conversion), weights.rows),
        }
        terms = {name: mean_over_exposures(rows, batch.weight_of(name)) for name, rows in per_row.items()}
        return Losses(terms, {**weights.diagnostics, **gate_use(gates_of(outputs.extras), batch.weight)})

    def shared_parameters(self) -> tuple[nn.Parameter, ...]:
        """Return what the towers share beside the table: nothing under the paper's trunk."""
        return self.network.shared_parameters()


class MultiDR(ConversionModel):
    r"""Multi-task doubly robust learning (Multi-DR).

    Multi-IPW and a third tower that imputes the CVR's error e^ on every exposure.

        L = 1/|D| sum_D l(o, p) + lambda_c/|D| sum_D [e^ + w (e - e^)] + lambda_i/|D| sum_D w (sg[e] - e^)^2

        e = l(r, q)      w = o min(1 / max(sg[p], floor), cap)      z the imputation tower's logit

        imputation="label":     e^ = l(r~, q), r~ = sigmoid(z)      in the second term r~ is stopped, in the third q is
        imputation="error":     e^ = softplus(z)                    stopped in the second term
        imputation="constant":  e^ = l(r0, q)                       no third tower, no third term

    o is the click, r the conversion, l the cross-entropy; sample weights s turn 1/\|D\| sum into sum s l / sum s. In
    the label form e - e^ = -(r - r~) logit(q), and ``risk.reach`` (default 3) holds the logit in it within 3 of z.
    ctcvr = p q, which no term fits.

    What it estimates
        `cvr_do`, which is `cvr_click` where x holds every confounder. With the floor off and the CVR within reach of
        its imputed label, the second term is unbiased for the mean of l(r, q) over exposures if p is the true CTR or e^
        the expected error. With an imputed error the CVR tower gets exactly the gradient of Multi-IPW; with an imputed
        label unclicked rows reach it. The label form fits the target r~ + w (r - r~), which leaves [0, 1] where w > 1
        (``share_outside`` counts those rows): without the guard the loss has no lower bound, and a table that can
        memorise rows runs away. A constant imputation is not guarded.

    Departures
        The paper's losses are reconstructed from notes on it. It imputes the error; here the label is the default, and
        ``error`` the paper's form. The error tower is softplus, unbounded above: cross-entropies exceed 1. Propensity,
        imputed values and the imputation's target are stopped where the paper says "jointly trained". Embedding size
        and towers are those of all systems here.

    Parameters
    ----------
    spec
        What is known of the log.
    propensity
        Where p comes from (`models.debiasing`).
    imputation
        What the third tower is. ``constant`` with ``propensity="ctr"`` is the heuristic DR of the paper's tables, with
        ``propensity="one"`` and ``risk.constant_label=0`` naive imputation: an unclicked row is a negative.
    risk
        Floor, cap, self-normalisation, guard, weights of the terms, and whether updates alternate.
    trunk
        ``shared`` is the paper: all towers read the embedding. ``mf`` and ``ncf`` read the user and the item alone.
    experts
        Experts of the trunks ``mmoe`` and ``ple``.
    tower
        Hidden layers of each tower.
    embedding_size
        E, the width of a table row.
    interaction
        Products of features that the towers read beside the features; off in the paper.
    biases
        False takes user, item and global biases from the trunk ``mf``.

    Raises
    ------
    ValueError
        Where the log has no propensities for ``logged``, or a constant imputation has no tower to alternate with.

    References
    ----------
    Zhang et al., Large-scale Causal Approaches to Debiasing Post-click Conversion Rate Estimation, WWW 2020.
    """

    citation = CITATION

    def __init__(
        self,
        spec: LogSpec,
        *,
        propensity: Propensity = "ctr",
        imputation: Annotated[ImputationName, Argument("what is imputed on every row", paper="error")] = "label",
        risk: Annotated[MultiDRRisk, Argument("how clicks are weighted and errors imputed")] = MultiDRRisk(),
        trunk: TrunkChoice = "shared",
        experts: TrunkExperts = Experts(),  # noqa: B008 (frozen)
        tower: Layers = Tower(),  # noqa: B008 (frozen)
        embedding_size: EmbeddingSize = 8,
        interaction: Interactions = None,
        biases: Biases = True,
    ) -> None:
        super().__init__(spec)
        check_propensity(propensity, spec)
        risk.check(imputation)
        self.propensity, self.imputation, self.risk = propensity, imputation, risk
        start = risk.constant_rate(propensity, spec) if imputation == "constant" else spec.cvr
        rates = {"ctr": spec.ctr, "cvr": start}
        if imputation != "constant":
            rates[IMPUTATION] = imputation_rate(imputation, spec.cvr)
        self.network = TaskNetwork(
            spec.schema,
            spec.table_rows,
            rates,
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
        """The CTR over exposures and the CVR on clicks, unweighted: the noise of weights would choose the step."""
        return (("ctr", "exposure"), ("cvr", "click"))

    @property
    def negatives_everywhere(self) -> bool:
        """With a constant imputed label under 1."""
        label = self.risk.constant_label
        return self.imputation == "constant" and label is not None and label < 1.0

    def forward(self, batch: Batch) -> Outputs:
        """Return ctr, cvr and their product; extras are the imputation's logit, and gates where the trunk has them."""
        found = self.network(batch.features)
        return product_outputs(found, {name: logit for name, logit in found.logits.items() if name == IMPUTATION})

    def loss(self, outputs: Outputs, batch: Batch) -> Losses:
        """Return ``ctr``, ``cvr`` and ``imputation``; `robust_rows` stops the last two where the other one learns."""
        click, conversion = batch_labels(batch)
        ctr = outputs.ctr.detach() if self.risk.detach_propensity else outputs.ctr
        propensity = propensities(self.propensity, ctr, batch, self.spec.ctr)
        weights = self.risk.weights(click, propensity, self.spec.ctr, batch)
        rows = robust_rows(
            self.risk.imputed(self.imputation, outputs, self.spec.cvr),
            outputs.cvr,
            click,
            conversion,
            weights.rows,
            guard=self.risk,
            sample_weight=batch.weight,
        )
        per_row = {"ctr": click_loss(outputs.ctr, click), "cvr": self.risk.lambda_c * rows.risk}
        if rows.imputation is not None:
            per_row[IMPUTATION] = self.risk.imputation_weight * rows.imputation
        terms = {name: mean_over_exposures(each, batch.weight_of(name)) for name, each in per_row.items()}
        gates = gate_use(gates_of(outputs.extras), batch.weight)
        return Losses(terms, {**weights.diagnostics, **rows.diagnostics, **gates})

    def phases(self) -> tuple[Phase, ...]:
        """Return one step a batch, or the imputation's and then that of everything else."""
        if self.risk.updates == "joint":
            return super().phases()
        return alternating_phases(self.network, self.parameters(), ("ctr", "cvr"))

    def shared_parameters(self) -> tuple[nn.Parameter, ...]:
        """Return what the towers share beside the table: nothing under the paper's trunk."""
        return self.network.shared_parameters()
