"""AITM: each step of the path reads what the step before hands on, weighed by attention."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor, nn

from postclick.binding import Argument
from postclick.data.log import LogSpec
from postclick.losses.constraints import expectation_calibrator
from postclick.losses.entire_space import click_loss, joint_loss
from postclick.losses.probability import LogProbability
from postclick.losses.reduce import mean_over_exposures
from postclick.models.arguments import Interactions
from postclick.models.base import Batch, Citation, ConversionModel, HeadKind, Losses, Outputs
from postclick.models.batching import batch_labels
from postclick.nn.attention_transfer import AttentionTransfer
from postclick.nn.embedding import FeatureEncoder
from postclick.nn.tower import Head, Perceptron, Tower

__all__ = ["AITM"]


class AITM(ConversionModel):
    r"""Adaptive Information Transfer Multi-task (AITM).

    Two towers on one embedding table. The click tower hands information on; the conversion tower takes in as much of it
    as attention says, row by row, and predicts click and conversion together, with no product.

        q_1 = tower_1(v)      q_2 = tower_2(v)      p_1 = dropout(relu(W q_1 + b))                             (1), (2)
        z_2 = sum_u w_u h1(u), u in {p_1, q_2}      w = softmax_u(<h2(u), h3(u)> / sqrt(H))                    (3)-(5)
        p = sigmoid(a_1 . q_1 + b_1) is P(click | x)      s = sigmoid(a_2 . z_2 + b_2) is P(click and conversion | x)

        L = 1/|D| sum_D [ l(o, p) + l(o r, s) ]  +  calibrator * 1/|D| sum_D max(s - p, 0)                     (8)-(10)

    l is the cross-entropy, v the embedding, h1 to h3 linear without bias; sample weights w turn 1/\|D\| sum into
    sum w l / sum w. The last term, the behavioural expectation calibrator, moves both heads apart where the joint event
    came out likelier than the click. Nothing is detached: the conversion loss moves the click tower through p_1.

    What it estimates
        `ctcvr` is consistent for P(click and conversion | x) on all exposures in a class that holds the true surface.
        Nothing forces s <= p: rows that break it are counted. `cvr` = s / p is a quotient of two heads, clipped below
        1, unstable where p is small, flagged ``derived`` and never called best.

    Departures
        This is the authors' code (mean calibrator, projections without bias, a ReLU information layer with dropout);
        the text leaves the activations open. Embedding size 8 for their 5. L2 falls on the table rows of a batch and on
        h1 to h3, as theirs does, at the strength that training sets. Rows with a conversion but no click stay, with the
        label 0 (views through), where the authors drop them.

    Parameters
    ----------
    spec
        What is known of the log.
    embedding_size
        E, the width of a table row.
    tower
        Hidden layers of each tower; H is the width of the last one.
    information_dropout
        Rate after the information layer.
    attention_bias
        True gives h1, h2, h3 a bias, as some public versions do.
    calibrator
        Weight of the calibrator; 0 leaves it out.
    interaction
        Products of features that the towers read beside the features; off in the paper.

    Raises
    ------
    ValueError
        On a calibrator weight below 0 or a rate outside [0, 1).

    References
    ----------
    Xi et al., KDD 2021.
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
        embedding_size: Annotated[int, Argument("width of an embedding", paper=5, low=4, high=64)] = 8,
        tower: Annotated[Tower, Argument("hidden layers of each tower")] = Tower(),  # noqa: B008 (frozen)
        information_dropout: Annotated[float, Argument("rate after the information layer", low=0.0, high=0.5)] = 0.3,
        attention_bias: Annotated[bool, Argument("whether the projections of the attention have a bias")] = False,
        calibrator: Annotated[float, Argument("weight of max(ctcvr - ctr, 0); 0: off", low=0.0, high=1.0)] = 0.6,
        interaction: Interactions = None,
    ) -> None:
        super().__init__(spec)
        if not 0.0 <= calibrator < float("inf"):
            raise ValueError(f"the weight of the calibrator is at least 0, got {calibrator}")
        self.calibrator = calibrator
        self.encoder = FeatureEncoder(spec.schema, spec.table_rows, embedding_size, interaction=interaction)
        self.ctr_tower = Perceptron(self.encoder.width, tower)
        width = self.ctr_tower.width
        self.ctr_head = Head(width, spec.ctr)
        self.ctcvr_tower = Perceptron(self.encoder.width, tower)
        self.information = Perceptron(width, Tower((width,), (information_dropout,)))
        self.transfer = AttentionTransfer(width, bias=attention_bias)
        self.ctcvr_head = Head(width, spec.ctcvr)

    @property
    def heads(self) -> dict[str, HeadKind]:
        """The cvr is derived: a quotient of the other two."""
        return {"ctr": "head", "cvr": "derived", "ctcvr": "head"}

    @property
    def observed(self) -> tuple[tuple[str, str], ...]:
        """What the two cross-entropies observe."""
        return (("ctr", "exposure"), ("ctcvr", "exposure"))

    def forward(self, batch: Batch) -> Outputs:
        """Return ctr, cvr, ctcvr; the extra ``attention/ctcvr`` [B, 2] weighs p_1 and q_2."""
        v = self.encoder(batch.features)  # [B, D]
        clicked = self.ctr_tower(v)  # [B, H]
        both, attention = self.transfer(self.information(clicked), self.ctcvr_tower(v))
        ctr = LogProbability.from_logit(self.ctr_head(clicked))  # [B]
        ctcvr = LogProbability.from_logit(self.ctcvr_head(both))
        return Outputs(ctr, cvr=ctcvr.quotient(ctr), ctcvr=ctcvr, extras={"attention/ctcvr": attention})

    def loss(self, outputs: Outputs, batch: Batch) -> Losses:
        """Return the terms ``ctr``, ``ctcvr`` and ``calibrator``; diagnostics: the weight on p_1, rows with s > p."""
        click, conversion = batch_labels(batch)
        rows = {
            "ctr": click_loss(outputs.ctr, click),
            "ctcvr": joint_loss(outputs.ctcvr, click, conversion),
        }
        if self.calibrator:
            rows["calibrator"] = self.calibrator * expectation_calibrator(outputs.ctcvr, outputs.ctr)
        terms = {name: mean_over_exposures(per_row, batch.weight_of(name)) for name, per_row in rows.items()}
        return Losses(terms, self._diagnostics(outputs, batch.weight))

    @torch.no_grad()
    def _diagnostics(self, outputs: Outputs, weight: Tensor | None) -> dict[str, Tensor]:
        above = (outputs.ctcvr.log_p > outputs.ctr.log_p).to(outputs.ctr.log_p.dtype)
        return {
            "transfer/ctcvr": mean_over_exposures(outputs.extras["attention/ctcvr"][:, 0], weight),
            "ctcvr_above_ctr": mean_over_exposures(above, weight),
        }

    def regularised_parameters(self) -> tuple[nn.Parameter, ...]:
        """Return h1, h2 and h3: what L2 falls on in the authors' code, beside the table rows of a batch."""
        return tuple(weights for name, weights in self.transfer.named_parameters() if name.endswith("weight"))

    def shared_parameters(self) -> tuple[nn.Parameter, ...]:
        """Return the click tower, and what the encoder has beside the table: what both cross-entropies move."""
        return (*self.encoder.dense_parameters(), *self.ctr_tower.parameters())
