"""ESM2: Entire Space Multi-task Modeling via Post-Click Behavior Decomposition (Wen et al., SIGIR 2020)."""

from __future__ import annotations

from typing import Annotated, Literal

from torch import Tensor, nn

from postclick.binding import Argument
from postclick.data.log import LogSpec
from postclick.losses.entire_space import click_loss, joint_loss
from postclick.losses.probability import LogProbability
from postclick.losses.reduce import mean_over_exposures
from postclick.models.arguments import Biases, Interactions, TrunkExperts
from postclick.models.base import Batch, Citation, ConversionModel, HeadKind, Losses, Outputs
from postclick.models.batching import batch_action, batch_labels
from postclick.nn.experts import Experts, gate_use, gates_of
from postclick.nn.tower import Tower
from postclick.nn.trunk import TaskNetwork, TrunkName

__all__ = ["ESM2"]

Purchase = Literal["joint", "direct", "both", "global"]


class ESM2(ConversionModel):
    r"""Entire Space Multi-task Modeling via Post-Click Behavior Decomposition (ESM2).

    A click is followed by an in-shop action (cart, wish list) or by anything else, and a purchase may follow either.

        y1 = P(click | x)    y2 = P(action | click, x)    y3 = P(buy | action, x)    y4 = P(buy | other, x)

        ctr = y1    ctar = y1 y2    cvr = y2 y3 + (1 - y2) y4    ctcvr = y1 cvr

        L = w1/|D| sum_D l(o, y1) + w2/|D| sum_D l(o a, y1 y2) + w3/|D| sum_D l(o r, y1 cvr)

    Each y is the sigmoid of a tower's logit; l is the cross-entropy, a the action (it counts after a click only);
    sample weights turn 1/\|D\| sum into sum w l / sum w. Nothing is detached. The paper's objective does not fix what
    the four towers share; its own choice is one embedding table, ``trunk="shared"``.

    What it estimates
        `cvr` is P(conversion | click, x) by the law of total probability: consistent for `cvr_click` in a class that
        holds the true surfaces, whatever share of the purchases comes without an action. y3 and y4 are identified by
        their mixture alone: any pair on the line y2 y3 + (1 - y2) y4 = cvr fits ``ctcvr`` equally well.
        ``other_action=False`` is the chain ctcvr = y1 y2 y3. With y3 = P(buy | action, x) it misses
        P(click) P(buy and no action | click), the gap that Jiang et al. (2023) call probability space confusion: its
        mean over the observed one is the share of purchases with an action. ``purchase="direct"`` fits that y3. Under
        ``purchase="joint"`` y3 grows to P(buy | click, x) / P(action | click, x) where that is below 1 and hides the
        gap; it is then no probability of a purchase given the action.

    Departures
        Embedding size 8 (paper 128) and towers 128-64-32 (paper 512-256-128-32, dropout 0.5), so that all systems are
        compared at one size; one logit in place of the two-way softmax; products and the mixture are taken in log
        space. The paper sums over exposures, this averages. The direct purchase losses are not the paper's.

    Parameters
    ----------
    spec
        What is known of the log; it needs the action label.
    other_action
        False drops y4: the chain of three factors.
    purchase
        What fits y3 and y4. ``joint`` (the paper): the label o r through the product. ``direct``:
        1/\|D\| sum_D o a l(r, y3) + o (1 - a) l(r, y4) in place of the ctcvr term. ``both``: the two together, which
        tells y3 from y4. ``global`` (chain only): l(o r, y3) on every row with a = 1, clicked or not, the cart log
        whose actions were not joined to their click.
    weights
        w1, w2, w3 and the weight of the direct purchase loss.
    trunk
        What the tasks share; ``mf`` and ``ncf`` read the user and the item alone.
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
        Where the log has no action label, weights are not four numbers >= 0, or ``global`` meets `other_action`.

    References
    ----------
    Wen et al., Entire Space Multi-Task Modeling via Post-Click Behavior Decomposition, SIGIR 2020.
    """

    citation = Citation(
        title="Entire Space Multi-Task Modeling via Post-Click Behavior Decomposition for Conversion Rate Prediction",
        authors="Hong Wen, Jing Zhang, Yuan Wang, Fuyu Lv, Wentian Bao, Quan Lin, Keping Yang",
        venue="SIGIR",
        year=2020,
        link="https://arxiv.org/abs/1910.07099",
    )

    def __init__(
        self,
        spec: LogSpec,
        *,
        other_action: Annotated[bool, Argument("a purchase may come without an action; false is the chain")] = True,
        purchase: Annotated[Purchase, Argument("what fits the purchase factors")] = "joint",
        weights: Annotated[
            tuple[float, ...], Argument("weights of the terms ctr, ctar, ctcvr and the direct purchase")
        ] = (1.0, 1.0, 1.0, 1.0),
        trunk: Annotated[TrunkName, Argument("what the tasks share")] = "shared",
        experts: TrunkExperts = Experts(),  # noqa: B008 (frozen)
        tower: Annotated[
            Tower, Argument("hidden layers of each tower", paper={"hidden": (512, 256, 128, 32), "dropout": (0.5,)})
        ] = Tower(),  # noqa: B008 (frozen)
        embedding_size: Annotated[int, Argument("width of an embedding", paper=128, low=4, high=64)] = 8,
        interaction: Interactions = None,
        biases: Biases = True,
    ) -> None:
        super().__init__(spec)
        if len(weights) != 4 or min(weights) < 0:
            raise ValueError(f"weights are four numbers of at least 0, got {list(weights)}")
        if purchase == "global" and other_action:
            raise ValueError("purchase='global' is a factor of the chain: set other_action=false")
        self.other_action, self.purchase, self.weights = other_action, purchase, weights
        rates = {"ctr": spec.ctr, "action": spec.action, "purchase_action": spec.cvr}
        if other_action:
            rates["purchase_other"] = spec.cvr
        elif self._is_joint and spec.action > 0:
            rates["purchase_action"] = spec.cvr / spec.action  # so that the product starts at the base rate
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
    def _is_joint(self) -> bool:
        return self.purchase in ("joint", "both")

    @property
    def heads(self) -> dict[str, HeadKind]:
        """All five are outputs of the system; products and the mixture are what it is trained on."""
        return {"ctr": "head", "cvr": "head", "ctcvr": "head", "action": "head", "ctar": "head"}

    @property
    def observed(self) -> tuple[tuple[str, str], ...]:
        """What the three terms of the loss observe, all over exposures.

        A chain with a factor of another space stops by the first two: the third would keep the step at which an
        unfinished factor hides the gap best.
        """
        trained = (("ctr", "exposure"), ("ctar", "exposure"))
        return trained if self.purchase == "global" else (*trained, ("ctcvr", "exposure"))

    def forward(self, batch: Batch) -> Outputs:
        """Return the heads; the extras hold the logits of y3 and y4, and gates where the trunk has them."""
        found = self.network(batch.features)
        factors = {task: LogProbability.from_logit(logit) for task, logit in found.logits.items()}  # [B] each
        ctr, action, cvr = factors["ctr"], factors["action"], factors["purchase_action"]
        cvr = action.mixture(cvr, factors["purchase_other"]) if self.other_action else action * cvr
        purchases = {task: logit for task, logit in found.logits.items() if task.startswith("purchase")}
        extras = {**purchases, **found.gate_extras()}
        return Outputs(ctr, cvr, ctcvr=ctr * cvr, action=action, ctar=ctr * action, extras=extras)

    def loss(self, outputs: Outputs, batch: Batch) -> Losses:
        """Return the terms ``ctr``, ``ctar``, ``ctcvr`` (and ``purchase``), averaged over exposures, none detached."""
        click, conversion = batch_labels(batch)
        action = batch_action(batch)
        assert outputs.ctar is not None
        per_row = {
            "ctr": self.weights[0] * click_loss(outputs.ctr, click),
            "ctar": self.weights[1] * joint_loss(outputs.ctar, click, action),
        }
        if self._is_joint:
            per_row["ctcvr"] = self.weights[2] * joint_loss(outputs.ctcvr, click, conversion)
        if self.purchase != "joint":
            per_row["purchase"] = self.weights[3] * self._purchase_loss(outputs, click, action, conversion)
        terms = {name: mean_over_exposures(rows, batch.weight_of(name)) for name, rows in per_row.items()}
        return Losses(terms, gate_use(gates_of(outputs.extras), batch.weight))

    def _purchase_loss(self, outputs: Outputs, click: Tensor, action: Tensor, conversion: Tensor) -> Tensor:
        """Return o a l(r, y3) + o (1 - a) l(r, y4), or a l(o r, y3) for ``global``, [B]."""
        bought = click * conversion
        with_action = LogProbability.from_logit(outputs.extras["purchase_action"]).cross_entropy(bought)
        if self.purchase == "global":
            return action * with_action
        if not self.other_action:
            return click * action * with_action
        without = LogProbability.from_logit(outputs.extras["purchase_other"]).cross_entropy(bought)
        return click * (action * with_action + (1.0 - action) * without)

    def shared_parameters(self) -> tuple[nn.Parameter, ...]:
        """Return the trunk's parameters."""
        return self.network.shared_parameters()
