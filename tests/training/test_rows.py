from __future__ import annotations

from collections.abc import Callable

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from postclick.data.arrays import Exposures
from postclick.training.rows import TouchedRows, bernoulli_places, drop_ids
from postclick.training.seeding import generator

Make = Callable[[int, int], Exposures]


@given(st.integers(0, 2000), st.floats(0.0, 0.99), st.integers(0, 1000))
def test_places_ascend_inside_the_range(count: int, rate: float, seed: int) -> None:
    places = bernoulli_places(count, rate, generator(seed, "test"))
    assert (np.diff(places) > 0).all()
    assert not len(places) or (places[0] >= 0 and places[-1] < count)


def test_tiny_rates_end() -> None:
    assert len(bernoulli_places(36_000, 1e-300, generator(0, "test"))) == 0


def test_places_are_bernoulli() -> None:
    count, draws, rate = 50, 20_000, 0.1
    random = generator(0, "test")
    hits = np.zeros((draws, count))
    for row in hits:
        row[bernoulli_places(count, rate, random)] = 1
    # every place, the first and the last too, has the rate; neighbours are independent; 5 standard errors
    margin = 5 * np.sqrt(rate * (1 - rate) / draws)
    assert np.abs(hits.mean(axis=0) - rate).max() < margin
    assert abs((hits[:, 1:] * hits[:, :-1]).mean() - rate**2) < margin / 5


def test_dropped_ids_become_their_fields_unknown_row(exposures: Make) -> None:
    batch = exposures(5000, 3)
    dropped = drop_ids(batch, 0.2, seed=1, step=7)
    changed = dropped.rows != batch.rows
    assert abs(changed.mean() - 0.2) < 0.02
    fields = np.broadcast_to(np.arange(2), changed.shape)
    assert np.array_equal(dropped.rows[changed], fields[changed])
    values, before = dropped.sequences[0].values, batch.sequences[0].values
    assert abs((values != before).mean() - 0.2) < 0.02
    assert set(values[values != before]) == {2}
    assert np.array_equal(dropped.sequences[0].offsets, batch.sequences[0].offsets)


def test_dropping_leaves_its_input_alone_and_is_named_by_the_step(exposures: Make) -> None:
    batch = exposures(200, 3)
    before = batch.rows.copy()
    first = drop_ids(batch, 0.5, 1, 7)
    assert np.array_equal(batch.rows, before)
    assert np.array_equal(first.rows, drop_ids(batch, 0.5, 1, 7).rows)
    assert not np.array_equal(first.rows, drop_ids(batch, 0.5, 1, 8).rows)
    assert drop_ids(batch, 0.0, 1, 7) is batch


def test_touched_rows_are_those_of_the_batches(exposures: Make) -> None:
    touched = TouchedRows(63)
    batch = exposures(20, 3)
    touched.add(batch)
    expected = sorted({*batch.rows.reshape(-1).tolist(), *batch.sequences[0].values.tolist()})
    assert np.flatnonzero(touched.mask).tolist() == expected
