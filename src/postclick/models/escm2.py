"""ESCM2-IPS and ESCM2-DR (Wang et al., SIGIR 2022): one paper, two systems over any trunk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from torch import nn

from postclick.binding import Argument
from postclick.data.log import LogSpec
from postclick.losses.entire_space import click_loss, joint_loss
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
from postclick.nn.trunk import TaskNetwork, TrunkName

__all__ = ["ESCM2DR", "ESCM2IPS", "ESCM2DRRisk", "ESCM2IPSRisk"]

Counterfactual = Annotated[float, Argument("weight of the counterfactual risk; 0 is ESMM", low=0.0, high=5.0)]
Global = Annotated[float, Argument("weight of the global risk, that of the ctcvr", low=0.0, high=5.0)]
Layers = Annotated[Tower | None, Argument("hidden layers of each tower; off: none over experts, else 128-64-32")]

CITATION = Citation(
    title="ESCM2: Entire Space Counterfactual Multi-Task Model for Post-Click Conversion Rate Estimation",
    authors="Hao Wang, Tai-Wei Chang, Tianqiao Liu, Jianmin Huang, Zhichao Chen, Chao Yu, Ruopeng Li, Wei Chu",
    venue="SIGIR",
    year=2022,
    link="https://arxiv.org/abs/2204.05125",
)


@dataclass(frozen=True)
class ESCM2IPSRisk(WeightedRisk):
    """The three risks of ESCM2-IPS.

    Parameters
    ----------
    lambda_c
        Weight of the counterfactual risk, on the scale of a mean over exposures: 0.1, where the ranges of the two notes
        on the paper (0 to 0.1, and 0.1 to 1) meet. 0 is ESMM's loss.
    lambda_g
        Weight of the global risk; the paper sweeps 0 to 3.
    """

    lambda_c: Counterfactual = 0.1
    lambda_g: Global = 1.0


@dataclass(frozen=True)
class ESCM2DRRisk(ImputedRisk):
    """The three risks of ESCM2-DR.

    Parameters
    ----------
    lambda_c, lambda_g
        As in `ESCM2IPSRisk`; `lambda_c` also weighs the imputation's loss, which is part of the risk.
    """

    lambda_c: Counterfactual = 0.1
    lambda_g: Global = 1.0


class ESCM2IPS(ConversionModel):
    r"""Entire Space Counterfactual Multi-task Model with inverse propensity scores (ESCM2-IPS).

    ESMM's two losses and, as a regulariser, the CVR's risk on clicked rows weighted by the inverse of their CTR.

        L = 1/|D| sum_D l(o, p)  +  lambda_c/|D| sum_D w l(r, q)  +  lambda_g/|D| sum_D l(o r, p q)

        w = o min(1 / max(sg[p], floor), cap)

    p, q are the sigmoids of the towers, o the click, r the conversion, l the cross-entropy, sg[.] the stopped gradient;
    sample weights s turn 1/\|D\| sum into sum s l / sum s. The last term moves both towers, the middle one the CVR's.

    What it estimates
        The last term estimates `cvr_click` over the entire exposure space, the middle one `cvr_do`; where x holds every
        confounder they are one function, and in a class that holds it the two terms agree. In a restricted class the
        last one is pulled down by unclicked rows and passes an error of the CTR on, the middle one is unbiased for the
        mean of l(r, q) over exposures if p is the true CTR and nothing is clipped. ctcvr <= ctr by construction.

    Departures
        The paper's text was not read; risks and weights are those on which notes and public code agree. The propensity
        is detached, the floor a tenth of the log's CTR for the notes' 0.1, which would clip nearly every exposure of
        Ali-CCP; clips come before any scaling. Weights are averaged over exposures: public code that divides by clicks
        has a lambda_c that is 1 / CTR larger (0.01 there is 0.26 here at Ali-CCP's CTR). Embedding size, towers and
        experts are those of all systems here.

    Parameters
    ----------
    spec
        What is known of the log.
    propensity
        Where p in the weight comes from (`models.debiasing`).
    risk
        lambda_c, lambda_g, floor, cap and self-normalisation.
    trunk
        ``mmoe`` is the paper; ``shared`` with lambda_c = 0 is ESMM. ``mf`` and ``ncf`` read user and item alone.
    experts
        Experts of the trunks ``mmoe`` and ``ple``.
    tower
        Hidden layers of each tower; None is one layer (the logit) over experts, as in `mmoe`, and 128-64-32 elsewhere.
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
    Wang et al., ESCM2: Entire Space Counterfactual Multi-Task Model, SIGIR 2022.
    """

    citation = CITATION

    def __init__(
        self,
        spec: LogSpec,
        *,
        propensity: Propensity = "ctr",
        risk: Annotated[ESCM2IPSRisk, Argument("weights of the risks and of clicks")] = ESCM2IPSRisk(),
        trunk: TrunkChoice = "mmoe",
        experts: TrunkExperts = Experts(),  # noqa: B008 (frozen)
        tower: Layers = None,
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
            tower=_default_tower(trunk) if tower is None else tower,
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
        """What the empirical and the global risk observe."""
        return (("ctr", "exposure"), ("ctcvr", "exposure"))

    def forward(self, batch: Batch) -> Outputs:
        """Return ctr, cvr and their product; extras are the gates, where the trunk has them."""
        return product_outputs(self.network(batch.features))

    def loss(self, outputs: Outputs, batch: Batch) -> Losses:
        """Return the terms ``ctr``, ``cvr`` and ``ctcvr``, all averaged over exposures; the propensity is detached."""
        click, conversion = batch_labels(batch)
        ctr = outputs.ctr.detach() if self.risk.detach_propensity else outputs.ctr
        propensity = propensities(self.propensity, ctr, batch, self.spec.ctr)
        weights = self.risk.weights(click, propensity, self.spec.ctr, batch)
        per_row = {
            "ctr": click_loss(outputs.ctr, click),
            "cvr": self.risk.lambda_c * ips_risk(outputs.cvr.cross_entropy(conversion), weights.rows),
            "ctcvr": self.risk.lambda_g * joint_loss(outputs.ctcvr, click, conversion),
        }
        terms = {name: mean_over_exposures(rows, batch.weight_of(name)) for name, rows in per_row.items()}
        return Losses(terms, {**weights.diagnostics, **gate_use(gates_of(outputs.extras), batch.weight)})

    def shared_parameters(self) -> tuple[nn.Parameter, ...]:
        """Return the trunk's parameters."""
        return self.network.shared_parameters()


class ESCM2DR(ConversionModel):
    r"""Entire Space Counterfactual Multi-task Model, doubly robust (ESCM2-DR).

    ESMM's two losses and, as a regulariser, the doubly robust risk of the CVR with a tower that imputes its error e^.

        L = 1/|D| sum_D l(o, p)  +  lambda_c R_DR  +  lambda_g/|D| sum_D l(o r, p q)

        R_DR = 1/|D| sum_D [e^ + w (e - e^)]  +  lambda_i/|D| sum_D w (sg[e] - e^)^2

        e = l(r, q)      w = o min(1 / max(sg[p], floor), cap)      z the imputation tower's logit

        imputation="label":     e^ = l(r~, q), r~ = sigmoid(z)      r~ is stopped in the first sum, q in the second
        imputation="error":     e^ = softplus(z)                    stopped in the first sum
        imputation="constant":  e^ = l(r0, q)                       no third tower, no second sum

    o is the click, r the conversion, l the cross-entropy; sample weights s turn 1/\|D\| sum into sum s l / sum s. In
    the label form e - e^ = -(r - r~) logit(q), and ``risk.reach`` (default 3) holds the logit in it within 3 of z.

    What it estimates
        As ESCM2-IPS; its middle term is also unbiased where e^ is the expected error, whatever the propensity, as long
        as the CVR is within reach of its imputed label. With an imputed error the CVR tower gets exactly the gradient
        of ESCM2-IPS; with an imputed label unclicked rows reach it through this term, too. The label form fits the
        target r~ + w (r - r~), which leaves [0, 1] where w > 1 (``share_outside``): unguarded it has no lower bound.

    Departures
        The paper's text was not read. It imputes the error; here the label is the default, and ``error`` the paper's
        form, by softplus: a tower in (0, 1), as in public code, cannot impute the 4.6 nats of one conversion at
        q = 0.01. The error is detached in the imputation's loss, which in that code also pulls the CVR towards its
        imputed error. Propensity, floor, scale and sizes as in ESCM2-IPS.

    Parameters
    ----------
    spec
        What is known of the log.
    propensity
        Where p in the weight comes from (`models.debiasing`).
    imputation
        What the third tower is.
    risk
        lambda_c, lambda_g, floor, cap, self-normalisation, guard, lambda_i, and whether updates alternate.
    trunk
        ``mmoe`` is the paper. ``mf`` and ``ncf`` read the user and the item alone.
    experts
        Experts of the trunks ``mmoe`` and ``ple``.
    tower
        Hidden layers of each tower; None is one layer (the logit) over experts, as in `mmoe`, and 128-64-32 elsewhere.
    embedding_size
        E, the width of a table row.
    interaction
        Products of features that join the input of the trunk; None leaves them to the towers.
    biases
        False takes user, item and global biases from the trunk ``mf``.

    Raises
    ------
    ValueError
        Where the log has no propensities for ``logged``, or a constant imputation has no tower to alternate with.

    References
    ----------
    Wang et al., ESCM2: Entire Space Counterfactual Multi-Task Model, SIGIR 2022.
    """

    citation = CITATION

    def __init__(
        self,
        spec: LogSpec,
        *,
        propensity: Propensity = "ctr",
        imputation: Annotated[ImputationName, Argument("what is imputed on every row", paper="error")] = "label",
        risk: Annotated[ESCM2DRRisk, Argument("weights of the risks and of clicks, imputation")] = ESCM2DRRisk(),
        trunk: TrunkChoice = "mmoe",
        experts: TrunkExperts = Experts(),  # noqa: B008 (frozen)
        tower: Layers = None,
        embedding_size: EmbeddingSize = 8,
        interaction: Interactions = None,
        biases: Biases = True,
    ) -> None:
        super().__init__(spec)
        check_propensity(propensity, spec)
        risk.check(imputation)
        self.propensity, self.imputation, self.risk = propensity, imputation, risk
        rates = {"ctr": spec.ctr, "cvr": spec.cvr}
        if imputation != "constant":
            rates[IMPUTATION] = imputation_rate(imputation, spec.cvr)
        self.network = TaskNetwork(
            spec.schema,
            spec.table_rows,
            rates,
            trunk=trunk,
            experts=experts,
            tower=_default_tower(trunk) if tower is None else tower,
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
        """What the empirical and the global risk observe."""
        return (("ctr", "exposure"), ("ctcvr", "exposure"))

    def forward(self, batch: Batch) -> Outputs:
        """Return ctr, cvr and their product; extras are the imputation's logit, and gates where the trunk has them."""
        found = self.network(batch.features)
        return product_outputs(found, {name: logit for name, logit in found.logits.items() if name == IMPUTATION})

    def loss(self, outputs: Outputs, batch: Batch) -> Losses:
        """Return ``ctr``, ``cvr``, ``ctcvr``, ``imputation``; `robust_rows` stops what the other side learns."""
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
        per_row = {
            "ctr": click_loss(outputs.ctr, click),
            "cvr": self.risk.lambda_c * rows.risk,
            "ctcvr": self.risk.lambda_g * joint_loss(outputs.ctcvr, click, conversion),
        }
        if rows.imputation is not None:
            per_row[IMPUTATION] = self.risk.lambda_c * self.risk.imputation_weight * rows.imputation
        terms = {name: mean_over_exposures(each, batch.weight_of(name)) for name, each in per_row.items()}
        gates = gate_use(gates_of(outputs.extras), batch.weight)
        return Losses(terms, {**weights.diagnostics, **rows.diagnostics, **gates})

    def phases(self) -> tuple[Phase, ...]:
        """Return one step a batch, or the imputation's and then that of everything else."""
        if self.risk.updates == "joint":
            return super().phases()
        return alternating_phases(self.network, self.parameters(), ("ctr", "cvr", "ctcvr"))

    def shared_parameters(self) -> tuple[nn.Parameter, ...]:
        """Return the trunk's parameters."""
        return self.network.shared_parameters()


def _default_tower(trunk: TrunkName) -> Tower:
    return Tower((), (0.3,)) if trunk in ("mmoe", "ple") else Tower()
