"""Table 1 of an experiment: what the data are, split by split."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from postclick.data.ipc import read_batches
from postclick.data.log import ExposureLog

__all__ = ["DataFacts", "SplitFacts"]


@dataclass(frozen=True)
class SplitFacts:
    """Rows of one split as stored, and what happened on them.

    Parameters
    ----------
    rows, clicks, conversions
        Counts, unweighted.
    actions
        None where the log has no such label.
    """

    rows: int
    clicks: int
    conversions: int
    actions: int | None = None

    @property
    def ctr(self) -> float | None:
        """Clicks an exposure."""
        return self.clicks / self.rows if self.rows else None

    @property
    def cvr(self) -> float | None:
        """Conversions a click."""
        return self.conversions / self.clicks if self.clicks else None

    @property
    def ctcvr(self) -> float | None:
        """Conversions an exposure."""
        return self.conversions / self.rows if self.rows else None

    def to_dict(self) -> dict[str, Any]:
        """Return the plain form."""
        counts = {name: getattr(self, name) for name in ("rows", "clicks", "conversions", "actions")}
        return counts | {name: getattr(self, name) for name in ("ctr", "cvr", "ctcvr")}


@dataclass(frozen=True)
class DataFacts:
    """One data set.

    Parameters
    ----------
    log
        Hash of the LOG.
    users, items
        Distinct ids over all splits; None where the log has none.
    features
        Fields that a system reads.
    splits
        By name.
    """

    log: str
    users: int | None
    items: int | None
    features: int
    splits: dict[str, SplitFacts]

    @classmethod
    def of(cls, log: ExposureLog) -> DataFacts:
        """Count a LOG: labels by its ledger, ids by reading their two columns block by block."""
        acts = log.schema.columns.action is not None
        splits = {
            name: SplitFacts(
                int(counts["rows"]),
                int(counts["clicks"]),
                int(counts["conversions"]),
                int(counts["actions"]) if acts else None,
            )
            for name, counts in log.ledger["splits"].items()
            if counts["rows"]
        }
        return cls(log.hash, _distinct(log, "user_id"), _distinct(log, "item_id"), len(log.schema.features), splits)

    def to_dict(self) -> dict[str, Any]:
        """Return the plain form."""
        form = {name: getattr(self, name) for name in ("log", "users", "items", "features")}
        return form | {"splits": {name: split.to_dict() for name, split in self.splits.items()}}


def _distinct(log: ExposureLog, name: str) -> int | None:
    """Return how many values a column of ids has, holding the distinct ones and at most as many new ones."""
    column = f"label:{name}"
    parts: list[pa.Array] = []
    known = fresh = 0
    for split in log.splits:
        for path in sorted((log.path / split).glob("*.arrow")):
            with pa.memory_map(str(path)) as source:
                if column not in pa.ipc.open_file(source).schema.names:
                    return None
            for batch in read_batches(path, [column]):
                parts.append(batch.column(0).unique())
                fresh += len(parts[-1])
                if fresh > known:  # not at each block: every time costs a pass over all that is known
                    parts = [pa.chunked_array(parts).unique()]
                    known, fresh = len(parts[0]), 0
    if not parts:
        return None
    values = pa.chunked_array(parts).unique()
    return len(values) - int(values.null_count > 0)
