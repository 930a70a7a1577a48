"""ESMC, ESMS and ESMG (Jiang et al., 2023): one paper, three systems, reconstructed.

No source that could be read holds the paper's formulas, its constraint or its hyper-parameters. What follows is the
plainest reading of the abstract: exposure -> click -> action by conditional probability, the purchase by a tower whose
parameters are constrained towards the action's tower, and composed right after the click, so that no step assumes a
purchase to go through an action.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Annotated

from postclick.binding import Argument
from postclick.data.log import LogSpec
from postclick.losses.constraints import tower_distance
from postclick.losses.entire_space import click_loss, joint_loss
from postclick.losses.probability import LogProbability
from postclick.losses.reduce import mean_over_exposures
from postclick.models.arguments import EmbeddingSize, Interactions
from postclick.models.base import Batch, Citation, ConversionModel, HeadKind, Losses, Outputs
from postclick.models.batching import batch_action, batch_labels
from postclick.nn.embedding import FeatureEncoder
from postclick.nn.interaction import Interaction
from postclick.nn.tower import Head, Perceptron, Tower

__all__ = ["ESMC", "ESMG", "ESMS"]

Constraint = Annotated[float, Argument("lambda, weight of the squared distance of the twin towers", low=0.0)]
Layers = Annotated[Tower, Argument("hidden layers of each tower")]
Weights = Annotated[tuple[float, ...], Argument("weights of the terms ctr, ctar, ctcvr")]


class InShopPath(ConversionModel):
    """What the three systems have in common: one embedding, a CTR tower, twin towers, three exposure-level losses.

    Parameters
    ----------
    spec
        What is known of the log.
    rates
        Base rates of what the action's head and the purchase's head estimate.
    embedding_size, tower, weights, interaction
        As in the systems.
    constraint
        lambda; None ties the hidden layers of the twins: one tower under two heads.
    """

    citation = Citation(
        title="ESMC: Entire Space Multi-Task Model for Post-Click Conversion Rate via Parameter Constraint",
        authors="Zhenhao Jiang, Biao Zeng, Hao Feng, Jin Liu, Jicong Fan, Jie Zhang, Jia Jia, Ning Hu, Xingyu Chen, "
        "Xuguang Lan",
        venue="arXiv",
        year=2023,
        link="https://arxiv.org/abs/2307.09193",
    )

    def __init__(
        self,
        spec: LogSpec,
        rates: tuple[float, float],
        *,
        embedding_size: int,
        tower: Tower,
        weights: tuple[float, ...],
        constraint: float | None,
        interaction: Interaction | None,
    ) -> None:
        super().__init__(spec)
        if len(weights) != 3 or min(*weights, constraint or 0.0) < 0:
            raise ValueError(f"weights are three numbers of at least 0, got {list(weights)}, constraint {constraint}")
        self.weights, self.constraint = weights, constraint
        self.encoder = FeatureEncoder(spec.schema, spec.table_rows, embedding_size, interaction=interaction)
        self.ctr_tower = Perceptron(self.encoder.width, tower)
        self.ctr_head = Head(self.ctr_tower.width, spec.ctr)
        self.action_tower = Perceptron(self.encoder.width, tower)
        # Twins start equal: the constraint costs nothing until the data pull them apart.
        self.purchase_tower = None if constraint is None else deepcopy(self.action_tower)
        self.action_head = Head(self.action_tower.width, rates[0])
        self.purchase_head = Head(self.action_tower.width, rates[1])

    @property
    def heads(self) -> dict[str, HeadKind]:
        """All five are outputs of the system; products are what it is trained on."""
        return {"ctr": "head", "cvr": "head", "ctcvr": "head", "action": "head", "ctar": "head"}

    @property
    def observed(self) -> tuple[tuple[str, str], ...]:
        """What the three terms of the loss observe, all over exposures."""
        return (("ctr", "exposure"), ("ctar", "exposure"), ("ctcvr", "exposure"))

    def probabilities(self, batch: Batch) -> tuple[LogProbability, LogProbability, LogProbability]:
        """Return what the heads of the click, the action and the purchase say, [B] each."""
        v = self.encoder(batch.features)  # [B, D]
        hidden = self.action_tower(v)
        twin = hidden if self.purchase_tower is None else self.purchase_tower(v)
        logits = self.ctr_head(self.ctr_tower(v)), self.action_head(hidden), self.purchase_head(twin)
        click, action, purchase = (LogProbability.from_logit(logit) for logit in logits)
        return click, action, purchase

    def loss(self, outputs: Outputs, batch: Batch) -> Losses:
        """Return ``ctr``, ``ctar``, ``ctcvr``, averaged over exposures, nothing detached, and ``constraint``."""
        click, conversion = batch_labels(batch)
        action = batch_action(batch)
        assert outputs.ctar is not None
        per_row = {
            "ctr": self.weights[0] * click_loss(outputs.ctr, click),
            "ctar": self.weights[1] * joint_loss(outputs.ctar, click, action),
            "ctcvr": self.weights[2] * joint_loss(outputs.ctcvr, click, conversion),
        }
        terms = {name: mean_over_exposures(rows, batch.weight_of(name)) for name, rows in per_row.items()}
        if self.constraint and self.purchase_tower is not None:
            terms["constraint"] = self.constraint * tower_distance(self.action_tower, self.purchase_tower)
        return Losses(terms)


class ESMC(InShopPath):
    r"""Entire Space Multi-Task Model via Parameter Constraint (ESMC), reconstructed.

    The action is a step after the click, and so is the purchase: it is not conditioned on the action. The tower of the
    purchase learns from the action, of which there are more, by being held close to the action's tower.

        y1 = P(click | x)    y2 = P(action | click, x)    y3 = P(conversion | click, x)

        ctr = y1    ctar = y1 y2    cvr = y3    ctcvr = y1 y3

        L = w1/|D| sum_D l(o, y1) + w2/|D| sum_D l(o a, y1 y2) + w3/|D| sum_D l(o r, y1 y3) + lambda Omega

        Omega = sum over hidden layers of ||W_a - W_b||_F^2 + ||c_a - c_b||^2

    W_a, c_a are weights and biases of the action's tower, W_b, c_b of the purchase's; the two heads stay apart. l is
    the cross-entropy, a the action (it counts after a click only); sample weights turn 1/\|D\| sum into
    sum w l / sum w. Nothing is detached.

    What it estimates
        `cvr` is P(conversion | click, x), as ESMM's: no purchase is required to go through the action, so there is no
        gap at any rate of purchases without one. The action serves the purchase as a related task. With lambda = 0 the
        gradients of ``ctr`` and ``ctcvr`` are ESMM's; with lambda towards infinity it becomes ESMS. The constraint is
        a bias towards "what leads to an action leads to a purchase", worth its price where purchases are rare.

    Departures
        Everything but the abstract is a reconstruction: formulas, constraint, weights and sizes are in no source that
        was found. The constraint holds biases too, so that its limit is ESMS; twins start equal; lambda = 1e-3 on the
        scale of a loss averaged over exposures.

    Parameters
    ----------
    spec
        What is known of the log; it needs the action label.
    constraint
        lambda; 0 leaves the twins free.
    weights
        w1, w2, w3.
    tower
        Hidden layers of each tower.
    embedding_size
        E, the width of a table row.
    interaction
        Products of features that join the input of the towers; None leaves them to the towers.

    Raises
    ------
    ValueError
        Where the log has no action label, or a weight is negative.

    References
    ----------
    Jiang et al., ESMC, arXiv 2307.09193, 2023 (abstract).
    """

    def __init__(
        self,
        spec: LogSpec,
        *,
        constraint: Constraint = 1e-3,
        weights: Weights = (1.0, 1.0, 1.0),
        tower: Layers = Tower(),  # noqa: B008 (frozen)
        embedding_size: EmbeddingSize = 8,
        interaction: Interactions = None,
    ) -> None:
        rates = (spec.action, spec.cvr)
        super().__init__(
            spec,
            rates,
            embedding_size=embedding_size,
            tower=tower,
            weights=weights,
            constraint=constraint,
            interaction=interaction,
        )

    def forward(self, batch: Batch) -> Outputs:
        """Return the heads and the products with the CTR."""
        return composed(*self.probabilities(batch))


class ESMS(InShopPath):
    r"""Entire Space Multi-Task Model with Siamese Network (ESMS), reconstructed.

    ESMC with the hidden layers of action and purchase tied: one tower under two heads.

        y1 = P(click | x)    y2 = sigmoid(w_a h + b_a)    y3 = sigmoid(w_b h + b_b)    h = tower(v)

        ctr = y1    ctar = y1 y2    cvr = y3    ctcvr = y1 y3

        L = w1/|D| sum_D l(o, y1) + w2/|D| sum_D l(o a, y1 y2) + w3/|D| sum_D l(o r, y1 y3)

    l is the cross-entropy, a the action (it counts after a click only); sample weights turn 1/\|D\| sum into
    sum w l / sum w. Nothing is detached.

    What it estimates
        `cvr` is P(conversion | click, x), without a gap at any rate of purchases without an action, in a class where
        action and purchase are two linear readings of one hidden layer. It equals ESMC's loss with equal towers at any
        lambda, and is ESMC's limit for lambda towards infinity.

    Departures
        Everything but the abstract is a reconstruction. A distance between the two outputs, which a Siamese network may
        also have, is left out: it would pull the CVR towards the action rate.

    Parameters
    ----------
    spec
        What is known of the log; it needs the action label.
    weights
        w1, w2, w3.
    tower
        Hidden layers of each tower.
    embedding_size
        E, the width of a table row.
    interaction
        Products of features that join the input of the towers; None leaves them to the towers.

    Raises
    ------
    ValueError
        Where the log has no action label, or a weight is negative.

    References
    ----------
    Jiang et al., ESMC, arXiv 2307.09193, 2023 (abstract).
    """

    def __init__(
        self,
        spec: LogSpec,
        *,
        weights: Weights = (1.0, 1.0, 1.0),
        tower: Layers = Tower(),  # noqa: B008 (frozen)
        embedding_size: EmbeddingSize = 8,
        interaction: Interactions = None,
    ) -> None:
        rates = (spec.action, spec.cvr)
        super().__init__(
            spec,
            rates,
            embedding_size=embedding_size,
            tower=tower,
            weights=weights,
            constraint=None,
            interaction=interaction,
        )

    def forward(self, batch: Batch) -> Outputs:
        """Return the heads and the products with the CTR."""
        return composed(*self.probabilities(batch))


class ESMG(InShopPath):
    r"""Entire Space Multi-Task Model in Global Domain (ESMG), reconstructed.

    Every head speaks of exposures, so no probability is conditioned on anything and no chain is formed.

        g1 = P(click | x)    g2 = P(click and action | x)    g3 = P(click and conversion | x)

        ctr = g1    ctar = g2    ctcvr = g3    cvr = g3 / g1    action = g2 / g1

        L = w1/|D| sum_D l(o, g1) + w2/|D| sum_D l(o a, g2) + w3/|D| sum_D l(o r, g3) + lambda Omega

        Omega = sum over hidden layers of ||W_a - W_b||_F^2 + ||c_a - c_b||^2

    l is the cross-entropy, a the action (it counts after a click only), Omega the distance between the towers of g2
    and g3; sample weights turn 1/\|D\| sum into sum w l / sum w. Nothing is detached.

    What it estimates
        `ctcvr` over all exposures, consistent in a class that holds the true surface. `cvr` and `action` are quotients
        of separate towers, clipped below 1, unstable where the CTR is small: flagged ``derived`` and never called
        best. ctcvr <= ctr is not promised; rows that break it are counted.

    Departures
        Everything but the abstract is a reconstruction; the constraint is that of ESMC.

    Parameters
    ----------
    spec
        What is known of the log; it needs the action label.
    constraint
        lambda; 0 leaves the twins free.
    weights
        w1, w2, w3.
    tower
        Hidden layers of each tower.
    embedding_size
        E, the width of a table row.
    interaction
        Products of features that join the input of the towers; None leaves them to the towers.

    Raises
    ------
    ValueError
        Where the log has no action label, or a weight is negative.

    References
    ----------
    Jiang et al., ESMC, arXiv 2307.09193, 2023 (abstract).
    """

    def __init__(
        self,
        spec: LogSpec,
        *,
        constraint: Constraint = 1e-3,
        weights: Weights = (1.0, 1.0, 1.0),
        tower: Layers = Tower(),  # noqa: B008 (frozen)
        embedding_size: EmbeddingSize = 8,
        interaction: Interactions = None,
    ) -> None:
        rates = (spec.action * spec.ctr, spec.ctcvr)
        super().__init__(
            spec,
            rates,
            embedding_size=embedding_size,
            tower=tower,
            weights=weights,
            constraint=constraint,
            interaction=interaction,
        )

    @property
    def heads(self) -> dict[str, HeadKind]:
        """Three heads over exposures; what is conditioned on the click is derived."""
        return {**super().heads, "cvr": "derived", "action": "derived"}

    def forward(self, batch: Batch) -> Outputs:
        """Return the heads and their quotients by the CTR."""
        ctr, ctar, ctcvr = self.probabilities(batch)
        return Outputs(ctr, ctcvr.quotient(ctr), ctcvr, action=ctar.quotient(ctr), ctar=ctar)


def composed(ctr: LogProbability, action: LogProbability, cvr: LogProbability) -> Outputs:
    """Return what follows the click and its products with the CTR."""
    return Outputs(ctr, cvr, ctcvr=ctr * cvr, action=action, ctar=ctr * action)
