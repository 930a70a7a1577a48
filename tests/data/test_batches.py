"""Training batches: every row once an epoch, reproducible, resumable."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from postclick.data.arrays import Exposures, Labels, Ragged
from postclick.data.batches import TrainingRows
from postclick.data.ipc import BlockWriter
from postclick.data.log import LogSplit, to_arrow
from postclick.schema import Schema, SequenceFeature, SparseFeature

SCHEMA = Schema((SparseFeature("f"), SequenceFeature("s")))
BLOCKS = (40, 3, 77, 60, 1, 19)


def exposures(first: int, rows: int) -> Exposures:
    ids = np.arange(first, first + rows)
    click = (ids % 3 == 0).astype(np.int8)
    text = np.array([f"u{i}" for i in ids], object)
    labels = Labels(click, click * 0, exposure_id=ids, user_id=text)
    offsets = np.concatenate([[0], np.cumsum(ids % 3)])
    ragged = Ragged(np.repeat(ids, ids % 3).astype(np.int32), offsets)
    matrix = np.ascontiguousarray(ids[:, None].astype(np.int32))
    return Exposures(matrix, np.zeros((rows, 0), np.float32), np.zeros((rows, 0), np.float32), (ragged,), labels)


@pytest.fixture(scope="module")
def split(tmp_path_factory) -> LogSplit:
    folder = tmp_path_factory.mktemp("log") / "train"
    folder.mkdir()
    first = 0
    for part, sizes in enumerate((BLOCKS[:3], BLOCKS[3:])):
        with BlockWriter(folder / f"part-{part:05d}.arrow") as writer:
            for rows in sizes:
                writer.write(to_arrow(exposures(first, rows), SCHEMA))
                first += rows
    return LogSplit(folder, SCHEMA)


MEMORY = {"permuted": 1 << 30, "windows": 6_000, "single blocks": 1}


@pytest.mark.parametrize("memory", MEMORY.values(), ids=MEMORY)
@pytest.mark.parametrize("batch_size", [1, 16, 64, 500])
def test_an_epoch_holds_every_row_once(split, memory, batch_size):
    rows = TrainingRows(split, memory)
    batches = list(rows.batches(batch_size, seed=1, epoch=0))
    assert sorted(np.concatenate([b.rows[:, 0] for b in batches]).tolist()) == list(range(sum(BLOCKS)))
    assert len(batches) == rows.num_batches(batch_size)
    assert {len(b) for b in batches[:-1]} <= {batch_size}
    for batch in batches:
        ids = batch.labels.exposure_id
        np.testing.assert_array_equal(batch.rows[:, 0], ids)
        np.testing.assert_array_equal(batch.labels.click, ids % 3 == 0)
        np.testing.assert_array_equal(batch.sequences[0].values, np.repeat(ids, ids % 3))
        assert batch.rows.flags.c_contiguous
        assert batch.labels.user_id is None


@settings(max_examples=40, deadline=None)
@given(memory=st.sampled_from(list(MEMORY.values())), size=st.integers(1, 90), seed=st.integers(0, 99), data=st.data())
def test_any_batch_can_be_the_first(split, memory, size, seed, data):
    rows = TrainingRows(split, memory)
    epoch = data.draw(st.integers(0, 3))
    start = data.draw(st.integers(0, rows.num_batches(size) + 1))
    whole = [b.rows[:, 0].tolist() for b in rows.batches(size, seed, epoch)]
    rest = [b.rows[:, 0].tolist() for b in TrainingRows(split, memory).batches(size, seed, epoch, start=start)]
    assert rest == whole[start:]


@pytest.mark.parametrize("memory", MEMORY.values(), ids=MEMORY)
def test_seed_and_epoch_change_the_order(split, memory):
    rows = TrainingRows(split, memory)
    orders = [
        np.concatenate([b.rows[:, 0] for b in rows.batches(32, seed, epoch)]).tolist()
        for seed, epoch in itertools.product((0, 1), (0, 1))
    ]
    assert len({tuple(order) for order in orders}) == 4
    assert list(range(sum(BLOCKS))) not in orders


def test_the_quality_is_stated(split):
    assert TrainingRows(split).quality == "A true permutation of all 200 rows every epoch."
    text = TrainingRows(split, 6_000).quality
    assert text.startswith("Block-shuffled: 6 blocks in random order")
    assert "% of an epoch" in text


def test_windows_hold_no_more_than_they_may(split, monkeypatch):
    rows = TrainingRows(split, 6_000)
    assert not rows.in_memory
    assert 1 <= rows.window_blocks < len(BLOCKS)
    monkeypatch.setattr(LogSplit, "read", lambda *_: pytest.fail("the split was read whole"))
    assert sum(len(b) for b in rows.batches(50, 0, 0)) == 200


def test_skipped_windows_are_not_read(split, monkeypatch):
    rows = TrainingRows(split, 1)
    read = []
    original = LogSplit.block
    monkeypatch.setattr(LogSplit, "block", lambda self, index: read.append(index) or original(self, index))
    list(rows.batches(10, 0, 0, start=19))
    assert len(read) < len(BLOCKS)


def test_wrong_arguments(split):
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        next(TrainingRows(split).batches(0, 0, 0))
