"""Score raw rows or a split of a log into a Parquet file: row for row, in the order of the input, atomically."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from postclick import files, progress
from postclick.bundle import Bundle, Scorer
from postclick.data.arrays import Exposures, Labels
from postclick.data.audit import UNSEEN_ALERT
from postclick.data.columns import column, ids
from postclick.data.encode import EncodeCounts, FieldCounts
from postclick.data.faults import placed
from postclick.data.labels import row_number_ids
from postclick.data.log import SPLITS, ExposureLog
from postclick.data.scores import HEADS, Scores
from postclick.data.sources.base import Source, SourceBatch
from postclick.data.sources.opening import open_source
from postclick.errors import ConfigError, DataError, Finding, InputMissingError, nearest
from postclick.schema import Schema, SparseFeature

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["UNSEEN_ALERT", "ScoreSummary", "open_for_scoring", "score_batches", "score_log", "score_source"]


@dataclass(frozen=True)
class ScoreSummary:
    """What was scored.

    Parameters
    ----------
    path
        The file.
    bundle
        Hash of the bundle.
    rows
        Rows in = rows out.
    counts
        Values read, unseen and missing, a feature.
    derived
        Heads that are derived.
    clipped
        Derived values that left [0, 1].
    ctcvr_above_ctr
        Rows whose ctcvr is above their ctr.
    encoded
        The rows came from a log, which does not tell missing values from unseen ones: both count as unseen.
    """

    path: Path
    bundle: str
    rows: int = 0
    counts: EncodeCounts = field(default_factory=EncodeCounts)
    derived: frozenset[str] = frozenset()
    clipped: int = 0
    ctcvr_above_ctr: int = 0
    encoded: bool = False

    def add(self, scores: Scores, counts: EncodeCounts) -> ScoreSummary:
        """Return the summary with one more batch."""
        return replace(
            self,
            rows=self.rows + len(scores),
            counts=self.counts + counts,
            derived=scores.derived,
            clipped=self.clipped + scores.clipped,
            ctcvr_above_ctr=self.ctcvr_above_ctr + int((scores.odds["ctcvr"] > scores.odds["ctr"]).sum()),
        )

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """Fields in which many values are unseen: ``data.unseen``, one a field."""
        how = "are missing or were not seen" if self.encoded else "were not seen"
        fix = "train again on newer rows, or check that the column holds what it held in training"
        return tuple(
            Finding(
                "data.unseen",
                f"{found.unseen_rate:.1%} of the values of {name!r} {how} in training",
                name,
                found.unseen,
                fix=fix,
            )
            for name, found in self.counts.fields.items()
            if found.unseen_rate > UNSEEN_ALERT
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the plain form, as ``score --json`` prints it."""
        unseen = {
            name: {"values": found.values, "unseen": found.unseen, "missing": found.missing, "rate": found.unseen_rate}
            for name, found in self.counts.fields.items()
        }
        return {
            "format": 1,
            "bundle": self.bundle,
            "rows": self.rows,
            "features": unseen,
            "derived": sorted(self.derived),
            "clipped": self.clipped,
            "ctcvr_above_ctr": self.ctcvr_above_ctr,
            "warnings": [str(warning) for warning in self.warnings],
        }


def score_source(
    bundle: Bundle | str | Path,
    source: Any,
    out: str | Path,
    *,
    keep: Sequence[str] = (),
    key: str | None = None,
    force: bool = False,
    device: str = "cpu",
) -> ScoreSummary:
    """Score raw rows into a Parquet file: exposure_id, ctr, cvr, ctcvr (action, ctar), then the kept columns.

    Parameters
    ----------
    bundle
        RUN, BUNDLE, or one that was loaded.
    source
        Files, folders, globs, frames or tables (labels need not be there), or a `Source` that was opened.
    out
        The Parquet file.
    keep
        Columns of the input to carry over.
    key
        Source key of the raw data; None finds it out.
    force
        Replace an existing file.
    device
        Where the network runs.

    Raises
    ------
    DataError
        Columns that are missing or of the wrong type.
    StorageError
        `out` exists (exit 73), or the disk fails.
    """
    loaded = bundle if isinstance(bundle, Bundle) else Bundle.load(bundle)
    _check_keep(keep)
    files.check_free(Path(out), force=force)
    opened: Source = source
    if not hasattr(source, "pieces"):
        opened = open_for_scoring(loaded.schema, source, keep, key=key)
    scorer = Scorer(loaded, device)
    return _write(ScoreSummary(Path(out), loaded.hash), score_batches(scorer, opened, keep))


def score_log(
    bundle: Bundle | str | Path,
    log: ExposureLog | str | Path,
    split: str | None,
    out: str | Path,
    *,
    keep: Sequence[str] = (),
    force: bool = False,
    device: str = "cpu",
) -> ScoreSummary:
    """Score a split of a log (all of them in order where `split` is None) into a Parquet file.

    Parameters
    ----------
    bundle, out, force, device
        As `score_source`.
    log
        A LOG with the bundle's features and vocabulary.
    split
        ``train``, ``valid``, ``test`` or None.
    keep
        Columns of the funnel and its company, or sparse features, by their name in the raw data.

    Raises
    ------
    DataError
        The log has other features or another vocabulary.
    InputMissingError
        The split has no rows.
    """
    loaded = bundle if isinstance(bundle, Bundle) else Bundle.load(bundle)
    log = log if isinstance(log, ExposureLog) else ExposureLog(log)
    loaded.require_fit(log)
    _check_keep(keep)
    _check_log_columns(log, keep)
    names = [name for name in SPLITS if split in (None, name) and name in log.splits]
    if not names:
        fix = f"splits with rows: {', '.join(log.splits) or 'none'}"
        raise InputMissingError(Finding("data.empty", f"the split {split!r} has no rows", str(log.path), fix=fix))
    files.check_free(Path(out), force=force)
    start = ScoreSummary(Path(out), loaded.hash, encoded=True)
    return _write(start, _log_batches(Scorer(loaded, device), log, names, keep))


@dataclass(frozen=True)
class _Scored:
    """One batch: its columns beside the scores, the scores, what encoding met."""

    exposure_id: pa.Array
    kept: Mapping[str, pa.Array]
    scores: Scores
    counts: EncodeCounts

    def record_batch(self) -> pa.RecordBatch:
        import pyarrow as pa

        heads = {head: pa.array(self.scores.probability(head)) for head in self.scores.heads}
        return pa.RecordBatch.from_pydict({"exposure_id": self.exposure_id, **heads, **self.kept})


def open_for_scoring(schema: Schema, source: Any, keep: Sequence[str] = (), *, key: str | None = None) -> Source:
    """Open raw data for scoring: labels may be missing, features that do not come with requests too.

    Parameters
    ----------
    schema
        The bundle's.
    source
        One or several paths, globs, frames or tables.
    keep
        Further columns that shall be delivered: numbers or text.
    key
        Source key; None finds it out.
    """
    given = tuple(feature for feature in schema.features if feature.serving == "given")
    known = replace(schema, features=given).raw_columns() if given else tuple(schema.columns.named().values())
    further = tuple(SparseFeature(name) for name in dict.fromkeys(keep) if name not in known)
    wanted = replace(schema, features=given + further)
    return open_source(source, key=key, schema=wanted, labels=False)


def score_batches(scorer: Scorer, source: Source, keep: Sequence[str] = ()) -> Iterator[_Scored]:
    """Yield the rows of a source scored, batch by batch, in order."""
    places: dict[tuple[str, str | None, str | None], int] = {}
    for piece in source.pieces():
        # numbered as `prepare` numbers files
        place = places.setdefault((piece.label, piece.path, piece.role), len(places))
        for batch in source.read(piece):
            with placed(batch.label, batch.first_row):
                scored = scorer.score_table(batch.table)
                found = _exposure_ids(batch, scorer.bundle.schema, place)
            yield _Scored(found, _kept(batch, keep), scored.scores, scored.counts)


def _exposure_ids(batch: SourceBatch, schema: Schema, place: int) -> pa.Array:
    """Return the ids as logged; where there are none, those that `prepare` would make of file and row number."""
    import pyarrow as pa

    name = schema.columns.exposure_id
    if name is not None and name in batch.table.schema.names:
        return ids(column(batch.table, name), name)[0]
    return pa.array(row_number_ids(place, batch.first_row, batch.table.num_rows))


def _kept(batch: SourceBatch, keep: Sequence[str]) -> dict[str, pa.Array]:
    missing = [name for name in keep if name not in batch.table.schema.names]
    if missing:
        raise DataError(*(_no_column(name, batch.table.schema.names, batch.label) for name in missing))
    return {name: column(batch.table, name) for name in keep}


def _log_batches(scorer: Scorer, log: ExposureLog, splits: Sequence[str], keep: Sequence[str]) -> Iterator[_Scored]:
    for name in splits:
        for block in log.split(name).blocks():
            assert block.labels is not None
            assert block.labels.exposure_id is not None
            kept = {column: _log_column(scorer.bundle, log, block, column) for column in keep}
            scores = scorer.score(block.without_labels())
            yield _Scored(_array(block.labels.exposure_id), kept, scores, _log_counts(log.schema, block))


def _log_counts(schema: Schema, block: Exposures) -> EncodeCounts:
    """Return how many values of each sparse field are in the unknown row; a log does not tell missing from unseen."""
    found = {
        feature.name: FieldCounts(len(block), int((block.rows[:, place] == place).sum()))
        for place, feature in enumerate(schema.sparse)
    }
    return EncodeCounts(len(block), found)


def _log_column(bundle: Bundle, log: ExposureLog, block: Exposures, name: str) -> pa.Array:
    roles = {column: role for role, column in log.schema.columns.named().items()}
    values = getattr(block.labels, roles[name]) if name in roles else None
    if values is not None:
        return _array(values)
    place = [feature.name for feature in log.schema.sparse].index(name)
    return bundle.encoder.vocabulary.decode(name, block.rows[:, place])


def _check_log_columns(log: ExposureLog, keep: Sequence[str]) -> None:
    """Refuse columns that a log does not hold: it keeps labels and sparse features, not the raw rows."""
    labels: Labels | None = log.split(log.splits[0]).block(0).labels if log.splits else None
    held = [name for role, name in log.schema.columns.named().items() if getattr(labels, role, None) is not None]
    known = dict.fromkeys([*held, *(feature.name for feature in log.schema.sparse)])
    problems = [_no_column(name, known, str(log.path)) for name in keep if name not in known]
    if problems:
        raise DataError(*problems)


def _check_keep(keep: Sequence[str]) -> None:
    taken = [name for name in keep if name in HEADS]
    if taken:
        what = f"{', '.join(taken)} cannot be kept: the scores have these names"
        raise ConfigError(Finding("config.value", what, "--keep", fix="rename the column in the input"))


def _no_column(name: str, known: Sequence[str] | Mapping[str, Any], where: str) -> Finding:
    near = nearest(name, known)
    fix = f"did you mean {near!r}?" if near else f"columns: {', '.join(list(known)[:20])}"
    return Finding("data.schema_mismatch", f"there is no column {name!r} to keep", where, fix=fix)


def _array(values: NDArray[Any]) -> pa.Array:
    import pyarrow as pa

    return pa.array(values.tolist(), pa.large_string()) if values.dtype.kind in "OUT" else pa.array(np.asarray(values))


def _write(summary: ScoreSummary, batches: Iterator[_Scored]) -> ScoreSummary:
    """Write the batches as they come; the file appears whole, or not at all."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    writer = None
    with progress.bar("Scoring", None) as advance, files.create(summary.path) as handle, ExitStack() as stack:
        for scored in batches:
            batch = scored.record_batch()
            if writer is None:
                writer = stack.enter_context(pq.ParquetWriter(handle, _stored_schema(batch.schema)))
            writer.write_table(pa.Table.from_batches([batch]).cast(writer.schema))
            summary = summary.add(scored.scores, scored.counts)
            advance(len(scored.scores))
        if writer is None:
            raise InputMissingError(Finding("data.empty", "no row to score", fix="pass files with rows"))
    return summary


def _stored_schema(schema: pa.Schema) -> pa.Schema:
    """Return the file's schema: a column that is null throughout the first batch is text, which later ones cast to."""
    import pyarrow as pa

    return pa.schema([item.with_type(pa.large_string()) if pa.types.is_null(item.type) else item for item in schema])
