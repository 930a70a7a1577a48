"""Who can be exposed to what: users and items with groups, latents and the attributes that a log shows of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from postclick.simulation.presets import Knobs
from postclick.simulation.vocabularies import Vocabularies

__all__ = ["Items", "Population", "Users", "populate"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

AGE_BANDS, PRICE_MEAN, PRICE_SD = 8, 3.5, 0.9
_BETWEEN = 0.2  # share of a latent's variance between groups; the rest is individual, so ids must be learned
_GROUP_SHOWN = 0.4  # how often the observed segment or category tells the true group, chance hits apart
_USERS, _ITEMS, _GROUPS = 1, 2, 3  # streams of random numbers, beside those of the chunks
_USER_ACTIONS, _ITEM_ACTIONS = 8, 9  # streams of their own, so that worlds without actions keep theirs


@dataclass(frozen=True)
class Users:
    """Users, one entry each.

    Parameters
    ----------
    group
        Latent group.
    conversion, click, neutral, action
        Unit-variance latents: of the CVR, of the CTR where it is correlated with the CVR, of the CTR alone, of in-shop
        actions alone.
    own_click, own_conversion
        Individual effects, unit variance, independent of everything.
    segment, age_band
        What the log shows: the group with noise; a noisy quantile of `conversion`.
    share
        Cumulative share of the exposures, for draws.
    """

    group: Ints
    conversion: Floats
    click: Floats
    neutral: Floats
    action: Floats
    own_click: Floats
    own_conversion: Floats
    segment: Ints
    age_band: Ints
    share: Floats


@dataclass(frozen=True)
class Items:
    """Items, one entry each; latents as `Users`.

    Parameters
    ----------
    category, brand
        What the log shows: a category belongs to a group and mostly tells it; brands have a part of `conversion`.
    price
        Log-normal; cheap items convert more.
    """

    group: Ints
    conversion: Floats
    click: Floats
    neutral: Floats
    action: Floats
    category: Ints
    brand: Ints
    price: Floats
    share: Floats


@dataclass(frozen=True)
class Population:
    """Users, items and how their groups get on.

    Parameters
    ----------
    affinity, attraction
        [groups, groups] unit-variance, double-centred: interaction in the CVR, and in the CTR.
    """

    users: Users
    items: Items
    affinity: Floats
    attraction: Floats


def _shares(rng: np.random.Generator, count: int, tail: float) -> Floats:
    """Return the cumulative Zipf-Mandelbrot shares (rank + 10)^-tail in random order of rank."""
    weight = (rng.permutation(count) + 10.0) ** -tail
    cumulative = np.cumsum(weight)
    return np.asarray(cumulative / cumulative[-1])


def _latents(rng: np.random.Generator, group: Ints, groups: int) -> tuple[Floats, Floats]:
    """Return two unit-variance latents, of conversion and of click, a fifth of the variance between groups.

    With a dozen groups, independent centres would correlate by chance (sd 0.29) and blur the knobs: the second set of
    centres is made orthogonal to the first.
    """
    first, second = (centre - centre.mean() for centre in rng.standard_normal((2, groups)))
    second = second - (second @ first) / (first @ first) * first
    centres = first / first.std(), second / second.std()
    own = rng.standard_normal((2, len(group)))
    return (
        np.sqrt(_BETWEEN) * centres[0][group] + np.sqrt(1 - _BETWEEN) * own[0],
        np.sqrt(_BETWEEN) * centres[1][group] + np.sqrt(1 - _BETWEEN) * own[1],
    )


def _interaction(rng: np.random.Generator, groups: int) -> Floats:
    table = rng.standard_normal((groups, groups))
    table = table - table.mean(0, keepdims=True) - table.mean(1, keepdims=True) + table.mean()
    return np.asarray(table / table.std())


def _shown(rng: np.random.Generator, group: Ints, groups: int) -> Ints:
    """Return the group as the log shows it: right 4 times in 10, else any."""
    right = rng.random(len(group)) < _GROUP_SHOWN
    return np.where(right, group, rng.integers(0, groups, len(group)))


def _band(values: Floats, bands: int) -> Ints:
    """Return the quantile band of each value."""
    edges = np.quantile(values, np.arange(1, bands) / bands)
    return np.searchsorted(edges, values).astype(np.int64)


def populate(knobs: Knobs, vocabularies: Vocabularies, seed: int) -> Population:
    """Draw users, items and their groups; equal arguments give equal populations."""
    groups = knobs.groups
    rng = np.random.default_rng([seed, _USERS])
    count = vocabularies.users
    group = rng.integers(0, groups, count)
    conversion, click = _latents(rng, group, groups)
    users = Users(
        group=group,
        conversion=conversion,
        click=click,
        neutral=rng.standard_normal(count),
        action=np.random.default_rng([seed, _USER_ACTIONS]).standard_normal(count),
        own_click=rng.standard_normal(count),
        own_conversion=rng.standard_normal(count),
        segment=_shown(rng, group, groups),
        age_band=_band(0.6 * conversion + 0.8 * rng.standard_normal(count), AGE_BANDS),
        share=_shares(rng, count, knobs.tail),
    )
    rng = np.random.default_rng([seed, _GROUPS])
    tables = _interaction(rng, groups), _interaction(rng, groups)
    return Population(users, _items(knobs, vocabularies, seed), *tables)


def _items(knobs: Knobs, vocabularies: Vocabularies, seed: int) -> Items:
    groups, count = knobs.groups, vocabularies.items
    rng = np.random.default_rng([seed, _ITEMS])
    group = rng.integers(0, groups, count)
    # category c shows group c % groups, so each group has its own long-tailed set of categories
    variety = -(-vocabularies.categories // groups)
    rank = np.minimum((variety * rng.random(count) ** 2).astype(np.int64), variety - 1)
    category = (_shown(rng, group, groups) + groups * rank) % vocabularies.categories
    brand = np.minimum((vocabularies.brands * rng.random(count) ** 3).astype(np.int64), vocabularies.brands - 1)
    conversion, click = _latents(rng, group, groups)
    brand_effect = rng.standard_normal(vocabularies.brands)
    return Items(
        group=group,
        conversion=np.sqrt(0.75) * conversion + np.sqrt(0.25) * brand_effect[brand],
        click=click,
        neutral=rng.standard_normal(count),
        action=np.random.default_rng([seed, _ITEM_ACTIONS]).standard_normal(count),
        category=category,
        brand=brand,
        price=np.exp(PRICE_MEAN + PRICE_SD * rng.standard_normal(count)).round(2),
        share=_shares(rng, count, knobs.tail),
    )
