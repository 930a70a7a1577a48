"""A first look at raw data: how many rows of what, what an audit says of them, what `prepare` would refuse."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pyarrow as pa

from postclick import progress
from postclick.data.audit import AuditFacts
from postclick.data.distinct import CopySketch, DistinctSketch
from postclick.data.faults import RowFaults, feature_faults, findings, located, merge_examples, placed
from postclick.data.labels import parse_labels, row_number_ids
from postclick.data.leakage import refuse_leaks
from postclick.data.ledger import Funnel, Ledger
from postclick.data.log import SPLITS
from postclick.data.options import PrepareOptions
from postclick.data.row_sample import RowSampler
from postclick.data.sampled import look_at_sample
from postclick.data.sources.base import Source, SourceBatch, ValueCounts
from postclick.data.staging import canonical, value_totals
from postclick.errors import DataError, Finding
from postclick.schema import Schema

__all__ = ["NOT_SPLIT", "first_look"]

NOT_SPLIT = "rows"
"""What rows are called that no split is named for yet."""


@dataclass
class _Look:
    """What one pass over raw rows collects."""

    schema: Schema
    ledger: Ledger = field(default_factory=Ledger)
    examples: dict[str, tuple[tuple[str, str], ...]] = field(default_factory=dict)
    refusals: dict[tuple[str, str], Finding] = field(default_factory=dict)
    copies: CopySketch = field(default_factory=CopySketch)
    place: int = 0

    def __post_init__(self) -> None:
        self.sampler = RowSampler(self.schema)
        self.distinct = {item.name: DistinctSketch() for item in self.schema.sparse}

    def add(self, batch: SourceBatch, role: str | None, file_index: int) -> None:
        """Judge a batch as `prepare` would, under its default policy."""
        rows, schema = batch.table.num_rows, self.schema
        faults = RowFaults(rows)
        row_ids = row_number_ids(file_index, batch.first_row, rows)
        parsed = parse_labels(batch.table, schema, faults, row_ids=row_ids)
        features, lost = canonical(batch.table, schema)
        whole = pa.RecordBatch.from_pydict(features)
        feature_faults(whole, schema, faults)
        good = ~faults.faulty
        labels, kept = parsed.labels.take(good), whole.filter(pa.array(good))
        values = dict(batch.values)
        for name, total in value_totals(whole, schema).items():
            part = ValueCounts(total + lost.get(name, 0), total, rejected=lost.get(name, 0))
            values[name] = values.get(name, ValueCounts()) + part
        left = dict(batch.filtered)
        read = rows + sum(left.values())
        self.ledger += Ledger(read, {role or NOT_SPLIT: Funnel.of(labels)}, faults.counts(), left, values)
        self.examples = merge_examples(self.examples, faults.located(batch.label, batch.first_row))
        for refusal in parsed.refusals:
            finding = located(refusal, batch.label, batch.first_row)
            first = self.refusals.get((finding.code, finding.what))
            count = (finding.count or 0) + (first.count or 0 if first else 0)
            self.refusals[finding.code, finding.what] = replace(first or finding, count=count)
        self.sampler.add(kept, labels, SPLITS.index(role) if role else 0, self.place)
        self.place += rows
        if schema.columns.exposure_id is not None:
            self.copies.add(labels)
        if role in (None, "train"):
            for name, sketch in self.distinct.items():
                sketch.add(kept.column(name))


def first_look(source: Source) -> AuditFacts:
    """Read a source once, a batch at a time, and say of its rows what `prepare` will find.

    Rows are judged by the code that `prepare` judges them by, under the default policy (a conversion without click is
    rejected). Features that give the outcome away and drift are judged on a sample of rows, different values and
    copies of an exposure id are counted by their hashes, so memory stays bounded; nothing is written.

    Raises
    ------
    DataError
        Where a file or a column cannot be read.
    """
    schema, look = source.schema, _Look(source.schema)
    files: dict[tuple[str, str | None], int] = {}
    read: dict[str, int] = {}
    with progress.bar("reading", None) as advance:
        for piece in source.pieces():
            number = files.setdefault((piece.label, piece.role), len(files))
            read.setdefault(piece.label, 0)
            for batch in source.read(piece):
                with placed(batch.label, batch.first_row):
                    look.add(batch, piece.role, number)
                read[piece.label] += batch.table.num_rows
                advance(batch.table.num_rows)
    one_body = all(role is None for _, role in files)
    found = look.copies.result()
    return AuditFacts(
        schema,
        source.protocol,
        look.ledger,
        {"kind": "none yet" if one_body else "provider"},
        duplicates=None
        if schema.columns.exposure_id is None
        else {"exact": found.exact, "conflicting": found.conflicting},
        distinct={name: sketch.estimate() for name, sketch in look.distinct.items()},
        empty_files=[label for label, rows in read.items() if not rows],
        sampled=look_at_sample(look.sampler.result(), schema, one_body=one_body),
        refusals=_refusals(look, schema),
    )


def _refusals(look: _Look, schema: Schema) -> list[Finding]:
    """Return what `prepare` would stop for, by its defaults."""
    problems = list(look.refusals.values())
    ledger, allowed = look.ledger, PrepareOptions().max_reject_ratio
    if ledger.read and ledger.rejected_rows > allowed * ledger.read:
        problems = [*findings(ledger.rejected, look.examples), *problems]
    try:
        refuse_leaks(schema)
    except DataError as error:
        problems += error.findings
    return problems
