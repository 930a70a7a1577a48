"""A world's exposures as Parquet files, one row an exposure in time order."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from postclick import files
from postclick.schema import Columns, DenseFeature, Schema, SparseFeature
from postclick.simulation.chunks import Chunk, Outcomes, Plan

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["ParquetFile", "ParquetLayout"]

_PART_CHUNKS = 16  # about a million rows a file
_COMPRESSION = "zstd"


class ParquetFile:
    """One Parquet file, written batch by batch and appearing whole when left without an error."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stack = ExitStack()
        self._writer: Any = None

    def write(self, batch: pa.RecordBatch) -> None:
        """Append one row group."""
        import pyarrow.parquet as pq

        if self._writer is None:
            handle = self._stack.enter_context(files.create(self._path))
            self._writer = self._stack.enter_context(pq.ParquetWriter(handle, batch.schema, compression=_COMPRESSION))
        self._writer.write_batch(batch)

    def __enter__(self) -> ParquetFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)


class ParquetLayout:
    """Writes ``exposures/part-*.parquet``.

    Parameters
    ----------
    story
        The world's plan.
    folder
        The WORLD folder.
    """

    schema = Schema(
        (
            SparseFeature("user_id", "user"),
            SparseFeature("user_segment", "user"),
            SparseFeature("user_age_band", "user"),
            SparseFeature("item_id", "item"),
            SparseFeature("item_category", "item"),
            SparseFeature("item_brand", "item"),
            DenseFeature("price", "item", transform="log"),
            SparseFeature("hour", "context"),
            SparseFeature("device", "context"),
            SparseFeature("position", "context", serving=1),
        ),
        Columns(exposure_id="exposure_id", user_id="user_id", item_id="item_id", time="time"),
    )

    def __init__(self, story: Plan, folder: Path) -> None:
        self._story = story
        action = "action" if story.knobs.action_rate else None
        propensity = "propensity" if story.knobs.logged_propensity else None
        columns = replace(self.schema.columns, action=action, propensity=propensity)
        if story.knobs.delay:
            columns = _with_times(columns, story.knobs.attribution_days)
        self.schema = replace(self.schema, columns=columns)
        self._folder = folder / "exposures"
        self._part: ParquetFile | None = None
        self._stack = ExitStack()

    def __enter__(self) -> ParquetLayout:
        self._folder.mkdir()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def write(self, index: int, chunk: Chunk, outcomes: Outcomes) -> None:
        """Append chunk `index`; every 16 chunks a new file begins."""
        if index % _PART_CHUNKS == 0:
            self._stack.close()
            part = ParquetFile(self._folder / f"part-{index // _PART_CHUNKS:05d}.parquet")
            self._part = self._stack.enter_context(part)
        assert self._part is not None
        self._part.write(_batch(self._story, chunk, outcomes))


def _with_times(columns: Columns, window: float) -> Columns:
    return replace(
        columns,
        click_time="click_time",
        conversion_time="conversion_time",
        observed_until="observed_until",
        attribution_window=86_400.0 * window,
        immature="censor",
    )


def _batch(story: Plan, chunk: Chunk, outcomes: Outcomes) -> pa.RecordBatch:
    import pyarrow as pa

    users, items = story.population.users, story.population.items
    columns = {
        "exposure_id": chunk.exposure_id,
        "user_id": chunk.user + 1,
        "user_segment": users.segment[chunk.user] + 1,
        "user_age_band": users.age_band[chunk.user] + 1,
        "item_id": chunk.item + 1,
        "item_category": items.category[chunk.item] + 1,
        "item_brand": items.brand[chunk.item] + 1,
        "price": items.price[chunk.item],
        "hour": chunk.hour,
        "device": np.where(chunk.web == 1, "web", "app"),
        "position": chunk.position,
        "time": chunk.time,
        "click": outcomes.click,
        "conversion": outcomes.conversion,
    }
    if outcomes.action is not None:
        columns["action"] = outcomes.action
    if outcomes.propensity is not None:
        columns["propensity"] = outcomes.propensity
    if outcomes.times is not None:
        times = outcomes.times
        columns["click_time"] = pa.array(times.click, mask=outcomes.click == 0)
        columns["conversion_time"] = pa.array(times.conversion, mask=~times.seen)
        columns["observed_until"] = np.full(len(chunk), times.until)
    return pa.RecordBatch.from_pydict({name: pa.array(values) for name, values in columns.items()})
