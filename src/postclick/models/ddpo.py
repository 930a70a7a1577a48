"""DDPO: soft labels from a conversion propensity network, on clicked and unclicked rows, weighted on both sides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import Tensor, nn

from postclick.binding import Argument
from postclick.data.log import LogSpec
from postclick.losses.entire_space import click_loss, clicked_conversion_loss, joint_loss
from postclick.losses.probability import LogProbability
from postclick.losses.reduce import mean_over_exposures
from postclick.models.arguments import Biases, Interactions, Propensity, TrunkChoice, TrunkExperts
from postclick.models.base import Batch, Citation, ConversionModel, HeadKind, Losses, Outputs
from postclick.models.batching import batch_labels
from postclick.models.debiasing import check_propensity, propensities
from postclick.models.task_heads import product_outputs
from postclick.models.two_sided import TwoSidedRisk
from postclick.nn.attention_transfer import AttentionTransfer
from postclick.nn.experts import Experts, gate_use, gates_of
from postclick.nn.tower import Perceptron, Tower
from postclick.nn.trunk import TaskNetwork

__all__ = ["DDPO", "CausalTransfer", "DDPORisk"]

CONVERSION = "conversion"
"""Name of the conversion propensity's task, of its term, and of its logit among the extras."""


@dataclass(frozen=True)
class DDPORisk(TwoSidedRisk):
    """The four losses of DDPO.

    Parameters
    ----------
    self_normalise
        On, as in the paper: w1 inside the clicks, w0 inside the rest.
    lambda_o, lambda_c, lambda_t
        Weights of the losses of the click, of the conversion propensity and of the ctcvr.
    lambda_r
        Weight of the two-sided loss, on the scale of a mean over exposures. The authors' code has 1, but weights that
        sum to 1 and a mean over them: 1 / 2048 at its batch of 2,048.
    clicked_label
        ``soft``, the paper: r^c is the label of a clicked row without conversion, too. ``observed``: that row stays 0.

    Raises
    ------
    ValueError
        On a weight below 0.
    """

    self_normalise: Annotated[bool, Argument("weights of a side sum to the rows of the batch (SNIPS)")] = True
    lambda_o: Annotated[float, Argument("weight of the click's loss", low=0.0, high=5.0)] = 1.0
    lambda_c: Annotated[float, Argument("weight of the conversion propensity's loss", low=0.0, high=5.0)] = 1.0
    lambda_r: Annotated[float, Argument("weight of the two-sided loss", paper=1 / 2048, low=0.0, high=5.0)] = 0.1
    lambda_t: Annotated[float, Argument("weight of the ctcvr's loss", low=0.0, high=5.0)] = 1.0
    clicked_label: Annotated[Literal["soft", "observed"], Argument("label of a click without conversion")] = "soft"

    def __post_init__(self) -> None:
        super().__post_init__()
        weights = (self.lambda_o, self.lambda_c, self.lambda_r, self.lambda_t)
        if not all(0.0 <= weight < float("inf") for weight in weights):
            raise ValueError(f"lambda_o, lambda_c, lambda_r and lambda_t are at least 0, got {list(weights)}")

    def label(self, click: Tensor, conversion: Tensor, soft: Tensor) -> Tensor:
        """Return r*, [B]: 1 on a conversion, elsewhere r^c (or 0 on clicked rows: ``observed``)."""
        bought = click * conversion
        unknown = 1.0 - bought if self.clicked_label == "soft" else 1.0 - click
        return bought + unknown * soft


@dataclass(frozen=True)
class CausalTransfer:
    """What the CVR's tower takes over from the towers of the two propensities.

    Parameters
    ----------
    bias
        Whether queries, keys and values have one.
    dropout
        Rate after the layers that make the information.
    """

    bias: Annotated[bool, Argument("whether the attention's projections have a bias")] = True
    dropout: Annotated[float, Argument("rate after the information layers", low=0.0, high=0.5)] = 0.0


class TransferModules(nn.Module):
    """f_r <- relu(W [a(g_o(f_o), f_r), a(g_c(f_c), f_r)] + b), eqs. (12)-(14).

    Parameters
    ----------
    width
        H, of the three inputs and of the output.
    shape
        Bias and dropout.
    """

    def __init__(self, width: int, shape: CausalTransfer) -> None:
        super().__init__()
        layer = Tower((width,), (shape.dropout,))
        self.information = nn.ModuleDict({task: Perceptron(width, layer) for task in ("ctr", CONVERSION)})
        self.attention = nn.ModuleDict(
            {task: AttentionTransfer(width, bias=shape.bias) for task in ("ctr", CONVERSION)}
        )
        self.fuse = Perceptron(2 * width, Tower((width,), (0.0,)))

    def forward(self, click: Tensor, conversion: Tensor, own: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the fused f_r [B, H], and the weights of what was taken over and of f_r, [B, 2] a module."""
        parts, weights = [], {}
        for task, given in (("ctr", click), (CONVERSION, conversion)):
            part, weights[f"attention/{task}"] = self.attention[task](self.information[task](given), own)
            parts.append(part)
        return self.fuse(torch.cat(parts, dim=1)), weights


class DDPO(ConversionModel):
    r"""Direct Dual Propensity Optimization (DDPO).

    A conversion propensity network, fitted on clicks, labels the rows whose conversion is not known; the CVR learns
    from clicked and unclicked rows alike, each side weighted to stand for all exposures.

        L = lambda_o L_o + lambda_c L_c + lambda_r L_r + lambda_t L_t                                            (18)

        L_o = 1/|D| sum_D l(o, p)     L_t = 1/|D| sum_D l(o r, p q)     L_c = 1/|D| sum_D o l(r, r^c)    (16), (17), (6)
        L_r = 1/|D| sum_D (w1 + w0) l(r*, q)        r* = 1 if r = 1 else sg[r^c]                               (9), (10)

        w1 = o min(1 / max(sg[p], c1), cap)     w0 = (1 - o) min(1 / max(1 - sg[p], c0), cap)

    p, q, r^c are the sigmoids of the towers, o the click, r the conversion, l the cross-entropy, sg[.] the stopped
    gradient; sample weights s turn 1/\|D\| sum into sum s l / sum s. w1 is divided by its mean, and so is w0 (15).

    The towers' outputs f_o, f_c, f_r meet below the heads, in two causal transfer modules (12) to (14):

        f_r <- relu(W [a(g_o(f_o), f_r), a(g_c(f_c), f_r)])      a(e, f) = sum_u softmax_u(<q(u), k(u)> / sqrt(H)) v(u)

    over u in {e, f}, with g a layer with ReLU. They are not stopped: L_r and L_t move all towers, but not the heads of
    click and conversion. ``transfer=off`` leaves them out; the propensity's tower then feels nothing of L_r.

    What it estimates
        r^c and L_t estimate `cvr_click`. L_r does not: a click without conversion gets the label r^c, so the clicked
        side has the mean label c + (1 - c) c for a CVR of c, close to twice a small one. With the unclicked side, whose
        label c is right, L_r alone settles at (3 c - c^2) / 2, half again too high; L_t holds it back, the more so the
        smaller lambda_r is. ``risk.clicked_label="observed"`` makes L_r consistent: labels where there are any, the
        imputed CVR elsewhere.

    Departures
        lambda_r = 0.1, between the code's scale (1 / 2048) and the equations' (1); the search range there, 1e-4 to 5,
        is 5e-8 to .0024 here. Modules follow the towers (128-64-32), there the bottoms (128-64) below towers of 64-32.
        Floors are relative, a tenth of the share of either side (there 1e-6). Embedding size 8 for 5.

    Parameters
    ----------
    spec
        What is known of the log.
    propensity
        Where p in the weights comes from (`models.debiasing`).
    risk
        Weights of the losses, floors, cap, self-normalisation, label of clicked rows.
    transfer
        The causal transfer modules; None leaves them out. Trunk ``mf`` has no towers for them.
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

    Raises
    ------
    ValueError
        Where the log has no propensities for ``logged``, or modules meet the trunk ``mf``.

    References
    ----------
    Su et al., DDPO: Direct Dual Propensity Optimization for Post-Click Conversion Rate Estimation, SIGIR 2024.
    """

    citation = Citation(
        title="DDPO: Direct Dual Propensity Optimization for Post-Click Conversion Rate Estimation",
        authors="Hongzu Su, Lichao Meng, Lei Zhu, Ke Lu, Jingjing Li",
        venue="SIGIR",
        year=2024,
        link="https://doi.org/10.1145/3626772.3657817",
    )

    def __init__(
        self,
        spec: LogSpec,
        *,
        propensity: Propensity = "ctr",
        risk: Annotated[DDPORisk, Argument("the losses and how both sides are weighted")] = DDPORisk(),
        transfer: Annotated[
            CausalTransfer | None, Argument("what the CVR's tower takes over from the other two")
        ] = CausalTransfer(),
        trunk: TrunkChoice = "shared",
        experts: TrunkExperts = Experts(),  # noqa: B008 (frozen)
        tower: Annotated[Tower, Argument("hidden layers of each tower")] = Tower(),  # noqa: B008 (frozen)
        embedding_size: Annotated[int, Argument("width of an embedding", paper=5, low=4, high=64)] = 8,
        interaction: Interactions = None,
        biases: Biases = True,
    ) -> None:
        super().__init__(spec)
        check_propensity(propensity, spec)
        if transfer is not None and trunk == "mf":
            raise ValueError("trunk 'mf' has no towers for the transfer modules: set transfer = off")
        self.propensity, self.risk = propensity, risk
        self.network = TaskNetwork(
            spec.schema,
            spec.table_rows,
            {"ctr": spec.ctr, "cvr": spec.cvr, CONVERSION: spec.cvr},
            trunk=trunk,
            experts=experts,
            tower=tower,
            embedding_size=embedding_size,
            interaction=interaction,
            biases=biases,
        )
        width = tower.hidden[-1] if tower.hidden else self.network.trunk.width
        self.transfer = None if transfer is None else TransferModules(width, transfer)

    @property
    def heads(self) -> dict[str, HeadKind]:
        """All three are outputs of the system; cvr is the fused tower's, ctcvr the product it is trained on."""
        return {"ctr": "head", "cvr": "head", "ctcvr": "head"}

    @property
    def observed(self) -> tuple[tuple[str, str], ...]:
        """What the two unweighted terms observe: the noise of weights would choose the step."""
        return (("ctr", "exposure"), ("ctcvr", "exposure"))

    def forward(self, batch: Batch) -> Outputs:
        """Return ctr, cvr and their product; extras: the conversion propensity's logit, attention, gates."""
        attention: dict[str, Tensor] = {}
        transfer = self.transfer

        def exchange(hidden: dict[str, Tensor]) -> dict[str, Tensor]:
            if transfer is None:
                return hidden
            fused, weights = transfer(hidden["ctr"], hidden[CONVERSION], hidden["cvr"])
            attention.update(weights)
            return {**hidden, "cvr": fused}

        found = self.network(batch.features, exchange)
        return product_outputs(found, {CONVERSION: found.logits[CONVERSION], **attention})

    def loss(self, outputs: Outputs, batch: Batch) -> Losses:
        """Return the terms ``ctr``, ``conversion``, ``cvr`` and ``ctcvr``; weights and soft label are detached."""
        click, conversion = batch_labels(batch)
        ctr = outputs.ctr.detach() if self.risk.detach_propensity else outputs.ctr
        weights = self.risk.both_sides(
            click, propensities(self.propensity, ctr, batch, self.spec.ctr), self.spec.ctr, batch
        )
        propensity = LogProbability.from_logit(outputs.extras[CONVERSION])
        label = self.risk.label(click, conversion, propensity.log_p.exp().detach())
        per_row = {
            "ctr": self.risk.lambda_o * click_loss(outputs.ctr, click),
            CONVERSION: self.risk.lambda_c * clicked_conversion_loss(propensity, click, conversion),
            "cvr": self.risk.lambda_r * (weights.clicked + weights.unclicked) * outputs.cvr.cross_entropy(label),
            "ctcvr": self.risk.lambda_t * joint_loss(outputs.ctcvr, click, conversion),
        }
        terms = {name: mean_over_exposures(rows, batch.weight_of(name)) for name, rows in per_row.items()}
        gates = gate_use(gates_of(outputs.extras), batch.weight)
        taken = _taken_over(outputs.extras, batch.weight)
        return Losses(terms, {**weights.diagnostics, **taken, **gates})

    def shared_parameters(self) -> tuple[nn.Parameter, ...]:
        """Return what the towers share beside the table: nothing under the trunk ``shared``."""
        return self.network.shared_parameters()


@torch.no_grad()
def _taken_over(extras: Mapping[str, Tensor], weight: Tensor | None) -> dict[str, Tensor]:
    """Return the mean weight of what the CVR's tower takes over from each propensity, in [0, 1]."""
    tasks = [task for task in ("ctr", CONVERSION) if f"attention/{task}" in extras]
    return {f"transfer/{task}": mean_over_exposures(extras[f"attention/{task}"][:, 0], weight) for task in tasks}
