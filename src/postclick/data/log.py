"""ExposureLog: the encoded data set on disk, and what a model needs to know of it.

A LOG folder holds ``train/ valid/ test/`` with Arrow IPC files (memory-mapped), ``vocabulary/``, ``schema.toml``,
``audit.json``, ``ledger.json`` and, where the truth is known, ``truth.arrow``. Ids are row-major int32 **global rows**:
each (field, value) owns one row of the fused table, unknown rows first (field f's is row f), new values at the end.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from postclick import files
from postclick.data.arrays import CENSORED, Exposures, Labels, Ragged, concatenate
from postclick.data.hashing import unit_interval
from postclick.errors import DataError, Finding, InputMissingError
from postclick.schema import Schema

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["BLOCK_ROWS", "SPLITS", "ExposureLog", "LogSpec", "LogSplit", "Role", "Truth", "from_arrow", "to_arrow"]

BLOCK_ROWS = 65_536
SPLITS = ("train", "valid", "test")
Role = Literal["all", "stop", "calibrate"]
_ROLE_SEED = 0x5CA1E


def to_arrow(exposures: Exposures, schema: Schema) -> pa.RecordBatch:
    """Lay encoded exposures out as one Arrow record batch, the form on disk."""
    import pyarrow as pa

    arrays: dict[str, Any] = {}
    for name, matrix in (("rows", exposures.rows), ("dense", exposures.dense), ("embeddings", exposures.embeddings)):
        flat = pa.array(np.ascontiguousarray(matrix).reshape(-1))
        if matrix.shape[1]:
            arrays[name] = pa.FixedSizeListArray.from_arrays(flat, matrix.shape[1])
    for feature, ragged in zip(schema.sequences, exposures.sequences, strict=True):
        offsets = pa.array(ragged.offsets)
        arrays[f"sequence:{feature.name}"] = pa.LargeListArray.from_arrays(offsets, pa.array(ragged.values))
        if ragged.weights is not None:
            arrays[f"weights:{feature.name}"] = pa.LargeListArray.from_arrays(offsets, pa.array(ragged.weights))
    labels = exposures.labels
    if labels is not None:
        for entry in fields(Labels):
            values = getattr(labels, entry.name)
            if values is not None:
                is_text = values.dtype.kind in "OUT"
                arrays[f"label:{entry.name}"] = (
                    pa.array(values.tolist(), pa.large_string()) if is_text else pa.array(values)
                )
    if not arrays:
        raise DataError(Finding("data.empty", "a batch without any column"))
    return pa.RecordBatch.from_pydict(arrays)


def _matrix(batch: pa.RecordBatch, name: str, kind: type[Any]) -> NDArray[Any]:
    if name not in batch.schema.names:
        return np.zeros((batch.num_rows, 0), kind)
    column = batch.column(name)
    return np.asarray(column.flatten()).reshape(batch.num_rows, column.type.list_size)


def _ragged(batch: pa.RecordBatch, name: str) -> Ragged:
    column = batch.column(f"sequence:{name}")
    offsets = np.asarray(column.offsets)
    weights = None
    if f"weights:{name}" in batch.schema.names:
        weights = np.asarray(batch.column(f"weights:{name}").flatten())
    return Ragged(np.asarray(column.flatten()), offsets - offsets[0], weights)


def _label(column: pa.Array) -> NDArray[Any]:
    import pyarrow as pa

    if pa.types.is_large_string(column.type):
        return np.asarray(column.to_numpy(zero_copy_only=False), dtype=object)
    return np.asarray(column)


def labels_from_arrow(batch: pa.RecordBatch) -> Labels | None:
    """Read the labels of one record batch of the form on disk."""
    names = [entry.name for entry in fields(Labels) if f"label:{entry.name}" in batch.schema.names]
    if "click" not in names:
        return None
    return Labels(**{name: _label(batch.column(f"label:{name}")) for name in names})


def from_arrow(batch: pa.RecordBatch, schema: Schema) -> Exposures:
    """Read one record batch of the form on disk; number columns are views of its memory."""
    return Exposures(
        _matrix(batch, "rows", np.int32),
        _matrix(batch, "dense", np.float32),
        _matrix(batch, "embeddings", np.float32),
        tuple(_ragged(batch, feature.name) for feature in schema.sequences),
        labels_from_arrow(batch),
    )


@dataclass(frozen=True)
class Truth:
    """True probabilities of a simulated log, float64 each, in the row order of the split that was asked for.

    Parameters
    ----------
    ctr
        P(click | x).
    cvr_do, cvr_click
        P(conversion | do(click), x) and P(conversion | click = 1, x).
    ctcvr
        P(click and conversion | x).
    action
        P(action | do(click), x), of actions as logged; None in a world without actions.
    ctar
        P(click and action | x), or None.
    """

    ctr: NDArray[np.float64]
    cvr_do: NDArray[np.float64]
    cvr_click: NDArray[np.float64]
    ctcvr: NDArray[np.float64]
    action: NDArray[np.float64] | None = None
    ctar: NDArray[np.float64] | None = None


@dataclass(frozen=True)
class LogSpec:
    """What a model must know of a log before it is built; equal specs build equal models.

    Parameters
    ----------
    schema
        Features and funnel.
    table_rows
        Rows of the fused table: unknown rows (one a field) and all values.
    rows, clicks, conversions, actions
        Weighted totals of the training split; `actions` counts those after a click, None where there is no such label.
    """

    schema: Schema
    table_rows: int
    rows: float
    clicks: float
    conversions: float
    actions: float | None = None

    @property
    def ctr(self) -> float:
        """The training log's click rate."""
        return self.clicks / self.rows

    @property
    def cvr(self) -> float:
        """The training log's conversion rate on clicks."""
        return self.conversions / self.clicks if self.clicks else 0.0

    @property
    def ctcvr(self) -> float:
        """The training log's rate of click and conversion."""
        return self.conversions / self.rows

    @property
    def action(self) -> float:
        """The training log's action rate on clicks.

        Raises
        ------
        ValueError
            Where the log has no action label: a system that needs one cannot be built.
        """
        if self.actions is None:
            how = "name its column in the schema (action = ...) and prepare the log again"
            raise ValueError(f"the system needs the label of an in-shop action, which the log does not have: {how}")
        return self.actions / self.clicks if self.clicks else 0.0

    @property
    def embedding_width(self) -> int:
        """V: the widths of all embedding features together."""
        return sum(feature.size for feature in self.schema.embeddings)


class LogSplit:
    """One split of a log: blocks of rows on disk, memory-mapped.

    Parameters
    ----------
    folder
        The split's folder.
    schema
        The log's schema.
    """

    def __init__(self, folder: Path, schema: Schema) -> None:
        self.name = folder.name
        self.schema = schema
        self._paths = sorted(folder.glob("*.arrow"))

    @cached_property
    def _blocks(self) -> list[pa.RecordBatch]:
        import pyarrow as pa

        blocks: list[pa.RecordBatch] = []
        for path in self._paths:
            try:
                reader = pa.ipc.open_file(pa.memory_map(str(path)))
                blocks += [reader.get_batch(index) for index in range(reader.num_record_batches)]
            except (pa.ArrowInvalid, OSError) as error:
                raise DataError(
                    Finding("data.corrupt_file", str(error), str(path), fix="prepare the log again")
                ) from error
        return [block for block in blocks if block.num_rows]

    def __len__(self) -> int:
        return sum(block.num_rows for block in self._blocks)

    @property
    def num_blocks(self) -> int:
        """How many blocks there are."""
        return len(self._blocks)

    @property
    def block_rows(self) -> list[int]:
        """Rows of each block."""
        return [block.num_rows for block in self._blocks]

    @property
    def nbytes(self) -> int:
        """Bytes of all blocks: what `read` takes in memory."""
        return sum(block.nbytes for block in self._blocks)

    def block(self, index: int) -> Exposures:
        """Return one block; number columns are views of the file."""
        return from_arrow(self._blocks[index], self.schema)

    def blocks(self) -> Iterator[Exposures]:
        """Yield the blocks in order."""
        for index in range(self.num_blocks):
            yield self.block(index)

    def read(self, role: Role = "all") -> Exposures:
        """Return the whole split in memory, or one of the two halves of ``valid``.

        Parameters
        ----------
        role
            ``stop`` is read by early stopping, ``calibrate`` by calibrators: halves by a hash of the exposure id.
        """
        if not self.num_blocks:
            raise InputMissingError(Finding("data.empty", f"the split {self.name!r} has no rows", self.name))
        whole = concatenate(list(self.blocks()))
        if role == "all":
            return whole
        assert whole.labels is not None
        assert whole.labels.exposure_id is not None
        first = unit_interval(whole.labels.exposure_id, _ROLE_SEED) < 0.5
        return whole.take(np.flatnonzero(first if role == "stop" else ~first))

    def labels(self) -> Labels:
        """Return the labels alone, in memory."""
        parts = [labels_from_arrow(block) for block in self._blocks]
        present = [part for part in parts if part is not None]
        if not present:
            raise InputMissingError(Finding("data.empty", f"the split {self.name!r} has no rows", self.name))
        names = [entry.name for entry in fields(Labels) if getattr(present[0], entry.name) is not None]
        return Labels(**{name: np.concatenate([getattr(part, name) for part in present]) for name in names})


class ExposureLog:
    """An encoded log on disk.

    Parameters
    ----------
    path
        A LOG folder, as `prepare` writes it.

    Raises
    ------
    InputMissingError
        When there is no LOG at `path`; names the kind that was found.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.manifest = files.read_manifest(self.path, "log")
        self.schema = Schema.from_toml(self.path / "schema.toml")

    @property
    def hash(self) -> str:
        """Identity of the content."""
        return self.manifest.hash

    @cached_property
    def ledger(self) -> dict[str, Any]:
        """Rows and values in = kept + rejected + filtered."""
        ledger: dict[str, Any] = files.read_json(self.path / "ledger.json")
        return ledger

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits that hold rows."""
        return tuple(name for name in SPLITS if len(self.split(name)))

    def split(self, name: str) -> LogSplit:
        """Return one split; its rows are read when asked for."""
        return LogSplit(self.path / name, self.schema)

    @cached_property
    def spec(self) -> LogSpec:
        """What a model must know of this log; totals over the training split, weighted where weights are given."""
        table_rows = int(files.read_json(self.path / "vocabulary" / "vocabulary.json")["table_rows"])
        labels = self.split("train").labels()
        weight = np.ones(len(labels)) if labels.sample_weight is None else labels.sample_weight

        def total(label: NDArray[np.int8]) -> float:
            return float(weight[label == 1].sum())

        # an action on a row that was not clicked belongs to no click
        actions = None if labels.action is None else total(labels.action * (labels.click == 1))
        known = labels.conversion != CENSORED
        return LogSpec(
            self.schema, table_rows, float(weight[known].sum()), total(labels.click), total(labels.conversion), actions
        )

    def truth(self, split: str) -> Truth | None:
        """Return the true probabilities of a split's rows, or None where the log is not simulated."""
        path = self.path / "truth.arrow"
        if not path.is_file():
            return None
        import pyarrow as pa

        table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        keys = _label(table.column("exposure_id").combine_chunks())
        wanted = self.split(split).labels().exposure_id
        assert wanted is not None
        order = np.argsort(keys, kind="stable")
        places = np.searchsorted(keys, wanted, sorter=order)
        found = order[np.minimum(places, len(order) - 1)]
        if not np.array_equal(keys[found], wanted):
            raise DataError(Finding("data.corrupt_file", "truth.arrow lacks exposures of the log", str(path)))
        names = [entry.name for entry in fields(Truth) if entry.name in table.schema.names]
        return Truth(**{name: np.asarray(table.column(name).combine_chunks(), np.float64)[found] for name in names})
