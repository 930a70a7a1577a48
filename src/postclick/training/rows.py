"""Table rows of a batch: id dropout to the unknown rows, and the record of which rows training ever saw.

Shapes: B rows, F sparse fields, S sequence fields, L values of one sequence field.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from postclick.data.arrays import Exposures, Ragged
from postclick.training.seeding import generator

__all__ = ["TouchedRows", "bernoulli_places", "drop_ids"]


def bernoulli_places(count: int, rate: float, random: np.random.Generator) -> NDArray[np.int64]:
    """Return the places of the successes among `count` independent draws at `rate`, in order.

    The gaps between successes are geometric, so the cost is that of the successes alone: 360 numbers for 1 % of a
    batch of 36,000 ids instead of 36,000.
    """
    if rate <= 0.0 or count == 0:
        return np.zeros(0, np.int64)
    parts: list[NDArray[np.int64]] = []
    last = -1
    while last < count:
        size = int((count - last) * rate * 1.1) + 16
        # a gap beyond the end is cut there: at tiny rates the sum of two would overflow
        gaps = np.minimum(random.geometric(rate, size), count + 1)
        parts.append(last + np.cumsum(gaps))
        last = int(parts[-1][-1])
    places = np.concatenate(parts)
    return places[: np.searchsorted(places, count)]


def drop_ids(exposures: Exposures, rate: float, seed: int, step: int) -> Exposures:
    """Replace each id by its field's unknown row with probability `rate` (SYSTEMS, Decision 12).

    Parameters
    ----------
    exposures
        A batch; its arrays are not changed.
    rate
        In [0, 1); 0 returns the batch itself.
    seed, step
        Name the random stream, so that a resumed run drops the same ids.
    """
    if rate <= 0.0:
        return exposures
    random = generator(seed, "id_dropout", step)
    fields = exposures.rows.shape[1]
    rows = exposures.rows.copy()
    places = bernoulli_places(rows.size, rate, random)
    if fields:
        rows.reshape(-1)[places] = places % fields
    sequences = tuple(
        _drop_values(sequence, fields + index, rate, random) for index, sequence in enumerate(exposures.sequences)
    )
    return replace(exposures, rows=rows, sequences=sequences)


def _drop_values(sequence: Ragged, unknown: int, rate: float, random: np.random.Generator) -> Ragged:
    values = sequence.values.copy()
    values[bernoulli_places(len(values), rate, random)] = unknown
    return replace(sequence, values=values)


class TouchedRows:
    """Which rows of the fused table were in a batch; an unknown row that never was is filled in at export.

    Parameters
    ----------
    table_rows
        Rows of the fused table.
    """

    def __init__(self, table_rows: int) -> None:
        self.mask: NDArray[np.bool_] = np.zeros(table_rows, np.bool_)

    def add(self, exposures: Exposures) -> None:
        """Note the rows of a batch, as the model gets it."""
        # NumPy scatters by int64 more than twice as fast as by int32
        self.mask[exposures.rows.reshape(-1).astype(np.int64)] = True
        for sequence in exposures.sequences:
            self.mask[sequence.values] = True
