"""Exposures in chunks: who saw what where, the two logits, and the funnel drawn from them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from postclick.data.scores import probability
from postclick.simulation.actions import ActionIntercepts, action_logit, draw_actions, paths, solve_actions
from postclick.simulation.behaviour import Behaviour, behaviour
from postclick.simulation.bisection import rising_root
from postclick.simulation.communities import Communities, communities
from postclick.simulation.confounding import draw_hidden, funnel, states
from postclick.simulation.delay import Times, draw_times
from postclick.simulation.overlap import Overlap, find_overlap, logged_propensity, solve_propensity
from postclick.simulation.population import PRICE_MEAN, PRICE_SD, Population, populate
from postclick.simulation.presets import Knobs
from postclick.simulation.vocabularies import Vocabularies, sizes

__all__ = ["CHUNK_ROWS", "Chunk", "Intercepts", "Outcomes", "Plan", "draw", "draw_outcomes", "plan", "solve"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

CHUNK_ROWS = 65_536  # fixed: each chunk has its own random stream, so this number is part of the world
_START = 1_735_689_600  # 2025-01-01 00:00 UTC
_POSITIONS = 10
_CHUNKS, _CALIBRATION_CHUNKS = 4, 4
_ACTIONS, _HIDDEN, _DELAYS = 10, 11, 20  # streams of random numbers, beside those of chunks, population and layout
_WEB_SHARE = 0.3
# relative traffic of the 24 hours
_TRAFFIC = np.array([4, 3, 2, 2, 2, 3, 5, 7, 9, 10, 10, 11, 12, 11, 10, 10, 10, 11, 13, 15, 16, 15, 11, 7])
_DAY = np.concatenate([[0.0], np.cumsum(_TRAFFIC) / _TRAFFIC.sum()])


@dataclass(frozen=True)
class Plan:
    """Everything that is fixed before the first exposure is drawn."""

    knobs: Knobs
    vocabularies: Vocabularies
    population: Population
    exposures: int
    seed: int
    communities: Communities | None = None

    @property
    def chunks(self) -> int:
        """How many chunks there are."""
        return -(-self.exposures // CHUNK_ROWS)


def plan(knobs: Knobs, exposures: int, seed: int, *, full_vocabulary: bool = False) -> Plan:
    """Draw the population for a log of `exposures` rows."""
    vocabularies = sizes(knobs, exposures, full=full_vocabulary)
    shared = communities(knobs, vocabularies, seed)
    return Plan(knobs, vocabularies, populate(knobs, vocabularies, seed), exposures, seed, shared)


@dataclass(frozen=True)
class Chunk:
    """Consecutive exposures in time order, with their logits up to the intercept.

    Parameters
    ----------
    first
        Number of the first exposure; exposure ids are number + 1.
    user, item
        Index of the entity.
    time
        Seconds since 1970 (UTC).
    web
        The device: 1 on the web, 0 in the app.
    position
        Place on the page, from 1.
    click_logit, conversion_logit, action_logit
        Without intercepts; no third in a world without actions.
    rng
        The chunk's generator, from which the funnel is drawn next.
    """

    first: int
    user: Ints
    item: Ints
    time: Ints
    web: Ints
    position: Ints
    click_logit: Floats
    conversion_logit: Floats
    action_logit: Floats | None
    rng: np.random.Generator = field(repr=False)

    def __len__(self) -> int:
        return len(self.user)

    @property
    def exposure_id(self) -> Ints:
        """Ids from 1, in time order."""
        return np.arange(self.first + 1, self.first + 1 + len(self), dtype=np.int64)

    @property
    def hour(self) -> Ints:
        """Hour of the day, 0 to 23."""
        return self.time // 3600 % 24


@dataclass(frozen=True)
class Intercepts:
    """What is solved for.

    Parameters
    ----------
    click, conversion
        Intercepts of the two logits.
    actions
        Those of the paths through the action stage, where there is one.
    overlap
        Limits of the click logit under which clicks are few or none.
    propensity
        Shift of the logged propensity's logit.
    """

    click: float
    conversion: float
    actions: ActionIntercepts | None = None
    overlap: Overlap = field(default_factory=Overlap)
    propensity: float = 0.0


@dataclass(frozen=True)
class Outcomes:
    """Truth and labels of a chunk.

    Parameters
    ----------
    ctr, cvr_do, cvr_click
        True probabilities; the two CVRs are equal where every confounder is observed. Where an exposure is never
        clicked, `cvr_click` is the limit of ever fewer clicks.
    click, conversion, action
        Labels as logged.
    behaviour
        True probabilities of the paths; None, as `action`, in a world without actions.
    propensity
        P(click | x) as logged, or None.
    times
        When clicks and conversions happened; None in a world whose conversions come at once. With times, `conversion`
        is what had come by the end of the observation.
    """

    ctr: Floats
    cvr_do: Floats
    cvr_click: Floats
    click: NDArray[np.int8]
    conversion: NDArray[np.int8]
    action: NDArray[np.int8] | None = None
    behaviour: Behaviour | None = None
    propensity: Floats | None = None
    times: Times | None = None

    @property
    def ctcvr(self) -> Floats:
        """True P(click and conversion | x)."""
        return self.ctr * self.cvr_click


def draw(story: Plan, index: int) -> Chunk:
    """Draw chunk `index` of the log, up to the funnel."""
    knobs, population = story.knobs, story.population
    first = index * CHUNK_ROWS
    count = min(CHUNK_ROWS, story.exposures - first)
    rng = np.random.default_rng([story.seed, _CHUNKS, index])
    user = np.searchsorted(population.users.share, rng.random(count), side="right").astype(np.int64)
    item = np.searchsorted(population.items.share, rng.random(count), side="right").astype(np.int64)
    time = _times((first + np.arange(count) + rng.random(count)) / story.exposures, knobs.days)
    web = (rng.random(count) < _WEB_SHARE).astype(np.int64)
    position = 1 + np.minimum((_POSITIONS * rng.random(count) ** 1.5).astype(np.int64), _POSITIONS - 1)
    conversion = _conversion_latent(story, user, item, web)
    click_logit = _click_logit(story, user, item, conversion) + _placement(position, time)
    conversion_logit = knobs.cvr_spread * conversion + knobs.user_effect * population.users.own_conversion[user]
    acting = action_logit(population, knobs, user, item, conversion) if knobs.action_rate else None
    return Chunk(first, user, item, time, web, position, click_logit, conversion_logit, acting, rng)


def _times(progress: Floats, days: int) -> Ints:
    """Return seconds since 1970 of exposures that are `progress` (0 to 1, rising) through the log; nights are quiet."""
    elapsed = days * progress
    day = np.minimum(np.floor(elapsed), days - 1)
    second = np.minimum(np.interp(elapsed - day, _DAY, 3600.0 * np.arange(25)), 86_399)
    return np.asarray(_START + 86_400 * day.astype(np.int64) + second.astype(np.int64))


def _conversion_latent(story: Plan, user: Ints, item: Ints, web: Ints) -> Floats:
    population, common, knobs = story.population, story.communities, story.knobs
    users, items = population.users, population.items
    cheap = -(np.log(items.price[item]) - PRICE_MEAN) / PRICE_SD
    device = (web - _WEB_SHARE) / np.sqrt(_WEB_SHARE * (1 - _WEB_SHARE))
    additive = (
        np.sqrt(0.45) * users.conversion[user]
        + np.sqrt(0.45) * items.conversion[item]
        + np.sqrt(0.06) * cheap
        + np.sqrt(0.04) * device
    )
    affinity = population.affinity[users.group[user], items.group[item]]
    share = knobs.underspecification
    latent = np.sqrt(1 - share) * additive + np.sqrt(share) * affinity
    return common.blended(knobs.structure, latent, common.conversion, user, item) if common else np.asarray(latent)


def _click_logit(story: Plan, user: Ints, item: Ints, conversion: Floats) -> Floats:
    population, common, knobs = story.population, story.communities, story.knobs
    users, items = population.users, population.items
    other = (
        np.sqrt(0.40) * users.click[user]
        + np.sqrt(0.40) * items.click[item]
        + np.sqrt(0.20) * population.attraction[users.group[user], items.group[item]]
    )
    if common:
        other = common.blended(knobs.structure, other, common.click, user, item)
        conversion = common.signs(item) * conversion
    shared = knobs.correlation * conversion + np.sqrt(1 - knobs.correlation**2) * other
    neutral = np.sqrt(0.5) * (users.neutral[user] + items.neutral[item])
    own = knobs.user_effect * users.own_click[user]
    return np.asarray(knobs.selection * shared + knobs.ctr_spread * neutral + own)


def _placement(position: Ints, time: Ints) -> Floats:
    """Return the effect of position and hour, on the CTR alone: a context that moved the CVR too would confound."""
    hour = time // 3600 % 24
    return np.asarray(-0.3 * np.log(position) + 0.15 * np.sin(2 * np.pi * (hour - 14) / 24))


def solve(story: Plan) -> Intercepts:
    """Solve for the intercepts: mean CTR = `ctr`, and sum(ctr * cvr) / sum(ctr) = `cvr`.

    A log of up to 262,144 exposures is solved exactly, over its own exposures. For a longer one the means run over a
    log of that length with the same population and days, which leaves errors of about 0.0004 in the mean CTR.
    """
    knobs = story.knobs
    sample = replace(story, exposures=min(story.exposures, _CALIBRATION_CHUNKS * CHUNK_ROWS))
    parts = [draw(sample, index) for index in range(sample.chunks)]
    logit = np.concatenate([part.click_logit for part in parts])
    overlap = find_overlap(knobs, logit)
    able = np.where(overlap.possible(logit), overlap.thinned(logit), -np.inf)
    # a row a state of the hidden variable; the means run over all of them
    click = states(able, knobs.unobserved_confounder).ravel()
    conversion = np.concatenate([part.conversion_logit for part in parts])
    hidden = states(conversion, knobs.unobserved_confounder).ravel()
    first = rising_root(lambda shift: float(probability(click + shift).mean()) - knobs.ctr)
    ctr = probability(click + first)
    propensity = solve_propensity(knobs, ctr.reshape(-1, len(able)).mean(axis=0))
    ctr /= ctr.sum()
    second = rising_root(lambda shift: float(ctr @ probability(hidden + shift)) - knobs.mean_cvr)
    acting = [part.action_logit for part in parts if part.action_logit is not None]
    actions = solve_actions(knobs, ctr, np.concatenate(acting), conversion) if acting else None
    return Intercepts(first, second, actions, overlap, propensity)


def draw_outcomes(story: Plan, intercepts: Intercepts, chunk: Chunk) -> Outcomes:
    """Draw the funnel of a chunk: click ~ ctr, potential conversion ~ cvr_do, conversion = click * potential.

    With a hidden confounder both are drawn given its value (`postclick.simulation.confounding`), with actions the
    potential conversion after who acts (`postclick.simulation.actions`). Uses up the chunk's generator: call it once a
    chunk.
    """
    knobs, number = story.knobs, chunk.first // CHUNK_ROWS
    possible = intercepts.overlap.possible(chunk.click_logit)
    click_logit = intercepts.overlap.thinned(chunk.click_logit) + intercepts.click
    conversion_logit = chunk.conversion_logit + intercepts.conversion
    weight = knobs.unobserved_confounder
    true = funnel(states(click_logit, weight), states(conversion_logit, weight))
    ctr, buying, clicking = np.where(possible, true.ctr, 0.0), true.cvr_do, true.ctr
    if weight:
        hidden = draw_hidden(weight, len(chunk), np.random.default_rng([story.seed, _HIDDEN, number]))
        clicking, buying = probability(click_logit + hidden), probability(conversion_logit + hidden)
    click = possible & (chunk.rng.random(len(chunk)) < clicking)
    bar = chunk.rng.random(len(chunk))
    orphan = ~click & (chunk.rng.random(len(chunk)) < knobs.orphan_conversions)
    told = logged_propensity(knobs, ctr, intercepts.propensity) if knobs.logged_propensity else None
    if intercepts.actions is None or chunk.action_logit is None:
        conversion = (click & (bar < buying)) | orphan
        times = _times_of(story, chunk, conversion) if knobs.delay else None
        labels = click.astype(np.int8), (conversion if times is None else times.seen).astype(np.int8)
        return Outcomes(ctr, true.cvr_do, true.cvr_click, *labels, propensity=told, times=times)
    walks = paths(intercepts.actions, chunk.action_logit, chunk.conversion_logit)
    drawn = draw_actions(knobs, walks, np.random.default_rng([story.seed, _ACTIONS, number]))
    buys = (bar < np.where(drawn.acts, walks.after, walks.without)) & drawn.purchase_logged
    logged = behaviour(knobs, ctr, walks)
    conversion = (click & buys) | orphan
    action = np.where(click, drawn.acts & drawn.action_logged, drawn.orphan)
    labels = click.astype(np.int8), conversion.astype(np.int8)
    return Outcomes(ctr, logged.cvr, logged.cvr, *labels, action.astype(np.int8), logged, told)


def _times_of(story: Plan, chunk: Chunk, converted: NDArray[np.bool_]) -> Times:
    rng = np.random.default_rng([story.seed, _DELAYS, chunk.first // CHUNK_ROWS])
    exposed = chunk.user, chunk.item, chunk.time
    return draw_times(story.knobs, story.population, exposed, converted, _START, rng)
