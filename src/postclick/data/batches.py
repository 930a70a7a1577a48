"""Training batches: a true permutation where the rows fit in memory, block-shuffled with a stated quality where not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from postclick.data.arrays import Exposures, Labels, concatenate
from postclick.data.log import LogSplit, Role

__all__ = ["TrainingRows"]

_DEFAULT_MEMORY = 4 << 30


def _lean(exposures: Exposures) -> Exposures:
    """Drop labels that are text: gathering Python strings costs more than the rest of a batch."""
    if exposures.labels is None:
        return exposures
    pairs = ((entry.name, getattr(exposures.labels, entry.name)) for entry in fields(Labels))
    kept = {name: value for name, value in pairs if value is not None and value.dtype.kind not in "OUT"}
    return replace(exposures, labels=Labels(**kept))


class TrainingRows:
    """The rows of a split in shuffled batches; equal (seed, epoch) give equal batches, and any batch can be the first.

    Parameters
    ----------
    split
        The rows. Label columns that are text are left out of the batches.
    memory_bytes
        How much memory the rows may take. A split that fits is read once and gets a true permutation an epoch. A larger
        one is block-shuffled: its blocks are put in random order, as many as fit in half of the memory make a window,
        and the rows of a window are permuted.
    role
        The rows of ``valid`` to take, in memory only.
    """

    def __init__(self, split: LogSplit, memory_bytes: int = _DEFAULT_MEMORY, role: Role = "all") -> None:
        self.split, self.role = split, role
        self._block_rows = split.block_rows
        self.in_memory = split.nbytes <= memory_bytes or role != "all"
        largest = max(self._block_rows, default=1)
        row_bytes = split.nbytes / max(len(split), 1)
        # a window exists twice for a moment: as blocks and joined
        self.window_blocks = max(1, int(memory_bytes / 2 / max(row_bytes * largest, 1)))

    @cached_property
    def _rows(self) -> Exposures:
        return _lean(self.split.read(self.role))

    def __len__(self) -> int:
        return len(self._rows) if self.role != "all" else len(self.split)

    def num_batches(self, batch_size: int) -> int:
        """Return the batches of an epoch, the last of which may be smaller."""
        return -(-len(self) // batch_size)

    @property
    def quality(self) -> str:
        """How good the shuffling is, in a sentence."""
        if self.in_memory:
            return f"A true permutation of all {len(self):,} rows every epoch."
        blocks = len(self._block_rows)
        share = min(1.0, self.window_blocks / blocks)
        rows = int(share * len(self))
        return (
            f"Block-shuffled: {blocks:,} blocks in random order, rows permuted within windows of "
            f"{self.window_blocks:,} blocks (about {rows:,} rows, {100 * share:.2g} % of an epoch)."
        )

    def batches(self, batch_size: int, seed: int, epoch: int, start: int = 0) -> Iterator[Exposures]:
        """Yield the batches of one epoch from batch `start` on, labels included.

        Parameters
        ----------
        batch_size
            Rows a batch.
        seed, epoch
            Fix the order.
        start
            Batches to skip, without reading them where the rows are not in memory.
        """
        if batch_size < 1 or start < 0:
            raise ValueError(f"batch_size must be at least 1 and start at least 0, got {batch_size} and {start}")
        if self.in_memory:
            yield from self._permuted(batch_size, seed, epoch, start)
        else:
            yield from self._windows(batch_size, seed, epoch, start)

    def _permuted(self, batch_size: int, seed: int, epoch: int, start: int) -> Iterator[Exposures]:
        rows = self._rows
        order = _permutation(len(rows), seed, epoch)
        for first in range(start * batch_size, len(rows), batch_size):
            yield rows.take(order[first : first + batch_size].astype(np.int64))

    def _windows(self, batch_size: int, seed: int, epoch: int, start: int) -> Iterator[Exposures]:
        """Walk the windows; the rows of an epoch are one sequence, so a batch may span two of them."""
        blocks = _permutation(len(self._block_rows), seed, epoch)
        skip = start * batch_size
        waiting: list[Exposures] = []
        for window, first in enumerate(range(0, len(blocks), self.window_blocks)):
            chosen = blocks[first : first + self.window_blocks]
            size = sum(self._block_rows[block] for block in chosen)
            if skip >= size:
                skip -= size
                continue
            joined = concatenate([_lean(self.split.block(int(block))) for block in chosen])
            order = _permutation(size, seed, epoch, window + 1)[skip:].astype(np.int64)
            skip = 0
            while len(order):
                room = batch_size - sum(len(part) for part in waiting)
                waiting.append(joined.take(order[:room]))
                order = order[room:]
                if sum(len(part) for part in waiting) == batch_size:
                    yield concatenate(waiting)
                    waiting = []
        if waiting:
            yield concatenate(waiting)


def _permutation(size: int, seed: int, epoch: int, window: int = 0) -> NDArray[np.int32]:
    """Return a permutation that depends on (seed, epoch, window) alone; int32 halves its memory."""
    generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, epoch, window])))
    order = np.arange(size, dtype=np.int32)
    generator.shuffle(order)
    return order
