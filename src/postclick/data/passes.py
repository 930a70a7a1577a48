"""The later passes of `prepare` over staged pieces: what the training rows hold, and the encoded files.

Both functions run a piece at a time, here or in another process, and hold at most some blocks of rows.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from postclick.data.columns import column, numbers
from postclick.data.counts import CountMerger, VocabularyCounts
from postclick.data.encode import EncodeCounts, Encoder, FieldCounts
from postclick.data.hashing import stable_hash
from postclick.data.ipc import BlockWriter
from postclick.data.ledger import Funnel, Ledger
from postclick.data.log import BLOCK_ROWS, SPLITS, to_arrow
from postclick.data.partial import Marker
from postclick.data.row_sample import RowSampler
from postclick.data.sources.base import ValueCounts
from postclick.data.split import SplitPlan
from postclick.data.staged import StagedPiece, read_staged, staged_labels
from postclick.data.transforms import DenseStatistics
from postclick.schema import Schema

__all__ = ["EncodedPiece", "PassTask", "Survey", "empty_statistics", "encode_piece", "forget_encoder", "survey_piece"]


@dataclass(frozen=True)
class PassTask:
    """One staged piece to go over; survives pickling.

    Parameters
    ----------
    piece
        The staged piece.
    schema
        The log's schema.
    types
        Types of the staged columns.
    plan
        Finds each row's split.
    drop
        File within the piece -> positions of rows to leave out (later copies of an exposure id).
    folder
        The log's folder under construction.
    marker
        Sign that the piece is encoded; None leaves none.
    """

    piece: StagedPiece
    schema: Schema
    types: Mapping[str, pa.DataType]
    plan: SplitPlan
    drop: Mapping[int, NDArray[np.int64]]
    folder: Path
    marker: Marker | None = None

    @property
    def file(self) -> str:
        """Name of the encoded file in the folder of each split."""
        return f"part-{self.piece.index:05d}.arrow"

    @property
    def sample(self) -> Path | None:
        """The file of the audit's sample of its rows, beside the marker; None without a marker."""
        return None if self.marker is None else self.marker.path.with_name(f"sample-{self.piece.index:05d}.arrow")


@dataclass(frozen=True)
class Survey:
    """What the training rows of a piece hold.

    Parameters
    ----------
    rows
        Training rows.
    counts
        Their values a field.
    statistics
        Their dense features.
    """

    rows: int
    counts: VocabularyCounts
    statistics: DenseStatistics


@dataclass(frozen=True)
class EncodedPiece:
    """What encoding a piece gave.

    Parameters
    ----------
    ledger
        Rows kept a split, and their values.
    encoded
        Split -> what the encoder met.
    """

    ledger: Ledger
    encoded: Mapping[str, EncodeCounts] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the plain form of a marker."""
        return {
            "ledger": self.ledger.to_dict(),
            "encoded": {
                split: [counts.rows, {name: asdict(count) for name, count in counts.fields.items()}]
                for split, counts in self.encoded.items()
            },
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> EncodedPiece:
        """Read the plain form."""
        encoded = {
            split: EncodeCounts(rows, {name: FieldCounts(**count) for name, count in counts.items()})
            for split, (rows, counts) in value["encoded"].items()
        }
        return cls(Ledger.from_dict(value["ledger"]), encoded)


def empty_statistics(schema: Schema) -> DenseStatistics:
    """Return the statistics of no row."""
    return DenseStatistics.of(np.zeros((0, len(schema.dense))), np.zeros(0, np.uint64), schema)


def _batches(task: PassTask) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a piece that are not dropped."""
    for number, file in enumerate(task.piece.files):
        drop, first = task.drop.get(number), 0
        for batch in read_staged(file, task.types):
            rows, kept = batch.num_rows, batch
            if drop is not None:
                keep = np.ones(rows, np.bool_)
                keep[drop[(drop >= first) & (drop < first + rows)] - first] = False
                kept = batch.filter(pa.array(keep))
            first += rows
            if kept.num_rows:
                yield kept


def _dense(batch: pa.RecordBatch, schema: Schema) -> NDArray[np.float64]:
    values = np.empty((batch.num_rows, len(schema.dense)))
    for position, feature in enumerate(schema.dense):
        values[:, position] = numbers(column(batch, feature.name), feature.name)
    return values


def survey_piece(task: PassTask) -> Survey:
    """Count the values and summarise the dense features of a piece's training rows."""
    merger, statistics, rows = CountMerger(), empty_statistics(task.schema), 0
    merger.add(VocabularyCounts.of(_typed_empty(task), task.schema))
    for batch in _batches(task):
        labels = staged_labels(batch)
        train = task.plan.assign(labels, task.piece.role) == 0
        if not train.any():
            continue
        chosen = batch if train.all() else batch.filter(pa.array(train))
        assert labels.exposure_id is not None
        merger.add(VocabularyCounts.of(chosen, task.schema))
        if task.schema.dense:
            keys = stable_hash(labels.exposure_id[train])
            statistics = statistics.merge(DenseStatistics.of(_dense(chosen, task.schema), keys, task.schema))
        rows += chosen.num_rows
    return Survey(rows, merger.result(), statistics)


def _typed_empty(task: PassTask) -> pa.RecordBatch:
    """Return no row with all columns, so that every field has its type even without training rows here."""
    return pa.RecordBatch.from_pydict({name: pa.array([], kind) for name, kind in task.types.items()})


@lru_cache(maxsize=1)
def _encoder(folder: Path, schema: Schema) -> Encoder:
    """One encoder a process: its indices are built once, not once a piece."""
    return Encoder.load(folder, schema)


def forget_encoder() -> None:
    """Release the encoder's memory."""
    _encoder.cache_clear()


def encode_piece(task: PassTask) -> EncodedPiece:
    """Encode a piece into ``SPLIT/part-NNNNN.arrow`` and count what became of it; or find it done already."""
    body = None if task.marker is None else task.marker.read()
    if body is not None:
        done = EncodedPiece.from_dict(body)
        made = [task.folder / split / task.file for split in done.encoded] + ([task.sample] if task.sample else [])
        if all(path.is_file() for path in made):
            return done
    if task.marker is not None:
        task.marker.clear()
    for split in SPLITS:  # of a run with another plan
        (task.folder / split / task.file).unlink(missing_ok=True)
    piece = _encode(task)
    if task.marker is not None:
        task.marker.write(piece.to_dict())
    return piece


def _encode(task: PassTask) -> EncodedPiece:
    """Encode blocks of `BLOCK_ROWS` rows."""
    encoder = _encoder(task.folder / "vocabulary", task.schema)
    ledger, encoded = Ledger(), dict[str, EncodeCounts]()
    sampler = RowSampler(task.schema)
    with contextlib.ExitStack() as stack:
        writers = [stack.enter_context(BlockWriter(task.folder / split / task.file)) for split in SPLITS]
        for code, block in _blocks(task):
            split = SPLITS[code]
            exposures, counts = encoder.encode(block)
            labels = staged_labels(block)
            sampler.add(block, labels, code, place=(task.piece.index << 40) + ledger.kept_rows)
            writers[code].write(to_arrow(replace(exposures, labels=labels), task.schema))
            set_click = _total(column(block, "label:set_click")) if "label:set_click" in block.schema.names else 0
            funnel = Funnel.of(labels, set_click=set_click)
            fields = [feature.name for feature in task.schema.fields]
            values = {name: counts.fields[name] for name in fields}
            kept = {n: ValueCounts(0, v.kept, v.truncated, 0, v.rejected) for n, v in values.items()}
            ledger += Ledger(kept={split: funnel}, values=kept)
            encoded[split] = encoded.get(split, EncodeCounts()) + counts
    if task.sample is not None:
        sampler.result().save(task.sample)
    return EncodedPiece(ledger, encoded)


def _total(flags: pa.Array) -> int:
    return int(np.asarray(flags).sum())


def _blocks(task: PassTask) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Yield (split, rows): whole blocks as they fill up, the rest at the end."""
    waiting: list[list[pa.RecordBatch]] = [[] for _ in SPLITS]
    for batch in _batches(task):
        codes = task.plan.assign(staged_labels(batch), task.piece.role)
        for code in np.unique(codes):
            mask = codes == code
            waiting[code].append(batch if mask.all() else batch.filter(pa.array(mask)))
            while sum(part.num_rows for part in waiting[code]) >= BLOCK_ROWS:
                whole = pa.concat_batches(waiting[code])  # once, or every column would be put together at each use
                yield int(code), whole.slice(0, BLOCK_ROWS)
                rest = whole.slice(BLOCK_ROWS)
                waiting[code] = [rest] if rest.num_rows else []
    for code, parts in enumerate(waiting):
        if parts:
            yield code, pa.concat_batches(parts)
