"""Rows drawn for timing: ids with a long tail in columns of Ali-CCP's sizes, labels that depend on them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from postclick.data.arrays import Exposures, Labels
from postclick.data.log import BLOCK_ROWS, LogSpec, LogSplit, to_arrow
from postclick.schema import Columns, Schema, Side, SparseFeature

# SYSTEMS.md 13.2: the 18 single-valued columns of Ali-CCP as AITM prepares them
ALI_CCP = (
    *(238635, 98, 14, 3, 8, 4, 4, 3, 5, 467298, 6929, 263942, 106399, 5888, 104830, 51878),
    *(37148, 4),
)


def table_sizes(fields: int, table_rows: int | None) -> tuple[int, ...]:
    """Return values a field: Ali-CCP's, repeated to `fields` and scaled to `table_rows` in all."""
    sizes = np.array([ALI_CCP[index % len(ALI_CCP)] for index in range(fields)], np.float64)
    if table_rows is not None:
        sizes *= table_rows / sizes.sum()
    return tuple(int(size) for size in np.maximum(sizes.round(), 2))


def draw(rows: int, sizes: Sequence[int], seed: int) -> tuple[NDArray[np.int32], NDArray[np.int8], NDArray[np.int8]]:
    """Return ids from 0 within each field, [rows, F], and labels: about 10 % clicks, 10 % of them converted."""
    random = np.random.default_rng(seed)
    ids = np.empty((rows, len(sizes)), np.int32)
    click_odds, conversion_odds = np.full(rows, -2.4), np.full(rows, -2.4)
    for column, size in enumerate(sizes):
        ids[:, column] = np.minimum(size ** random.random(rows) - 1, size - 1)
        effects = random.normal(0, 1.2 / len(sizes) ** 0.5, (2, size)).astype(np.float32)
        click_odds += effects[0][ids[:, column]]
        conversion_odds += effects[1][ids[:, column]]
    click = random.random(rows) < 1 / (1 + np.exp(-click_odds))
    conversion = click & (random.random(rows) < 1 / (1 + np.exp(-conversion_odds)))
    return ids, click.astype(np.int8), conversion.astype(np.int8)


def write_split(folder: Path, ids: NDArray[np.int32], labels: Labels, sizes: Sequence[int], schema: Schema) -> LogSplit:
    """Write the rows as `prepare` lays them out, so that postclick's own loader is what is measured."""
    fields = len(sizes)
    firsts = fields + np.concatenate([[0], np.cumsum(sizes)[:-1]])
    folder.mkdir()
    empty = np.zeros((len(ids), 0), np.float32)
    exposures = Exposures((ids + firsts).astype(np.int32), empty, empty, (), labels)
    batch = to_arrow(exposures, schema)
    with pa.OSFile(str(folder / "part-00000.arrow"), "wb") as handle, pa.ipc.new_file(handle, batch.schema) as writer:
        for start in range(0, len(ids), BLOCK_ROWS):
            writer.write_batch(batch.slice(start, BLOCK_ROWS))
    return LogSplit(folder, schema)


def draw_action(click: NDArray[np.int8], conversion: NDArray[np.int8], seed: int) -> NDArray[np.int8]:
    """Return actions in the shop: after 60 % of the purchases and, as in ESM2's log, 13 % of the other clicks."""
    rates = np.where(conversion == 1, 0.6, 0.13)
    return ((click == 1) & (np.random.default_rng((seed, 1)).random(len(click)) < rates)).astype(np.int8)


def drawn_schema(fields: int) -> Schema:
    """Return sides and ids as in Ali-CCP, repeated to `fields`: 9 columns of a user, 4 of an item, 5 others."""
    sides: list[Side] = [*["user"] * 9, *["item"] * 4, *["context"] * 5]
    features = tuple(SparseFeature(f"f{index}", sides[index % len(sides)]) for index in range(fields))
    return Schema(features, Columns(user_id="f0", item_id="f9" if fields > 9 else None))


def drawn_split(
    folder: Path, sizes: Sequence[int], rows: int, seed: int, *, action: bool = False
) -> tuple[LogSplit, LogSpec]:
    """Return drawn rows as a split on disk, and what is known of them; `action` adds that label."""
    ids, click, conversion = draw(rows, sizes, seed)
    acted = draw_action(click, conversion, seed) if action else None
    schema = drawn_schema(len(sizes))
    split = write_split(folder / "train", ids, Labels(click, conversion, acted), sizes, schema)
    counts = float(click.sum()), float(conversion.sum()), None if acted is None else float(acted.sum())
    return split, LogSpec(schema, len(sizes) + sum(sizes), rows, *counts, field_rows=tuple(sizes))
