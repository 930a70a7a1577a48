"""DFM: a click without a conversion yet counts by the time it has had to convert."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from torch import Tensor

from postclick.binding import Argument
from postclick.data.log import LogSpec
from postclick.losses.delay import delayed_conversion_loss, log_unseen
from postclick.losses.entire_space import click_loss
from postclick.losses.reduce import mean_over_clicks, mean_over_exposures
from postclick.models.arguments import EmbeddingSize, Interactions
from postclick.models.base import Batch, Citation, Delays, Losses, Outputs
from postclick.models.batching import batch_labels
from postclick.models.delayed import DelayedConversion
from postclick.nn.tower import Tower

__all__ = ["DFM"]

_DELAY = "delay"
_START = 0.9
"""Where the delay's head starts: a rate of softplus(logit .9) = 2.3 a window, a mean delay of a third of it."""


class DFM(DelayedConversion):
    r"""Delayed Feedback Model (DFM).

    Three networks: of the click, of the conversion, and of how long a conversion takes.

        p = sigmoid(ctr tower)    q = sigmoid(cvr tower)    lambda = softplus(delay tower), a rate a window W

        L = 1/|D| sum_D l(o, p)  +  1/|D| sum_D o m(r, d, e)

        m = -log q - log f(d)          where the conversion has been seen, d after the click    (Chapelle 2014, sec. 5)
        m = -log(1 - q + q S(e))       where it has not, e after the click

        f(d) = lambda e^(-lambda d) / c      S(e) = (e^(-lambda e) - e^(-lambda W)) / c      c = 1 - e^(-lambda W)

    l is the cross-entropy; S(e) = 0 once the window has closed, where m is l(r, q). Every clicked row counts, however
    recent; sample weights w turn 1/\|D\| sum into sum w l / sum w.

    What it estimates
        `cvr` is P(conversion within the window | click, x), `cvr_click`, from clicks alone. Consistent where delays of
        conversions are exponential given x (cut at the window) and the class holds both surfaces; a heavier tail is
        taken for fewer conversions, more so the younger the log. Over the entire exposure space it extrapolates as
        `mlp` does. In a log without `observed_until` every label is final and this is `mlp`.

    Departures
        The exponential is cut at the attribution window, beyond which a log counts no conversion; with
        ``cut_at_window=false`` it has no end, as in the paper, and `cvr` is of a conversion at any time: above the one
        that labels show. Towers and embeddings for the paper's linear models, softplus for its exponential link (which
        overflows at logits that a tower can reach), Adam for L-BFGS, and a network of the click, which the paper has
        not.

    Parameters
    ----------
    spec
        What is known of the log.
    cut_at_window
        Delays end with the attribution window; false is the paper's exponential without an end.
    embedding_size
        E, the width of a table row.
    tower
        Hidden layers of each network.
    shared_embedding
        One table for the three networks; the paper's models share nothing.
    interaction
        Products of features that each network reads beside them.

    Raises
    ------
    ValueError
        On a log that says until when it was observed and not when its conversions came.

    References
    ----------
    Chapelle, Modeling Delayed Feedback in Display Advertising, KDD 2014.
    """

    citation = Citation(
        title="Modeling Delayed Feedback in Display Advertising",
        authors="Olivier Chapelle",
        venue="KDD",
        year=2014,
        link="https://doi.org/10.1145/2623330.2623634",
    )

    def __init__(
        self,
        spec: LogSpec,
        *,
        cut_at_window: Annotated[bool, Argument("delays end with the attribution window", paper=False)] = True,
        embedding_size: EmbeddingSize = 8,
        tower: Annotated[Tower, Argument("hidden layers of each network", paper={"hidden": ()})] = Tower(),  # noqa: B008 (frozen)
        shared_embedding: Annotated[bool, Argument("one table for the three networks")] = False,
        interaction: Interactions = None,
    ) -> None:
        super().__init__(
            spec,
            {_DELAY: _START},
            tower=tower,
            embedding_size=embedding_size,
            interaction=interaction,
            shared_embedding=shared_embedding,
        )
        self.cut_at_window = cut_at_window

    def loss(self, outputs: Outputs, batch: Batch) -> Losses:
        """Return the terms ``ctr`` and ``cvr``; the diagnostic ``arrived`` is the share of conversions seen by now."""
        click, conversion = batch_labels(batch)
        weight, diagnostics = batch.click_weight, dict[str, Tensor]()
        if batch.delays is None:
            rows = outputs.cvr.cross_entropy(conversion)
        else:
            delay, elapsed = self._in_windows(batch.delays)
            end = 1.0 if self.cut_at_window else math.inf
            rate = outputs.extras[_DELAY]
            rows = delayed_conversion_loss(outputs.cvr, rate, conversion, delay, elapsed, end)
            seen = -torch.expm1(log_unseen(rate.detach(), elapsed, end))
            diagnostics["arrived"] = mean_over_clicks(seen, click, weight)
        terms = {
            "ctr": mean_over_exposures(click_loss(outputs.ctr, click), weight),
            "cvr": mean_over_exposures(click * rows, weight),
        }
        return Losses(terms, diagnostics)

    def _in_windows(self, delays: Delays) -> tuple[Tensor, Tensor]:
        """Return delay and elapsed time in windows, at most 1: nothing is counted that comes later."""
        return (delays.delay / self.days).clamp(max=1.0), (delays.elapsed / self.days).clamp(max=1.0)
