r"""Conversions that come late, and a log that is read before all have come.

A click that converts does so after a delay, drawn from a Weibull distribution that is cut at the attribution window W
(`attribution_days`): what would come later is no conversion. So the truth stays as it is, ``cvr_do`` and ``cvr_click``
are of the conversion within the window, and only what a log shows of it changes. In days, with k = `delay_shape`::

    m_i   = delay exp( s g_i - s^2 / 2 )          g_i = sqrt(.6) dear_v + sqrt(.2) (N_u + N_v)      s = delay_spread
    d_i ~ scale (-log(1 - F u))^(1/k)             scale = m_i / Gamma(1 + 1/k)      u ~ uniform(0, 1)
    F     = 1 - exp(-(W / scale)^k)

k = 1 is the exponential, below 1 the tail is heavier. g has variance 1 and follows from logged columns: the price (dear
items take longer; cheap ones convert more) and the ids (N_u, N_v move the CTR too). The observation ends
`observed_days` after the last day; a conversion after that is logged as none. A click comes within a minute of its
exposure.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from postclick.simulation.population import PRICE_MEAN, PRICE_SD, Population
from postclick.simulation.presets import Knobs

__all__ = ["Times", "draw_times", "mean_delay"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_DAY = 86_400
_NODES = 32  # of Gauss and Legendre's quadrature: the mean to 1.2e-4 windows for shapes of .3 and up


@dataclass(frozen=True)
class Times:
    """When things happened on B exposures, seconds since 1970 (UTC), and what was seen by the end.

    Parameters
    ----------
    click, conversion
        Read where there is a click, and where `seen`.
    until
        The end of the observation.
    seen
        bool: a conversion that had come by then.
    late
        How many had not.
    mean_delay
        True mean delay, in days, of a conversion of this exposure, float64.
    """

    click: Ints
    conversion: Ints
    until: int
    seen: NDArray[np.bool_]
    late: int
    mean_delay: Floats


def _scale(knobs: Knobs, population: Population, user: Ints, item: Ints) -> Floats:
    dear = (np.log(population.items.price[item]) - PRICE_MEAN) / PRICE_SD
    ids = population.users.neutral[user] + population.items.neutral[item]
    spread, shape = knobs.delay_spread, knobs.delay_shape
    mean = knobs.delay * np.exp(spread * (np.sqrt(0.6) * dear + np.sqrt(0.2) * ids) - spread**2 / 2)
    return np.asarray(mean / math.gamma(1 + 1 / shape))


def _quantile(knobs: Knobs, scale: Floats, u: Floats) -> Floats:
    """Return the delay, in days, under which the share `u` of the conversions have come."""
    within = -np.expm1(-((knobs.attribution_days / scale) ** knobs.delay_shape))
    days = scale * (-np.log1p(-within * u)) ** (1 / knobs.delay_shape)
    return np.asarray(np.minimum(days, knobs.attribution_days))


def mean_delay(knobs: Knobs, scale: Floats) -> Floats:
    """Return the mean of the delay cut at the window, days, [B]: the integral of its quantiles."""
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    total = np.zeros(len(scale))
    for node, weight in zip(nodes, weights, strict=True):
        total += weight / 2 * _quantile(knobs, scale, np.asarray((node + 1) / 2))
    return total


def draw_times(
    knobs: Knobs,
    population: Population,
    exposed: tuple[Ints, Ints, Ints],
    converted: NDArray[np.bool_],
    start: int,
    rng: np.random.Generator,
) -> Times:
    """Draw when clicks and conversions happen.

    Parameters
    ----------
    knobs, population
        Of the world.
    exposed
        User, item and time of each exposure, [B].
    converted
        Clicks that convert within the window, sooner or later, [B].
    start
        When the log begins.
    rng
        A generator of its own, so that the exposures and clicks are those of the world without delays.
    """
    user, item, time = exposed
    until = start + round(_DAY * (knobs.days + knobs.observed_days))
    click = np.minimum(time + rng.integers(0, 60, len(time)), until)
    scale = _scale(knobs, population, user, item)
    conversion = click + np.rint(_DAY * _quantile(knobs, scale, rng.random(len(time)))).astype(np.int64)
    seen = converted & (conversion <= until)
    late = int(converted.sum()) - int(seen.sum())
    return Times(click, conversion, until, seen, late, mean_delay(knobs, scale))
