"""ExposureLog: the encoded data set on disk, and what a model needs to know of it.

A LOG folder holds ``train/ valid/ test/`` with Arrow IPC files (memory-mapped), ``vocabulary/``, ``schema.toml``,
``audit.json``, ``ledger.json`` and, where the truth is known, ``truth.arrow``. Ids are row-major int32 **global rows**:
each (field, value) owns one row of the fused table, unknown rows first (field f's is row f), new values at the end.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from postclick import files
from postclick.data.arrays import Exposures, Labels, concatenate
from postclick.data.clock import NO_TIME, window_start
from postclick.data.hashing import unit_interval
from postclick.data.keep import weighed
from postclick.data.layout import from_arrow, label_from_arrow, labels_from_arrow, matrix_from_arrow, to_arrow
from postclick.errors import DataError, Finding, InputMissingError
from postclick.schema import Schema

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["BLOCK_ROWS", "SPLITS", "ExposureLog", "LogSpec", "LogSplit", "Role", "Truth", "from_arrow", "to_arrow"]

BLOCK_ROWS = 65_536
SPLITS = ("train", "valid", "test")
Role = Literal["all", "stop", "calibrate"]
_ROLE_SEED = 0x5CA1E


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
        Weighted totals of the training split, of its rows with a final conversion (all, where none has one); `actions`
        counts those after a click, None where there is no such label.
    field_rows
        Rows of the table that each field owns, in the order of `Schema.fields`, its unknown row apart; None where that
        is not known.
    days
        From the first click of the training split to the end of its observation; None in a log that says nothing
        of open windows, and in a bundle.
    given_propensity
        Whether the training rows carry propensities that are no column of the log (`ExposureLog.with_propensity`), or
        did so when a bundle was trained.
    """

    schema: Schema
    table_rows: int
    rows: float
    clicks: float
    conversions: float
    actions: float | None = None
    field_rows: tuple[int, ...] | None = None
    days: float | None = None
    given_propensity: bool = field(default=False, compare=False)

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

    def values_of(self, field: int) -> int:
        """Return how many rows of the table field `field` owns beside its unknown row; at most so many, if unknown."""
        return self.table_rows - len(self.schema.fields) if self.field_rows is None else self.field_rows[field]

    @property
    def embedding_width(self) -> int:
        """V: the widths of all embedding features together."""
        return sum(feature.size for feature in self.schema.embeddings)


def _observed_days(labels: Labels) -> float | None:
    """Return `LogSpec.days`."""
    until, clicked = labels.observed_until, labels.click == 1
    if labels.immature is None or until is None:
        return None
    start = window_start(clicked, labels.time, labels.click_time)
    there = clicked & (start != NO_TIME) & (until != NO_TIME)
    return float((until[there] - start[there]).max()) / 86_400e6 if there.any() else None


class LogSplit:
    """One split of a log: blocks of rows on disk, memory-mapped.

    Parameters
    ----------
    folder
        The split's folder.
    schema
        The log's schema.
    weigh
        Multiply the sample weights of a down-sampled log by 1 / keep rate.
    propensity
        Logged propensities of the rows in place of those in the file, one a row.
    """

    def __init__(
        self, folder: Path, schema: Schema, *, weigh: bool = True, propensity: NDArray[np.float32] | None = None
    ) -> None:
        self.name = folder.name
        self.schema = schema
        self.weigh = weigh
        self.propensity = propensity
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
        exposures = from_arrow(self._blocks[index], self.schema)
        if exposures.labels is None:
            return exposures
        first = 0 if self.propensity is None else sum(self.block_rows[:index])
        return replace(exposures, labels=self._completed(exposures.labels, first))

    def _completed(self, labels: Labels, first: int = 0) -> Labels:
        """Return the labels of the rows from `first` on with their weights, and the propensities that were given."""
        labels = weighed(labels, self.schema.keep_rates) if self.weigh else labels
        if self.propensity is None:
            return labels
        return replace(labels, propensity=self.propensity[first : first + len(labels)].astype(np.float64))

    def blocks(self) -> Iterator[Exposures]:
        """Yield the blocks in order."""
        for index in range(self.num_blocks):
            yield self.block(index)

    def rows_and_times(self) -> Iterator[tuple[NDArray[np.int32], NDArray[np.int64] | None]]:
        """Yield table rows [B, F] and times [B] of the blocks in order, views of the file; other labels stay unread."""
        for block in self._blocks:
            timed = "label:time" in block.schema.names
            yield (
                matrix_from_arrow(block, "rows", np.int32),
                label_from_arrow(block.column("label:time")) if timed else None,
            )

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
        return self._completed(
            Labels(**{name: np.concatenate([getattr(part, name) for part in present]) for name in names})
        )


class ExposureLog:
    """An encoded log on disk.

    Parameters
    ----------
    path
        A LOG folder, as `prepare` writes it.
    weigh
        Give a down-sampled log's rows the weights that make them stand for the log before the draw.

    Raises
    ------
    InputMissingError
        When there is no LOG at `path`; names the kind that was found.
    """

    def __init__(self, path: str | Path, *, weigh: bool = True) -> None:
        self.path = Path(path)
        self.weigh = weigh
        self.manifest = files.read_manifest(self.path, "log")
        self.schema = Schema.from_toml(self.path / "schema.toml")
        self.propensity: NDArray[np.float32] | None = None

    def with_propensity(self, values: NDArray[np.float32]) -> ExposureLog:
        """Return this log with `values` as the logged propensities of its training rows, in order.

        Raises
        ------
        ValueError
            Where there are not as many as rows.
        """
        rows = len(self.split("train"))
        if len(values) != rows:
            raise ValueError(f"{len(values)} propensities for {rows} training rows")
        other = ExposureLog(self.path, weigh=self.weigh)
        other.propensity = values
        return other

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
        given = self.propensity if name == "train" else None
        return LogSplit(self.path / name, self.schema, weigh=self.weigh, propensity=given)

    @cached_property
    def spec(self) -> LogSpec:
        """What a model must know of this log; totals over the training split, weighted where weights are given."""
        vocabulary = files.read_json(self.path / "vocabulary" / "vocabulary.json")
        labels = self.split("train").labels()
        weight = np.ones(len(labels)) if labels.sample_weight is None else labels.sample_weight

        known = labels.conversion_known
        known = known if known.any() else np.ones(len(labels), np.bool_)

        def total(label: NDArray[np.int8]) -> float:
            return float(weight[(label == 1) & known].sum())

        # an action on a row that was not clicked belongs to no click
        actions = None if labels.action is None else total(labels.action * (labels.click == 1))
        return LogSpec(
            self.schema,
            int(vocabulary["table_rows"]),
            float(weight[known].sum()),
            total(labels.click),
            total(labels.conversion),
            actions,
            tuple(int(entry["size"]) for entry in vocabulary["fields"]),
            _observed_days(labels),
            given_propensity=self.propensity is not None,
        )

    def truth(self, split: str) -> Truth | None:
        """Return the true probabilities of a split's rows, or None where the log is not simulated."""
        path = self.path / "truth.arrow"
        if not path.is_file():
            return None
        import pyarrow as pa

        table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        keys = label_from_arrow(table.column("exposure_id").combine_chunks())
        wanted = self.split(split).labels().exposure_id
        assert wanted is not None
        order = np.argsort(keys, kind="stable")
        places = np.searchsorted(keys, wanted, sorter=order)
        found = order[np.minimum(places, len(order) - 1)]
        if not np.array_equal(keys[found], wanted):
            raise DataError(Finding("data.corrupt_file", "truth.arrow lacks exposures of the log", str(path)))
        names = [entry.name for entry in fields(Truth) if entry.name in table.schema.names]
        return Truth(**{name: np.asarray(table.column(name).combine_chunks(), np.float64)[found] for name in names})
