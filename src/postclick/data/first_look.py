"""A first look at raw data: how many rows of what, and which of them `prepare` would reject; nothing is written."""

from __future__ import annotations

from postclick import progress
from postclick.data.faults import RowFaults, feature_faults
from postclick.data.labels import parse_labels
from postclick.data.ledger import Funnel, Ledger
from postclick.data.sources.base import Source, SourceBatch
from postclick.schema import Schema

__all__ = ["NOT_SPLIT", "first_look"]

NOT_SPLIT = "rows"
"""What rows are called that no split is named for yet."""


def first_look(source: Source) -> Ledger:
    """Read a source once, a batch at a time, and count rows, clicks, conversions and faults.

    Rows are judged by the code that `prepare` judges them by, under the default policy (a conversion without click is
    rejected). Duplicate exposure ids need the whole log side by side and are left to `prepare`.

    Raises
    ------
    DataError
        Where a file or a column cannot be read.
    """
    ledger = Ledger()
    with progress.bar("reading", None) as advance:
        for piece in source.pieces():
            for batch in source.read(piece):
                ledger += _look(batch, source.schema, piece.role or NOT_SPLIT)
                advance(batch.table.num_rows)
    return ledger


def _look(batch: SourceBatch, schema: Schema, split: str) -> Ledger:
    rows = batch.table.num_rows
    faults = RowFaults(rows)
    labels = parse_labels(batch.table, schema, faults, where=batch.label).labels
    feature_faults(batch.table, schema, faults)
    good = labels.take(~faults.faulty)
    clicks, conversions = int((good.click == 1).sum()), int((good.conversion == 1).sum())
    actions = 0 if good.action is None else int((good.action == 1).sum())
    return Ledger(rows, {split: Funnel(len(good), clicks, actions, conversions)}, faults.counts(), {}, batch.values)
