"""MLP: two separate networks, the baseline of every table."""

from __future__ import annotations

from typing import Annotated, Literal

from postclick.binding import Argument
from postclick.data.log import LogSpec
from postclick.losses.entire_space import click_loss, clicked_conversion_loss, joint_loss
from postclick.losses.probability import LogProbability
from postclick.losses.reduce import mean_over_exposures
from postclick.models.base import Batch, Citation, ConversionModel, HeadKind, Losses, Outputs
from postclick.models.batching import batch_labels
from postclick.nn.interaction import Interaction
from postclick.nn.tower import Tower
from postclick.nn.trunk import TaskNetwork

__all__ = ["MLP"]


class MLP(ConversionModel):
    r"""Single-task networks (MLP), the baseline.

    Two networks that share nothing, one for the click and one for the conversion.

    With v = the concatenated embeddings and features of x, each network having its own table,

        h = dropout(relu(W3 dropout(relu(W2 dropout(relu(W1 v))))))        f(x) = sigmoid(w . h + b)

        L = 1/|D| sum_D l(o, p)  +  one of
            conversion="click":     1/|D| sum_D o l(r, q)       q = f is P(conversion | click, x), ctcvr = p q
            conversion="exposure":  1/|D| sum_D l(o r, s)       s = f is P(click and conversion | x), cvr = s / p

    l is the cross-entropy; sample weights w turn 1/\|D\| sum into sum w l / sum w over the exposures.

    What it estimates
        ``click`` estimates `cvr_click` on the clicked rows it sees. Over the entire exposure space it extrapolates: it
        is consistent where the networks can hold the true surface and every exposure could have been clicked; a
        network too small for the surface fits the clicked region and is wrong elsewhere (sample selection bias), and
        it sees few rows (data sparsity). ``exposure`` is consistent for CTCVR on all exposures; its `cvr` is the
        DIVISION baseline of Ma et al. (2018): a quotient of two independent networks, clipped below 1, unstable where
        p is small, flagged ``derived`` and never called best.

    Departures
        Embedding size 8 for the 5 of the tables that quote "MLP" (they have 18 fields and compare at equal size). The
        papers leave open whether their purchase row saw clicks or all exposures; AITM's code trains on all
        exposures with the joint label, which is ``exposure``. The click loss is divided by exposures, not by clicks:
        against a mean over clicks it is smaller by the click rate, which Adam does not feel.

    Parameters
    ----------
    spec
        What is known of the log.
    conversion
        What the second network is trained on.
    embedding_size
        E, the width of a table row.
    tower
        Hidden layers of each network.
    interaction
        Products of features that each network reads beside them; None forms none.
    trunk
        ``shared`` reads all features. ``mf`` makes each network the dot product of a user and an item, u . i plus
        biases: on ratings this is MF, the naive baseline of the debiasing papers. ``ncf`` is a tower over user, item
        and their product.
    biases
        False takes user, item and global biases from ``mf``, as the papers have it.

    References
    ----------
    Xi et al., KDD 2021 (Appendix A, Table 4); Ouyang et al., ECML-PKDD 2023 (Table 2).
    """

    citation = Citation(
        title="Modeling the Sequential Dependence among Audience Multi-step Conversions with Multi-task Learning in "
        "Targeted Display Advertising",
        authors="Dongbo Xi, Zhen Chen, Peng Yan, Yinger Zhang, Yongchun Zhu, Fuzhen Zhuang, Yu Chen",
        venue="KDD",
        year=2021,
        link="https://arxiv.org/abs/2105.08489",
    )

    def __init__(
        self,
        spec: LogSpec,
        *,
        conversion: Annotated[
            Literal["click", "exposure"],
            Argument("train the conversion network on clicked rows (CVR) or all exposures (CTCVR)", paper="exposure"),
        ] = "click",
        embedding_size: Annotated[int, Argument("width of an embedding", paper=5, low=4, high=64)] = 8,
        tower: Annotated[Tower, Argument("hidden layers of each network")] = Tower(),  # noqa: B008 (frozen)
        interaction: Annotated[Interaction | None, Argument("products of features beside the features")] = None,
        trunk: Annotated[
            Literal["shared", "mf", "ncf"], Argument("what a network reads: all features, or user and item alone")
        ] = "shared",
        biases: Annotated[bool, Argument("user, item and global biases of mf")] = True,
    ) -> None:
        super().__init__(spec)
        self.conversion = conversion

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
        self.conversion_network = network("conversion", spec.cvr if conversion == "click" else spec.ctcvr)

    @property
    def heads(self) -> dict[str, HeadKind]:
        """The cvr is derived where the conversion network estimates CTCVR."""
        return {"ctr": "head", "cvr": "head" if self.conversion == "click" else "derived", "ctcvr": "head"}

    @property
    def observed(self) -> tuple[tuple[str, str], ...]:
        """The CTR over exposures, and what the conversion network was trained on."""
        conversion = ("cvr", "click") if self.conversion == "click" else ("ctcvr", "exposure")
        return (("ctr", "exposure"), conversion)

    def forward(self, batch: Batch) -> Outputs:
        """Return ctr, cvr, ctcvr."""
        ctr = LogProbability.from_logit(self.ctr_network(batch.features).logits["ctr"])  # [B]
        conversion = LogProbability.from_logit(self.conversion_network(batch.features).logits["conversion"])
        if self.conversion == "click":
            return Outputs(ctr, cvr=conversion, ctcvr=ctr * conversion)
        return Outputs(ctr, cvr=conversion.quotient(ctr), ctcvr=conversion)

    def loss(self, outputs: Outputs, batch: Batch) -> Losses:
        """Return the terms ``ctr`` and ``cvr`` (or ``ctcvr``); no gradient crosses from one network to the other."""
        click, conversion = batch_labels(batch)
        terms = {"ctr": mean_over_exposures(click_loss(outputs.ctr, click), batch.weight)}
        if self.conversion == "click":
            per_row = clicked_conversion_loss(outputs.cvr, click, conversion)
            terms["cvr"] = mean_over_exposures(per_row, batch.weight)
        else:
            per_row = joint_loss(outputs.ctcvr, click, conversion)
            terms["ctcvr"] = mean_over_exposures(per_row, batch.weight)
        return Losses(terms)
