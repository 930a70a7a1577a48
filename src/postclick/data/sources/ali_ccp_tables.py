"""Common features on disk: staged in pieces, put together to arrays that processes map into memory and share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from postclick import files
from postclick.data.ipc import BlockWriter, read_batches
from postclick.data.sources.ali_ccp_common import Common, CommonPart, Ragged, index_keys

__all__ = ["load_tables", "write_part", "write_tables"]

_INDEX = "index.json"
_LARGEST = int(np.iinfo(np.int32).max)


def write_part(path: Path, parts: Iterable[CommonPart]) -> None:
    """Write some lines of a common-feature file as columns."""
    with BlockWriter(path) as writer:
        for part in parts:
            writer.write(_batch(part))


def _batch(part: CommonPart) -> pa.RecordBatch:
    replaced = np.zeros(part.single.shape, np.int32) if part.replaced is None else part.replaced.astype(np.int32)
    columns = {"key": pa.array(part.keys), "check": pa.array(part.checks)}
    for name, matrix in (("single", part.single), ("replaced", replaced)):
        if matrix.shape[1]:
            columns[name] = pa.FixedSizeListArray.from_arrays(pa.array(matrix.reshape(-1)), matrix.shape[1])
    for place, ragged in enumerate(part.lists):
        values = pa.array(ragged.values.astype(np.int64))
        columns[f"values{place}"] = pa.LargeListArray.from_arrays(pa.array(ragged.offsets), values)
        columns[f"weights{place}"] = pa.LargeListArray.from_arrays(pa.array(ragged.offsets), pa.array(ragged.weights))
        columns[f"cut{place}"] = pa.array(ragged.cut)
    return pa.RecordBatch.from_pydict(columns)


def _columns(parts: Sequence[Path], *names: str) -> Iterator[list[pa.Array]]:
    for path in parts:
        if path.is_file():  # a piece without a line leaves no file
            for batch in read_batches(path, names):
                yield [batch.column(name) for name in names]


def _flat(parts: Sequence[Path], name: str) -> Iterator[NDArray[Any]]:
    """Yield the numbers of a column, those of lists end to end."""
    for (array,) in _columns(parts, name):
        lists = pa.types.is_large_list(array.type) or pa.types.is_fixed_size_list(array.type)
        yield np.asarray(array.flatten() if lists else array)


def _whole(parts: Sequence[Path], name: str, kind: type[Any]) -> NDArray[Any]:
    return np.concatenate([np.zeros(0, kind), *_flat(parts, name)])


def write_tables(parts: Sequence[Path], folder: Path, fields: int, lists: int) -> None:
    """Put the pieces of one file together; a column at a time, and never a whole one of the long ones in memory.

    Parameters
    ----------
    parts
        What `write_part` wrote, in the order of the file.
    folder
        An empty folder.
    fields, lists
        Numbers of single-valued and of sequence fields.
    """
    keys, checks = (_whole(parts, name, np.uint64) for name in ("key", "check"))
    rows = len(keys)
    keys, checks, order, again = index_keys(keys, checks)
    for name, array in (("key", keys), ("check", checks), ("order", order)):
        _save(folder / f"{name}.npy", array.shape, array.dtype, [array])
    if fields:
        _save(folder / "single.npy", (rows, fields), np.int64, _flat(parts, "single"))
        if any(bool(counts.any()) for counts in _flat(parts, "replaced")):
            _save(folder / "replaced.npy", (rows, fields), np.int32, _flat(parts, "replaced"))
    for place in range(lists):
        offsets = np.zeros(rows + 1, np.int64)
        lengths = [np.diff(np.asarray(array.offsets)) for (array,) in _columns(parts, f"values{place}")]
        np.cumsum(np.concatenate([np.zeros(0, np.int64), *lengths]), out=offsets[1:])
        cut = _whole(parts, f"cut{place}", np.int64)
        largest = max((int(values.max(initial=0)) for values in _flat(parts, f"values{place}")), default=0)
        kind = np.int32 if largest <= _LARGEST else np.int64
        _save(folder / f"offsets{place}.npy", offsets.shape, np.int64, [offsets])
        _save(folder / f"cut{place}.npy", cut.shape, np.int64, [cut])
        _save(folder / f"values{place}.npy", (int(offsets[-1]),), kind, _flat(parts, f"values{place}"))
        _save(folder / f"weights{place}.npy", (int(offsets[-1]),), np.float32, _flat(parts, f"weights{place}"))
    files.write_json(folder / _INDEX, {"rows": rows, "fields": fields, "lists": lists, "replaced_keys": again})


def _save(path: Path, shape: tuple[int, ...], kind: Any, chunks: Iterable[NDArray[Any]]) -> None:
    """Write an array of the .npy format from its numbers in order."""
    header = {"descr": np.lib.format.dtype_to_descr(np.dtype(kind)), "fortran_order": False, "shape": shape}
    with files.create(path) as handle:
        np.lib.format.write_array_header_1_0(handle, header)
        for chunk in chunks:
            handle.write(np.ascontiguousarray(chunk, kind).data)


def load_tables(folder: Path) -> Common:
    """Map the tables that `write_tables` wrote into memory; each process does so once."""
    return _load(folder, (folder / _INDEX).stat().st_mtime_ns)


@lru_cache(maxsize=4)
def _load(folder: Path, _written: int) -> Common:
    def array(name: str) -> NDArray[Any]:
        path = folder / f"{name}.npy"
        found = np.load(path, mmap_mode="r", allow_pickle=False)
        return np.asarray(found)

    index = files.read_json(folder / _INDEX)
    single = array("single") if index["fields"] else np.zeros((index["rows"], 0), np.int64)
    replaced = array("replaced") if (folder / "replaced.npy").is_file() else None
    lists = tuple(
        Ragged(array(f"values{place}"), array(f"weights{place}"), array(f"offsets{place}"), array(f"cut{place}"))
        for place in range(index["lists"])
    )
    return Common(array("key"), array("check"), array("order"), index["replaced_keys"], single, replaced, lists)
