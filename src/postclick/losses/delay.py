r"""Losses a row for conversions that come late: a click without one yet is not a click without one.

Rows are clicks, float [B] each: r = 1 where a conversion has been seen, d its delay since the click, e the time from
the click to the end of the observation, W the attribution window after which a conversion no longer counts; all in one
unit of time. q = P(conversion within the window | click, x).

**Delayed feedback model** (Chapelle 2014). Given that there is a conversion, its delay is exponential with a rate of
its own, lambda(x) = softplus(g(x)); S(e) is the chance that it has not come by e::

    r = 1:  -log q - log f(d)             f(d) = lambda exp(-lambda d) / c          c = 1 - exp(-lambda W)
    r = 0:  -log(1 - q + q S(e))          S(e) = (exp(-lambda e) - exp(-lambda W)) / c for e < W, 0 beyond

The paper has no window: W = inf, f(d) = lambda exp(-lambda d), S(e) = exp(-lambda e), and q is of a conversion at any
time. With a window the exponential is cut where conversions stop to count, so that a click whose window has closed has
the ordinary cross-entropy. Unbiased where delays are exponential given x; a heavier tail than that is taken for fewer
conversions.

**Elapsed-time sampling** (Yang et al. 2021). Every click is told a time w after it happened, with the label that it has
by then, and a click that converts later is told once more, as a conversion. Per event, with weights that are stopped::

    conversion:     (1 + p_dp) -log q                          p_dp = P(conversion after w | click, x)
    no conversion:  (1 + p_dp) p_rn -log(1 - q)                p_rn = P(never | none by w, x)

At the optimum q = p / (p + p_rn (1 - p + p P(d > w))), which is p where p_rn = (1 - p) / (1 - p + p P(d > w)). That
holds where late conversions come in at the rate at which clicks leave them open: in a stream that flows evenly.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import softplus

from postclick.losses.probability import LogProbability

__all__ = ["delayed_conversion_loss", "elapsed_time_loss", "log_unseen"]

_SERIES = 0.05
_LINEAR = -15.0


def _log_softplus(logit: Tensor) -> Tensor:
    """Return log softplus(g), which is g itself far below 0."""
    return torch.where(logit < _LINEAR, logit, torch.log(softplus(torch.clamp(logit, min=_LINEAR))))


def _log_share(x: Tensor) -> Tensor:
    """Return log((1 - exp(-x)) / x) for x >= 0, 0 at 0: what is left of a rate when it is cut at one unit."""
    small, large = torch.clamp(x, max=_SERIES), torch.clamp(x, min=_SERIES)
    series = -small / 2.0 + small * small / 24.0 - small**4 / 2880.0
    return torch.where(x < _SERIES, series, torch.log(-torch.expm1(-large)) - torch.log(large))


def log_unseen(rate_logit: Tensor, elapsed: Tensor, window: float = math.inf) -> Tensor:
    """Return log S(e), [B]: of a conversion that there is, that it has not been seen after `elapsed`.

    Parameters
    ----------
    rate_logit
        g, [B]; lambda = softplus(g) a unit of time.
    elapsed
        e >= 0, [B].
    window
        W; inf is the paper's exponential without an end. At and beyond W the result is -inf.
    """
    rate = softplus(rate_logit)
    if math.isinf(window):
        return -rate * elapsed
    left = window - elapsed
    inside = torch.where(left > 0, left, window)
    # (exp(-a) - exp(-b)) / (1 - exp(-b)) with the share of each taken out, so that a rate of 0 is a uniform delay
    share = torch.log(inside / window) + _log_share(rate * inside) - _log_share(rate * window)
    return torch.where(left > 0, share - rate * torch.where(left > 0, elapsed, 0.0), -torch.inf)


def delayed_conversion_loss(
    cvr: LogProbability,
    rate_logit: Tensor,
    conversion: Tensor,
    delay: Tensor,
    elapsed: Tensor,
    window: float = math.inf,
) -> Tensor:
    """Return the negative log-likelihood of a click's conversion and its delay, [B], in nats (Chapelle 2014).

    Finite values and gradients for logits to +-1e4. What the density of the delay adds depends on the unit of time.

    Parameters
    ----------
    cvr
        q, [B].
    rate_logit
        g, [B], of the delay's rate.
    conversion
        r, [B]: 1 where a conversion has been seen.
    delay
        d in [0, W], [B]; read where r = 1.
    elapsed
        e >= 0, [B]; read where r = 0.
    window
        W; inf is the paper's.
    """
    rate = softplus(rate_logit)
    if math.isinf(window):
        log_density = _log_softplus(rate_logit) - rate * delay
    else:
        log_density = -rate * delay - math.log(window) - _log_share(rate * window)
    unseen = log_unseen(rate_logit, elapsed, window)
    still_open = torch.isfinite(unseen)
    # where the window has closed the second part is exp(-inf) = 0; left to logaddexp its slope would be 0 times inf
    late = torch.logaddexp(cvr.log_not_p, cvr.log_p + torch.where(still_open, unseen, 0.0))
    none = torch.where(still_open, late, cvr.log_not_p)
    return torch.where(conversion > 0, -(cvr.log_p + log_density), -none)


def elapsed_time_loss(
    cvr: LogProbability, positives: Tensor, negatives: Tensor, late: LogProbability, never: LogProbability
) -> Tensor:
    """Return the weighted cross-entropy of the events of a click, [B] (Yang et al. 2021); weights are stopped.

    Parameters
    ----------
    cvr
        q, [B].
    positives, negatives
        How often the click was told with and without a conversion, [B]: one of them once, or each once where the
        conversion came late.
    late
        p_dp, [B]: P(conversion after the wait | click, x).
    never
        p_rn, [B]: P(no conversion at all | none by the wait, x).
    """
    again = 1.0 + torch.exp(late.log_p.detach())
    real = torch.exp(never.log_p.detach())
    return -again * (positives * cvr.log_p + negatives * real * cvr.log_not_p)
