"""Communities of users and of items: structure that only the ids reveal, and clicks that contradict purchases.

Every user u is in one of `communities` communities k(u), every item v in one of as many l(v), drawn evenly and
independently of all that a log shows: no segment, age band, category, brand or price tells of them, and neither do the
groups g(u), h(v). What a community does is all alike for its members::

    C_i = sqrt(.4) x_k + sqrt(.4) y_l + sqrt(.2) <a_k, b_l>          of the CVR
    M_i = sqrt(.3) x'_k + sqrt(.3) y'_l + sqrt(.4) <a'_k, b'_l>      of the CTR alone

with x, y, x', y' numbers and a, b, a', b' vectors of `RANK` numbers; each of the six terms is centred, scaled to unit
variance and, within its pair (x with x', ...), uncorrelated. With t = `structure` the latents of the CVR and of the CTR
(c_i and m_i of `postclick.simulation`) become::

    c_i <- sqrt(1 - t) c_i + sqrt(t) C_i               m_i <- sqrt(1 - t) m_i + sqrt(t) M_i

so t is the share of their variance that many ids have in common. A log of clicks shows it (through r c_i and m_i, if
`selection` > 0), a log of conversions shows less of it, having fewer of them: who is like whom can be learned from the
first and used in the second.

**Contradiction.** With share k = `contradiction` of the item communities, rounded to a whole number of them, what draws
clicks keeps from buying::

    ctr_i = sigmoid( a + s [ w_l r c_i + sqrt(1 - r^2) m_i ] + n_i + ... )        w_l = -1 there, 1 elsewhere

The CVR's logit is what it was, c_i in all items alike; a click says r for it in some and -r in others. Over all
exposures the correlation of what the logits share goes from r at k = 0 through about 0 at k = 1/2 to -r at k = 1, where
nothing contradicts any more: it is at 1/2 that two exposures with one CTR call for two readings, as in the "curse of
knowledge" of CSTWA (Ouyang et al. 2023).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from postclick.simulation.presets import Knobs
from postclick.simulation.vocabularies import Vocabularies

__all__ = ["RANK", "Communities", "communities"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

RANK = 4
"""Width of the vectors whose products say how two communities get on."""
_CONVERSION = np.sqrt([0.4, 0.4, 0.2])
_CLICK = np.sqrt([0.3, 0.3, 0.4])
_COMMUNITIES = 21  # stream of random numbers, beside those of population, chunks and layout


@dataclass(frozen=True)
class Communities:
    """Who belongs where, and what it does.

    Parameters
    ----------
    user, item
        Community of each user and of each item, from 0.
    conversion, click
        [communities, communities] unit-variance tables C and M, over user community and item community.
    sign
        [communities] w of each item community: -1 where clicks contradict purchases, else 1.
    """

    user: Ints
    item: Ints
    conversion: Floats
    click: Floats
    sign: Floats

    def signs(self, item: Ints) -> Floats:
        """Return w of the items of exposures, [B]."""
        return np.asarray(self.sign[self.item[item]])

    def blended(self, share: float, latent: Floats, table: Floats, user: Ints, item: Ints) -> Floats:
        """Return a unit-variance latent of exposures, `share` of whose variance is the communities', [B]."""
        return np.asarray(np.sqrt(1.0 - share) * latent + np.sqrt(share) * table[self.user[user], self.item[item]])


def communities(knobs: Knobs, vocabularies: Vocabularies, seed: int) -> Communities | None:
    """Draw the communities; None in a world whose knobs give them nothing to do."""
    if not (knobs.structure or knobs.contradiction):
        return None
    rng = np.random.default_rng([seed, _COMMUNITIES])
    count = knobs.communities
    user, item = rng.integers(0, count, vocabularies.users), rng.integers(0, count, vocabularies.items)
    parts = [_pair(rng.standard_normal((2, count))) for _ in range(2)]
    vectors = rng.standard_normal((2, 2, count, RANK))
    parts.append(_pair(np.stack([_interaction(first @ second.T) for first, second in vectors])))
    sign = np.ones(count)
    sign[rng.permutation(count)[: round(knobs.contradiction * count)]] = -1.0
    tables = [
        weight[0] * own_user[:, None] + weight[1] * own_item[None, :] + weight[2] * both
        for weight, (own_user, own_item, both) in zip((_CONVERSION, _CLICK), zip(*parts, strict=True), strict=True)
    ]
    return Communities(user, item, tables[0], tables[1], sign)


def _interaction(table: Floats) -> Floats:
    """Return a table without its margins."""
    return np.asarray(table - table.mean(0, keepdims=True) - table.mean(1, keepdims=True) + table.mean())


def _pair(values: Floats) -> tuple[Floats, Floats]:
    """Return two centred arrays scaled to unit variance, the second made orthogonal to the first."""
    first, second = values[0] - values[0].mean(), values[1] - values[1].mean()
    second = second - (second * first).sum() / (first * first).sum() * first
    return first / first.std(), second / second.std()
