"""The truth of a simulated log: ``truth.parquet`` of a WORLD to ``truth.arrow`` of a LOG, kept exposures only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from postclick.data.columns import as_kind, column, id_kind, ids
from postclick.data.ipc import read_batches, write_table
from postclick.data.log import SPLITS
from postclick.errors import DataError, Finding, InputMissingError
from postclick.files import MANIFEST, read_manifest

__all__ = ["world_truth", "write_truth"]

_COLUMNS = ("exposure_id", "ctr", "cvr_do", "cvr_click", "ctcvr")


def world_truth(source: Any) -> Path | None:
    """Return the truth that comes with raw data: where that is one WORLD folder (or a list of just one)."""
    single = source[0] if isinstance(source, list | tuple) and len(source) == 1 else source
    if not isinstance(single, str | Path) or not (Path(single) / MANIFEST).is_file():
        return None
    return Path(single) / "truth.parquet" if read_manifest(Path(single)).kind == "world" else None


def _kept_ids(log: Path) -> pa.Array:
    name = "label:exposure_id"
    parts = []
    for split in SPLITS:
        for path in sorted((log / split).glob("*.arrow")):
            parts += [batch.column(0) for batch in read_batches(path, [name])]
    return pa.concat_arrays(parts)


def write_truth(truth: Path, log: Path) -> None:
    """Write ``truth.arrow`` into a log under construction, in the order of ``truth.parquet``.

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
        table = pq.read_table(truth, columns=list(_COLUMNS))
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(Finding("data.corrupt_file", str(error), truth.name)) from error
    absent = [name for name in _COLUMNS if name not in table.schema.names]
    if absent:
        raise DataError(Finding("data.schema_mismatch", f"the truth lacks {', '.join(absent)}", truth.name))
    kept = _kept_ids(log)
    keys = as_kind(ids(column(table, "exposure_id"), "exposure_id")[0], id_kind(kept))
    unknown = pc.invert(pc.is_in(kept, keys))
    lost = int(pc.sum(unknown).as_py() or 0)
    if lost:
        examples = tuple(str(key) for key in kept.filter(unknown)[:3].to_pylist())
        fix = "pass the truth of this world"
        raise DataError(Finding("data.schema_mismatch", "exposures without truth", truth.name, lost, examples, fix))
    numbers = {name: column(table, name).cast(pa.float64()) for name in _COLUMNS[1:]}
    chosen = pa.table({"exposure_id": keys, **numbers}).filter(pc.is_in(keys, kept))
    write_table(log / "truth.arrow", chosen.combine_chunks())
