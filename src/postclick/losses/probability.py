"""Probabilities as pairs (log p, log(1 - p)): products, complements and quotients without clamping.

SYSTEMS, Decision 3: nothing multiplies sigmoids and clamps; values and gradients are finite for logits to +-1e4.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

__all__ = ["LogProbability", "log1mexp"]

_LOG_HALF = -0.6931471805599453


def log1mexp(log_p: Tensor) -> Tensor:
    """Return log(1 - exp(log_p)) for log_p < 0, precise on both sides of log(1/2) (Maechler 2012)."""
    low = torch.clamp(log_p, max=_LOG_HALF)
    high = torch.clamp(log_p, min=_LOG_HALF)
    return torch.where(log_p < _LOG_HALF, torch.log1p(-torch.exp(low)), torch.log(-torch.expm1(high)))


@dataclass(frozen=True)
class LogProbability:
    """A probability a row as (log p, log(1 - p)), shapes [B].

    Parameters
    ----------
    log_p
        log p, in (-inf, 0].
    log_not_p
        log(1 - p), in (-inf, 0].
    """

    log_p: Tensor
    log_not_p: Tensor

    @classmethod
    def from_logit(cls, logit: Tensor) -> LogProbability:
        """Return sigmoid(logit)."""
        return cls(logsigmoid(logit), logsigmoid(-logit))

    def __mul__(self, other: LogProbability) -> LogProbability:
        """Return the product p q: log(1 - p q) = logaddexp(log(1 - p), log p + log(1 - q))."""
        log_not = torch.logaddexp(self.log_not_p, self.log_p + other.log_not_p)
        return LogProbability(self.log_p + other.log_p, log_not)

    def complement(self) -> LogProbability:
        """Return 1 - p."""
        return LogProbability(self.log_not_p, self.log_p)

    def mixture(self, yes: LogProbability, no: LogProbability) -> LogProbability:
        """Return p yes + (1 - p) no, by logaddexp of both sides: the law of total probability."""
        return LogProbability(
            torch.logaddexp(self.log_p + yes.log_p, self.log_not_p + no.log_p),
            torch.logaddexp(self.log_p + yes.log_not_p, self.log_not_p + no.log_not_p),
        )

    def detach(self) -> LogProbability:
        """Return the same numbers without gradient."""
        return LogProbability(self.log_p.detach(), self.log_not_p.detach())

    def cross_entropy(self, label: Tensor) -> Tensor:
        """Return -[label log p + (1 - label) log(1 - p)], [B]; `label` may be soft."""
        return -(label * self.log_p + (1.0 - label) * self.log_not_p)

    def quotient(self, other: LogProbability, margin: float = 1e-6) -> LogProbability:
        """Return p / q clipped to at most 1 - `margin`; used for derived heads only."""
        log_p = torch.clamp(self.log_p - other.log_p, max=-margin)
        return LogProbability(log_p, log1mexp(log_p))
