"""All user x item pairs as exposures, of which those with a rating were clicked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from postclick.data.sources.rating_files import Ratings

__all__ = ["ExposureSpace", "Pairs"]

_BATCH_ROWS = 65_536


@dataclass(frozen=True)
class Pairs:
    """Some user x item pairs, B of them.

    Parameters
    ----------
    user, item
        Places among the users and items of the space.
    click
        bool: the pair has a rating.
    value
        The rating; NaN where there is none.
    """

    user: NDArray[np.int64]
    item: NDArray[np.int64]
    click: NDArray[np.bool_]
    value: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.user)

    def parts(self) -> Iterator[Pairs]:
        """Yield them in order, at most 65,536 at a time."""
        for start in range(0, len(self), _BATCH_ROWS):
            part = slice(start, start + _BATCH_ROWS)
            yield Pairs(self.user[part], self.item[part], self.click[part], self.value[part])


@dataclass(frozen=True)
class ExposureSpace:
    """The pairs of every user with every item; ratings are in memory (16 bytes each), pairs are made as they are read.

    Parameters
    ----------
    users, items
        Ids, ascending.
    pair
        int64 [N], ascending: user's place * number of items + item's place, of each pair with a rating in training.
    value
        float64 [N], its rating; the last one where a pair was rated several times.
    again
        Ratings that a later one of the same pair replaced.
    """

    users: NDArray[np.int64]
    items: NDArray[np.int64]
    pair: NDArray[np.int64]
    value: NDArray[np.float64]
    again: int

    @classmethod
    def of(cls, train: Ratings, others: Sequence[Ratings] = (), extent: tuple[int, int] = (0, 0)) -> ExposureSpace:
        """Return the space of all users and items that occur, clicked where `train` has a rating.

        Parameters
        ----------
        train, others
            Ratings; of `others` the users and items count.
        extent
            Users 0 to extent[0] - 1 and items 0 to extent[1] - 1 are there, rated or not.
        """
        whole = (train, *others)
        users = np.unique(np.concatenate([np.arange(extent[0]), *(part.user for part in whole)]))
        items = np.unique(np.concatenate([np.arange(extent[1]), *(part.item for part in whole)]))
        pair = np.searchsorted(users, train.user) * len(items) + np.searchsorted(items, train.item)
        # the last of equal ones is the first of the reversed
        distinct, last = np.unique(pair[::-1], return_index=True)
        return cls(users, items, distinct, train.value[::-1][last], len(pair) - len(distinct))

    def __len__(self) -> int:
        return len(self.users) * len(self.items)

    def rated(self, ratings: Ratings) -> Pairs:
        """Return ratings of this space's users and items as pairs that were all clicked."""
        user, item = np.searchsorted(self.users, ratings.user), np.searchsorted(self.items, ratings.item)
        return Pairs(user, item, np.ones(len(ratings), np.bool_), ratings.value)

    def blocks(self) -> Iterator[Pairs]:
        """Yield all pairs, a user's after the other's, at most 65,536 at a time."""
        for start in range(0, len(self), _BATCH_ROWS):
            stop = min(start + _BATCH_ROWS, len(self))
            user, item = np.divmod(np.arange(start, stop), len(self.items))
            low, high = np.searchsorted(self.pair, [start, stop])
            click, value = np.zeros(stop - start, np.bool_), np.full(stop - start, np.nan)
            places = self.pair[low:high] - start
            click[places], value[places] = True, self.value[low:high]
            yield Pairs(user, item, click, value)

    def shared(self, pairs: Pairs) -> tuple[int, int]:
        """Return how many of `pairs` have a rating in training, and how many of those the same one."""
        if not len(self.pair):
            return 0, 0
        code = pairs.user * len(self.items) + pairs.item
        place = np.minimum(np.searchsorted(self.pair, code), len(self.pair) - 1)
        inside = self.pair[place] == code
        return int(inside.sum()), int((inside & (self.value[place] == pairs.value)).sum())

    def counts(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the number of ratings in training of each user and of each item."""
        user, item = np.divmod(self.pair, max(len(self.items), 1))
        return np.bincount(user, minlength=len(self.users)), np.bincount(item, minlength=len(self.items))
