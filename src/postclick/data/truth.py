"""The truth of a simulated log: ``truth.parquet`` of a WORLD to ``truth.arrow`` of a LOG, kept exposures only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from postclick.data.columns import IdKind, as_kind, column, id_kind, ids
from postclick.data.hashing import stable_hash
from postclick.data.ipc import BlockWriter, read_batches
from postclick.data.log import BLOCK_ROWS, SPLITS
from postclick.errors import DataError, Finding, InputMissingError
from postclick.files import MANIFEST, read_manifest

__all__ = ["world_truth", "write_truth"]

Words: TypeAlias = NDArray[np.uint64]
_PARTITION_ROWS = 8_000_000
"""Kept ids sorted at once: about 200 MB. More rows take more passes over the truth, not more memory."""
_COLUMNS = ("exposure_id", "ctr", "cvr_do", "cvr_click", "ctcvr")
_OPTIONAL = ("action", "ctar")
"""What a world with in-shop actions knows besides."""


def world_truth(source: Any) -> Path | None:
    """Return the truth that comes with raw data: where that is one WORLD folder (or a list of just one)."""
    single = source[0] if isinstance(source, list | tuple) and len(source) == 1 else source
    if not isinstance(single, str | Path) or not (Path(single) / MANIFEST).is_file():
        return None
    return Path(single) / "truth.parquet" if read_manifest(Path(single)).kind == "world" else None


def _kept(log: Path) -> Iterator[pa.Array]:
    name = "label:exposure_id"
    for split in SPLITS:
        for path in sorted((log / split).glob("*.arrow")):
            for batch in read_batches(path, [name]):
                yield batch.column(0)


def _words(ids_: pa.Array) -> tuple[Words, Words]:
    """Return two words an id that together are its identity: an integer itself, of text two hashes."""
    if pa.types.is_int64(ids_.type):
        words = np.asarray(ids_.fill_null(0) if ids_.null_count else ids_).view(np.uint64)
        return words, words
    text = np.asarray(ids_.fill_null("").to_numpy(zero_copy_only=False), object)
    return stable_hash(text), stable_hash(text, seed=1)


class _KeptIds:
    """The kept ids of one partition, sorted; remembers which of them were found."""

    def __init__(self, log: Path, partition: int, partitions: int) -> None:
        self._share = np.uint64(partition), np.uint64(partitions)
        parts = []
        for array in _kept(log):
            words, checks = _words(array)
            mine = words % self._share[1] == self._share[0]
            parts.append((words[mine], checks[mine]))
        words = np.concatenate([part[0] for part in parts])
        order = np.argsort(words, kind="stable")
        self._words, self._checks = words[order], np.concatenate([part[1] for part in parts])[order]
        self._found = np.zeros(len(order), np.bool_)

    def find(self, keys: pa.Array) -> NDArray[np.bool_]:
        """Return which of the keys are among them."""
        words, checks = _words(keys)
        if not len(self._words):
            return np.zeros(len(words), np.bool_)
        place = np.minimum(np.searchsorted(self._words, words), len(self._words) - 1)
        known: NDArray[np.bool_] = (self._words[place] == words) & (self._checks[place] == checks)
        self._found[place[known]] = True
        return known

    def lost(self, log: Path) -> tuple[int, list[str]]:
        """Return how many were not found, and the first three."""
        missing, examples = self._words[~self._found], list[str]()
        for array in _kept(log) if len(missing) else ():
            if len(examples) < 3:
                gone = np.isin(_words(array)[0], missing)
                examples += [str(value) for value in array.filter(pa.array(gone))[:3].to_pylist()]
        return len(missing), examples[:3]


def write_truth(truth: Path, log: Path) -> None:
    """Write ``truth.arrow`` into a log under construction, in the order of ``truth.parquet``.

    Kept ids are looked up a partition of them at a time, so memory does not grow with the rows.

    Raises
    ------
    InputMissingError
        Where there is no such file.
    DataError
        Where a kept exposure has no truth, or a column is missing.
    """
    if not truth.is_file():
        raise InputMissingError(Finding("input.missing", "no such file", str(truth)))
    try:
        file = pq.ParquetFile(truth)
        absent = [name for name in _COLUMNS if name not in file.schema_arrow.names]
        if absent:
            raise DataError(Finding("data.schema_mismatch", f"the truth lacks {', '.join(absent)}", truth.name))
        _write(file, log, truth.name)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(Finding("data.corrupt_file", str(error), truth.name)) from error


def _write(file: pq.ParquetFile, log: Path, where: str) -> None:
    kinds = {id_kind(array) for array in _kept(log)}
    kind = kinds.pop() if kinds else "none"
    rows = sum(len(array) for array in _kept(log))
    names = [*_COLUMNS, *(name for name in _OPTIONAL if name in file.schema_arrow.names)]
    partitions = max(1, -(-rows // _PARTITION_ROWS))
    chosen: list[NDArray[np.uint8]] = []
    for partition in range(partitions):
        wanted = _KeptIds(log, partition, partitions)
        for number, (keys, _) in enumerate(_batches(file, kind, names[:1])):
            packed = np.packbits(wanted.find(keys))
            if partition == 0:
                chosen.append(packed)
            else:
                chosen[number] |= packed
        lost, examples = wanted.lost(log)
        if lost:
            fix = "pass the truth of this world"
            what = "exposures without truth"
            raise DataError(Finding("data.schema_mismatch", what, where, lost, tuple(examples), fix))
    with BlockWriter(log / "truth.arrow") as writer:
        for packed, (keys, batch) in zip(chosen, _batches(file, kind, names), strict=True):
            numbers = {name: column(batch, name).cast(pa.float64()) for name in names[1:]}
            mask = np.unpackbits(packed, count=batch.num_rows).astype(np.bool_)
            writer.write(pa.RecordBatch.from_pydict({"exposure_id": keys, **numbers}).filter(pa.array(mask)))


def _batches(file: pq.ParquetFile, kind: IdKind, names: Sequence[str]) -> Iterator[tuple[pa.Array, pa.RecordBatch]]:
    """Yield (exposure ids as the log has them, rows)."""
    for batch in file.iter_batches(batch_size=BLOCK_ROWS, columns=list(names)):
        yield as_kind(ids(column(batch, "exposure_id"), "exposure_id")[0], kind), batch
