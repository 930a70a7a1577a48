"""The space of all pairs against a matrix of them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from postclick.data.sources import exposure_space
from postclick.data.sources.exposure_space import ExposureSpace
from postclick.data.sources.rating_files import Ratings


def ratings(seed, rows, users=(3, 5, 11), items=(2, 40)):
    random = np.random.default_rng(seed)
    return Ratings(random.choice(users, rows), random.choice(items, rows), random.integers(1, 6, rows).astype(float))


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.integers(0, 12), st.integers(1, 7))
def test_blocks_are_the_whole_matrix_with_the_last_rating_of_a_pair(seed, rows, size):
    train, test = ratings(seed, rows), ratings(seed + 1, 5, users=(5, 90))
    space = ExposureSpace.of(train, [test])
    last = {(u, i): v for u, i, v in zip(train.user, train.item, train.value, strict=True)}
    users, items = sorted({*train.user, *test.user}), sorted({*train.item, *test.item})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exposure_space, "_BATCH_ROWS", size)
        blocks = list(space.blocks())
        assert all(len(block) == size for block in blocks[:-1])
    assert len(space) == sum(map(len, blocks)) == len(users) * len(items)
    found = [
        (space.users[u], space.items[i], v if click else None)
        for block in blocks
        for u, i, click, v in zip(block.user, block.item, block.click, block.value, strict=True)
    ]
    assert found == [(u, i, last.get((u, i))) for u in users for i in items]
    assert space.again == rows - len(last)
    of_user, of_item = space.counts()
    assert of_user.tolist() == [sum(u == user for u, _ in last) for user in users]
    assert of_item.tolist() == [sum(i == item for _, i in last) for item in items]
    both = [(u, i) in last for u, i in zip(test.user, test.item, strict=True)]
    same = [last.get((u, i)) == v for u, i, v in zip(test.user, test.item, test.value, strict=True)]
    assert space.shared(space.rated(test)) == (sum(both), sum(same))


def test_an_extent_adds_users_and_items_without_a_rating():
    space = ExposureSpace.of(Ratings(np.array([1]), np.array([0]), np.array([4.0])), extent=(3, 2))
    assert (space.users.tolist(), space.items.tolist(), space.pair.tolist()) == ([0, 1, 2], [0, 1], [2])


def test_parts_keep_the_order(monkeypatch):
    monkeypatch.setattr(exposure_space, "_BATCH_ROWS", 4)
    given = ratings(0, 10)
    parts = list(ExposureSpace.of(given).rated(given).parts())
    assert [len(part) for part in parts] == [4, 4, 2]
    assert np.concatenate([part.value for part in parts]).tolist() == given.value.tolist()
