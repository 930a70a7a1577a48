"""ES-DFM: clicks are told early, and told again when they convert; importance weights put the CVR right."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from postclick.binding import Argument
from postclick.data.log import LogSpec
from postclick.losses.delay import elapsed_time_loss
from postclick.losses.entire_space import click_loss
from postclick.losses.probability import LogProbability
from postclick.losses.reduce import mean_over_clicks, mean_over_exposures
from postclick.models.arguments import EmbeddingSize, Interactions
from postclick.models.base import Batch, Citation, Losses, Outputs
from postclick.models.batching import batch_labels
from postclick.models.delayed import DelayedConversion
from postclick.nn.tower import Tower

__all__ = ["ESDFM"]

_LATE, _NEVER = "late", "never"


@dataclass(frozen=True)
class _Told:
    """Which events of a click count, [B] each, 0 or 1."""

    early: Tensor
    late: Tensor
    positives: Tensor
    negatives: Tensor
    history: Tensor
    final: Tensor


class ESDFM(DelayedConversion):
    r"""Elapsed-time Sampling Delayed Feedback Model (ES-DFM).

    Four networks that share nothing: of the click, of the conversion, and two that weigh.

        p = sigmoid(ctr tower)    q = sigmoid(cvr tower)
        p_dp = sigmoid(late tower) = P(conversion later than w | click, x)
        p_rn = sigmoid(never tower) = P(no conversion at all | click, none by w, x)

    Every click is told when it is w old, with the label that it has by then; one that converts later is told again:

        m = sg[1 + p_dp] -log q                    a conversion by w, or later                      (Yang et al. 2021)
        m = sg[(1 + p_dp) p_rn] -log(1 - q)        none by w

        L = 1/|D| sum_D l(o, p)  +  1/|D| sum_D o (m's of the row)
            + 1/|D| sum_O* l(late, p_dp)  +  1/|D| sum_O*, none by w l(never, p_rn)

    l is the cross-entropy, O* the clicks whose window has closed; sample weights w turn 1/\|D\| sum into
    sum w l / sum w.

    **A log is not a stream.** The weights are right where late conversions come in at the rate at which clicks leave
    them open. Of a log that is read at its end, that holds for what was told in its last T - W days (T: from the first
    click to the end of the observation, W: the window), for which late conversions of earlier clicks are all there.
    Clicks told before are history: their window has closed, and they count once, with their final label, as the
    paper's pre-training does. A log shorter than its window teaches nothing.

    What it estimates
        `cvr` is P(conversion within the window | click, x), `cvr_click`, from clicks alone, consistent where p_rn is
        and clicks come evenly: the fixed point is p / (p + p_rn (1 - p + p P(d > w))). No form of the delay is
        assumed. p_dp cancels there; it decides what a row weighs. In a log without `observed_until` every label is
        final and this is `mlp`.

    Departures
        The two weighing networks learn along, from clicks whose window has closed; in the paper they are trained before
        and frozen. One pass over a log in random order stands for the paper's pass in order of time. The network of the
        click is ours. Towers and embeddings as in all systems (paper: 256-256-128 with LeakyReLU and batch
        normalisation).

    Parameters
    ----------
    spec
        What is known of the log.
    wait
        w, as a share of the attribution window.
    embedding_size
        E, the width of a table row.
    tower
        Hidden layers of each network.
    shared_embedding
        One table for the four networks; the paper's share nothing.
    interaction
        Products of features that each network reads beside them.

    Raises
    ------
    ValueError
        On a wait outside (0, 1), or a log that says until when it was observed and not when its conversions came.

    References
    ----------
    Yang et al., Capturing Delayed Feedback in Conversion Rate Prediction via Elapsed-Time Sampling, AAAI 2021.
    """

    citation = Citation(
        title="Capturing Delayed Feedback in Conversion Rate Prediction via Elapsed-Time Sampling",
        authors="Jia-Qi Yang, Xiang Li, Shuguang Han, Tao Zhuang, De-Chuan Zhan, Xiaoyi Zeng, Bin Tong",
        venue="AAAI",
        year=2021,
        link="https://arxiv.org/abs/2012.03245",
    )

    def __init__(
        self,
        spec: LogSpec,
        *,
        wait: Annotated[float, Argument("age at which a click is told, as a share of the window")] = 0.1,
        embedding_size: EmbeddingSize = 8,
        tower: Annotated[Tower, Argument("hidden layers of each network", paper={"hidden": (256, 256, 128)})] = Tower(),  # noqa: B008 (frozen)
        shared_embedding: Annotated[bool, Argument("one table for the four networks")] = False,
        interaction: Interactions = None,
    ) -> None:
        if not 0.0 < wait < 1.0:
            raise ValueError(f"a wait is a share of the window, in (0, 1), got {wait}")
        super().__init__(
            spec,
            {_LATE: spec.cvr / 2.0, _NEVER: 1.0 - spec.cvr / 2.0},
            tower=tower,
            embedding_size=embedding_size,
            interaction=interaction,
            shared_embedding=shared_embedding,
        )
        self.wait = wait * self.days
        self.stream = 0.0 if spec.days is None else max(spec.days - self.days, 0.0)

    def loss(self, outputs: Outputs, batch: Batch) -> Losses:
        """Return the terms ``ctr, cvr, late, never``; diagnostics are shares of the clicks told early, twice, never."""
        click, conversion = batch_labels(batch)
        weight, told = batch.click_weight, self._told(batch, conversion)
        late, never = (LogProbability.from_logit(outputs.extras[name]) for name in (_LATE, _NEVER))
        rows = elapsed_time_loss(outputs.cvr, told.positives, told.negatives, late, never)
        rows = rows + told.history * outputs.cvr.cross_entropy(conversion)
        per_row = {
            "ctr": click_loss(outputs.ctr, click),
            "cvr": click * rows,
            _LATE: click * told.final * late.cross_entropy(told.late),
            _NEVER: click * told.final * (1.0 - told.early) * never.cross_entropy(1.0 - conversion),
        }
        shares = {
            "history": told.history,
            "told": torch.maximum(told.positives, told.negatives),
            "told_twice": told.positives * told.negatives,
        }
        return Losses(
            {name: mean_over_exposures(each, weight) for name, each in per_row.items()},
            {name: mean_over_clicks(share, click, weight) for name, share in shares.items()},
        )

    def _told(self, batch: Batch, conversion: Tensor) -> _Told:
        """Return which events of each row count; without times every label is final, and history."""
        given = batch.delays
        if given is None:
            ones, none = torch.ones_like(conversion), torch.zeros_like(conversion)
            return _Told(early=conversion, late=none, positives=none, negatives=none, history=ones, final=ones)
        kind, final = conversion.dtype, 1.0 - given.immature
        late = conversion * (given.delay > self.wait).to(kind)
        early = conversion - late
        first, again = given.elapsed - self.wait, given.elapsed - given.delay  # how long ago each was told
        streamed = ((first >= 0) & (first <= self.stream)).to(kind)
        return _Told(
            early=early,
            late=late,
            positives=streamed * early + late * ((again >= 0) & (again <= self.stream)).to(kind),
            negatives=streamed * (1.0 - early),
            history=final * (first > self.stream).to(kind),
            final=final,
        )
