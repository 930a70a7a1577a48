"""MLP: two separate networks, the baseline of every table."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import Tensor

from postclick.binding import Argument
from postclick.data.log import LogSpec
from postclick.losses.entire_space import click_loss, joint_loss
from postclick.losses.probability import LogProbability
from postclick.losses.propensity import RELATIVE_FLOOR, absolute_floor, clipped_inverse
from postclick.losses.reduce import mean_over_exposures
from postclick.models.arguments import Interactions
from postclick.models.base import Batch, Citation, ConversionModel, HeadKind, Losses, Outputs
from postclick.models.batching import batch_labels
from postclick.nn.tower import Tower
from postclick.nn.trunk import TaskNetwork

__all__ = ["MLP", "ClickSpace", "Sampling"]

ClickSpace = Literal["click", "aman", "oversample", "unbias"]
_COPIED = "copied"
_READ = {"aman": {"negative_rate"}, "oversample": {"copies", "undo_copies"}, "unbias": {"propensity_floor"}}


@dataclass(frozen=True)
class Sampling:
    """How rows are drawn for the conversion network in a click space other than ``click``.

    Parameters
    ----------
    negative_rate
        ``aman``: share of the unclicked rows that count as negatives.
    copies
        ``oversample``: how often a converted row counts.
    undo_copies
        ``oversample``: scores have their odds divided by `copies`, as the copies multiplied them.
    propensity_floor
        ``unbias``: CTR, times the training log's, at and under which every click is accepted.

    Raises
    ------
    ValueError
        On a rate outside (0, 1], fewer copies than 1, or a floor outside (0, 1].
    """

    negative_rate: Annotated[float, Argument("aman: share of unclicked rows that are negatives", low=0.1, high=1.0)] = (
        0.2
    )
    copies: Annotated[float, Argument("oversample: times a converted row counts", low=2.0, high=10.0)] = 3.0
    undo_copies: Annotated[bool, Argument("oversample: divide the odds of scores by the copies", paper=False)] = True
    propensity_floor: Annotated[float, Argument("unbias: CTR, times the log's, under which all clicks are kept")] = (
        RELATIVE_FLOOR
    )

    def __post_init__(self) -> None:
        if not (0.0 < self.negative_rate <= 1.0 and 0.0 < self.propensity_floor <= 1.0):
            got = f"got {self.negative_rate} and {self.propensity_floor}"
            raise ValueError(f"negative_rate and propensity_floor lie in (0, 1], {got}")
        if not 1.0 <= self.copies < math.inf:
            raise ValueError(f"copies are at least 1, got {self.copies}")

    def check(self, space: ClickSpace) -> None:
        """Refuse settings that a click space does not read.

        Raises
        ------
        ValueError
            Naming them.
        """
        names = sorted(set[str]().union(*_READ.values()) - _READ.get(space, set()))
        idle = [f"sampling.{name}" for name in names if getattr(self, name) != getattr(Sampling, name)]
        if idle:
            raise ValueError(f"click_space {space!r} does not read {', '.join(idle)}")

    def rate(self, space: ClickSpace, spec: LogSpec) -> float:
        """Return the rate of conversions among the rows as they count, where the network starts."""
        rows, positives = spec.clicks, spec.conversions
        if space == "aman":
            rows += self.negative_rate * (spec.rows - spec.clicks)
        elif space == "oversample":
            rows += (self.copies - 1.0) * positives
            positives *= self.copies
        return positives / rows if rows > 0.0 else 0.0


class MLP(ConversionModel):
    r"""Single-task networks (MLP), the baseline.

    Two networks that share nothing, one for the click and one for the conversion.

    With v = the concatenated embeddings and features of x, each network having its own table,

        h = dropout(relu(W3 dropout(relu(W2 dropout(relu(W1 v))))))        f(x) = sigmoid(w . h + b)

        L = 1/|D| sum_D l(o, p)  +  one of
            conversion="click":     1/|D| sum_D o l(r, q)       q = f is P(conversion | click, x), ctcvr = p q
            conversion="exposure":  1/|D| sum_D l(o r, s)       s = f is P(click and conversion | x), cvr = s / p

    l is the cross-entropy; sample weights w turn 1/\|D\| sum into sum w l / sum w over the exposures.

    With ``conversion="click"``, `click_space` says which rows the second network sees, 1/|D| sum_D c l(o r, f):

        click        c = o                                                     f is q
        aman         c = o + (1 - o) b,      b ~ Bernoulli(negative_rate)      f = p q / (p + rate (1 - p))
        oversample   c = o (1 + (copies - 1) r)                                odds of f = copies * odds of q
        unbias       c = o b / c0,  b ~ Bernoulli(c0 / max(p, c0))             f is q; c0 = floor * the log's CTR

    b is drawn anew each time a row is seen, while training; in evaluation mode it is its own expectation.

    What it estimates
        ``click`` estimates `cvr_click` on the clicked rows it sees. Over the entire exposure space it extrapolates: it
        is consistent where the networks can hold the true surface and every exposure could have been clicked; a
        network too small for the surface fits the clicked region and is wrong elsewhere (sample selection bias), and
        it sees few rows (data sparsity). ``exposure`` is consistent for CTCVR on all exposures; its `cvr` is the
        DIVISION baseline of Ma et al. (2018): a quotient of two independent networks, clipped below 1, unstable where
        p is small, flagged ``derived`` and never called best.

        Three more baselines of that paper are click spaces. ``aman`` (all missing as negative): a share of the
        unclicked rows are negatives, which estimates a number under the CVR (at rate 1 the CTCVR) and is reported as
        the CVR, as the paper does. ``oversample``: converted rows are copied, here weighted, which is the same sum. It
        estimates the CVR over clicks after `undo_copies`. ``unbias`` (rejection sampling; Zadrozny, 2004): a click is
        accepted with probability proportional to 1/p, p the detached CTR network's, so the accepted ones are a fair
        sample of exposures with p at or over the floor: in expectation IPS with that floor, at more variance.

    Departures
        Embedding size 8 for the 5 of the tables that quote "MLP" (they have 18 fields and compare at equal size). The
        papers leave open whether their purchase row saw clicks or all exposures; AITM's code trains on all
        exposures with the joint label, which is ``exposure``. The click loss is divided by exposures, not by clicks:
        against a mean over clicks it is smaller by the click rate, which Adam does not feel. Rows are drawn anew each
        epoch (once in the papers), the CTR of ``unbias`` is learned along (before, in the papers), and all click
        spaces stop early by the log-loss on clicks.

    Parameters
    ----------
    spec
        What is known of the log.
    conversion
        What the second network is trained on.
    click_space
        With ``conversion="click"``: which rows it sees, and how often.
    sampling
        Rates of the click spaces; one may be set only where it is read.
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

    Raises
    ------
    ValueError
        On a click space other than ``click`` with ``conversion="exposure"``, or a rate that it does not read.

    References
    ----------
    Xi et al., KDD 2021 (Appendix A, Table 4); Ouyang et al., ECML-PKDD 2023 (Table 2). Click spaces: Ma et al., Entire
    Space Multi-Task Model, SIGIR 2018; Zadrozny, Learning and Evaluating Classifiers under Sample Selection Bias,
    ICML 2004.
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
        click_space: Annotated[ClickSpace, Argument("which rows the CVR network sees, and how often")] = "click",
        sampling: Annotated[Sampling, Argument("rates of the click spaces")] = Sampling(),
        embedding_size: Annotated[int, Argument("width of an embedding", paper=5, low=4, high=64)] = 8,
        tower: Annotated[Tower, Argument("hidden layers of each network")] = Tower(),  # noqa: B008 (frozen)
        interaction: Interactions = None,
        trunk: Annotated[
            Literal["shared", "mf", "ncf"], Argument("what a network reads: all features, or user and item alone")
        ] = "shared",
        biases: Annotated[bool, Argument("user, item and global biases of mf")] = True,
    ) -> None:
        super().__init__(spec)
        if conversion != "click" and click_space != "click":
            raise ValueError(f"click_space {click_space!r} is of the CVR network: it needs conversion = 'click'")
        sampling.check(click_space)
        self.conversion, self.click_space, self.sampling = conversion, click_space, sampling

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
        self.conversion_network = network(
            "conversion", sampling.rate(click_space, spec) if conversion == "click" else spec.ctcvr
        )

    @property
    def heads(self) -> dict[str, HeadKind]:
        """The cvr is derived where the conversion network estimates CTCVR."""
        return {"ctr": "head", "cvr": "head" if self.conversion == "click" else "derived", "ctcvr": "head"}

    @property
    def observed(self) -> tuple[tuple[str, str], ...]:
        """The CTR over exposures, and what the conversion network was trained on."""
        conversion = ("cvr", "click") if self.conversion == "click" else ("ctcvr", "exposure")
        return (("ctr", "exposure"), conversion)

    @property
    def negatives_everywhere(self) -> bool:
        """In the click space ``aman``."""
        return self.click_space == "aman"

    def forward(self, batch: Batch) -> Outputs:
        """Return ctr, cvr, ctcvr; extras are the conversion network's logit where the cvr is not its own."""
        ctr = LogProbability.from_logit(self.ctr_network(batch.features).logits["ctr"])  # [B]
        logit = self.conversion_network(batch.features).logits["conversion"]
        if self.conversion == "exposure":
            joint = LogProbability.from_logit(logit)
            return Outputs(ctr, cvr=joint.quotient(ctr), ctcvr=joint)
        if self.click_space == "oversample" and self.sampling.undo_copies:
            cvr = LogProbability.from_logit(logit - math.log(self.sampling.copies))
            return Outputs(ctr, cvr, ctcvr=ctr * cvr, extras={_COPIED: logit})
        cvr = LogProbability.from_logit(logit)
        return Outputs(ctr, cvr, ctcvr=ctr * cvr)

    def loss(self, outputs: Outputs, batch: Batch) -> Losses:
        """Return the terms ``ctr`` and ``cvr`` (or ``ctcvr``); no gradient crosses from one network to the other."""
        click, conversion = batch_labels(batch)
        terms = {"ctr": mean_over_exposures(click_loss(outputs.ctr, click), batch.click_weight)}
        if self.conversion == "exposure":
            terms["ctcvr"] = mean_over_exposures(joint_loss(outputs.ctcvr, click, conversion), batch.weight)
            return Losses(terms)
        copied = outputs.extras.get(_COPIED)
        cvr = outputs.cvr if copied is None else LogProbability.from_logit(copied)
        counts = self._counts(click, conversion, outputs.ctr.detach())
        terms["cvr"] = mean_over_exposures(counts * joint_loss(cvr, click, conversion), batch.weight)
        return Losses(terms)

    def _counts(self, click: Tensor, conversion: Tensor, ctr: LogProbability) -> Tensor:
        """Return how often each row counts in the conversion network's loss, [B]."""
        given = self.sampling
        if self.click_space == "aman":
            return click + (1.0 - click) * self._drawn(torch.full_like(click, given.negative_rate))
        if self.click_space == "oversample":
            return click * (1.0 + (given.copies - 1.0) * conversion)
        if self.click_space == "unbias":
            floor = absolute_floor(self.spec.ctr, given.propensity_floor)
            least = floor if floor > 0.0 else 1.0
            return click * self._drawn(least * clipped_inverse(ctr, floor=least)) / least
        return click

    def _drawn(self, chance: Tensor) -> Tensor:
        """Return 1 with the given chances, else 0; the chances themselves in evaluation mode, as dropout does."""
        return (torch.rand_like(chance) < chance).to(chance.dtype) if self.training else chance
