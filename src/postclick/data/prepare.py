"""Source -> vocabulary -> ExposureLog: streamed in three passes, bounded in memory, all or nothing on disk.

1. *Stage*: each piece is read once; labels are parsed, faulty rows go to quarantine, the rest to scratch files.
2. *Survey*: later copies of an exposure id go to quarantine, the split is decided, training rows are counted.
3. *Encode*: each piece becomes ``SPLIT/part-NNNNN.arrow``.

Passes 1 to 3 run a piece at a time, so their results do not depend on the number of processes, and each piece leaves a
marker (`postclick.data.partial`), so a run that was killed goes on where it was.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TypeVar

from postclick import files, progress
from postclick.data.audit import AuditFacts, audit_body
from postclick.data.cardinality import check_cardinality
from postclick.data.counts import CountMerger
from postclick.data.duplicates import find_duplicates
from postclick.data.encode import EncodeCounts, Encoder
from postclick.data.faults import findings, merge_examples
from postclick.data.kept import KeptRows, check_overlap, split_plan
from postclick.data.leakage import refuse_leaks
from postclick.data.ledger import Ledger
from postclick.data.log import SPLITS, ExposureLog
from postclick.data.options import PrepareOptions
from postclick.data.partial import NEVER, Marker, PartialLog, digest, folder_digest, open_partial
from postclick.data.passes import PassTask, Survey, empty_statistics, encode_piece, forget_encoder, survey_piece
from postclick.data.plan import Plan, vocabulary_folder
from postclick.data.quarantine import check_rejects, publish_rejects, reject_duplicates, without_strays
from postclick.data.sampled import SampleFacts, refuse_suspicious, sample_facts
from postclick.data.sides import SideTask, join_sides, stage_side
from postclick.data.sources.base import JoinedSource, Source
from postclick.data.split import SplitPlan
from postclick.data.staged import StagedPiece, column_types
from postclick.data.staging import StageTask, stage_or_error, staged_pieces
from postclick.data.transforms import Transforms
from postclick.data.truth import write_truth
from postclick.data.vocabulary import Vocabulary
from postclick.errors import DataError, Finding, InputMissingError
from postclick.execution import Workers
from postclick.schema import Schema

__all__ = ["PrepareOptions", "prepare"]

Task = TypeVar("Task")
Result = TypeVar("Result")


@dataclass(frozen=True)
class _Preparation:
    """What the steps of one preparation have in common."""

    plan: Plan
    out: Path
    partial: PartialLog
    workers: Workers

    @property
    def schema(self) -> Schema:
        return self.plan.source.schema

    @property
    def options(self) -> PrepareOptions:
        return self.plan.options

    def run(
        self, label: str, work: Callable[[Task], Result], tasks: Sequence[Task], rows: Callable[[Result], int]
    ) -> Iterator[Result]:
        """Run a pass with its progress bar."""
        with progress.bar(label, None) as advance:
            for number, result in enumerate(self.workers.map(work, tasks)):
                advance(rows(result), f"{number + 1} of {len(tasks)} pieces")
                yield result


def prepare(
    source: Source,
    out: str | Path,
    options: PrepareOptions | None = None,
    *,
    truth: Path | None = None,
    force: bool = False,
    resume: bool = False,
    jobs: int | None = None,
) -> ExposureLog:
    """Turn raw rows into a LOG.

    Parameters
    ----------
    source
        Raw data and its schema.
    out
        Folder of the LOG; rejected rows go to ``OUT.rejects`` beside it.
    options
        How to prepare; None is the defaults.
    truth
        ``truth.parquet`` of a WORLD.
    force
        Replace an existing output.
    resume
        Take over what an earlier run left in ``.OUT.partial``, as far as its inputs, schema and options are these.
    jobs
        Processes; None takes as many as there are cores where the files are large enough to pay for starting them. The
        result does not depend on it.

    Returns
    -------
    ExposureLog
        The log, on disk.

    Raises
    ------
    DataError
        What is wrong with the rows, all findings of a pass together (exit 65); no LOG appears.
    InputMissingError
        ``data.empty`` where there is no row (exit 66).
    ConfigError
        Where there is no default split (exit 78).
    LockedError
        ``lock.held`` where another process prepares the same log (exit 75).
    StorageError
        Where `out` exists and `force` is off, or the disk fails.
    """
    started = time.monotonic()
    out = Path(out)
    refuse_leaks(source.schema)
    plan = Plan.of(source, options or PrepareOptions())
    start = plan.options.vocabulary
    base = None if start is None else Encoder.load(vocabulary_folder(start), source.schema)
    if resume and plan.made(out, truth):  # killed after it was done
        with open_partial(out, resume=False):
            return ExposureLog(out)
    files.check_free(out, force=force)
    check_rejects(out, force=force)
    jobs = plan.jobs if jobs is None else jobs
    with open_partial(out, resume=resume) as partial, Workers(jobs) as workers:
        ledger = _build(_Preparation(plan, out, partial, workers), base)
        if truth is not None:
            write_truth(truth, partial.log)
        with files.new_folder(out, "log", force=force) as folder:
            partial.publish(folder)
            record = {"stage": "prepare", "rows": ledger.read, "jobs": jobs, "resumed": partial.resumed}
            record |= {"plan": plan.whole(truth), "seconds": round(time.monotonic() - started, 3)}
            files.append_json_line(folder / files.RECORD, record)
    return ExposureLog(out)


def _build(job: _Preparation, base: Encoder | None) -> Ledger:
    """Fill the partial log; returns its ledger."""
    prints, kept = _stage(job)
    kept = without_strays(_without_copies(job, kept), job.schema, job.partial.staged)
    _judge(job, kept)
    split = split_plan(job.plan.kind, kept)
    kept = check_overlap(kept, job.plan.source, job.plan.kind, allow=job.options.allow_overlap)
    folder, schema = job.partial.log, job.schema
    tasks = [PassTask(piece, schema, kept.types, split, kept.drop(piece), folder) for piece in kept.pieces]
    if NEVER not in prints:
        pairs = zip(prints, kept.pieces, strict=True)
        prints = [digest(found, kept.drop_digest(piece), split.to_dict()) for found, piece in pairs]
    distinct = _fit(job, tasks, prints, base)
    ledger, encoded = _encode(job, tasks, prints, kept.ledger)
    sampled = sample_facts(job.partial.encoded, len(tasks), schema)
    refuse_suspicious(sampled)
    _write_papers(job, split, kept, ledger, encoded, distinct, sampled)
    return ledger


def _stage(job: _Preparation) -> tuple[list[str], KeptRows]:
    """Stage all pieces; returns their fingerprints beside them."""
    source = _joined(job)
    numbers: dict[tuple[str, str | None, str | None], int] = {}
    tasks, folder = [], job.partial.staged
    for index, piece in enumerate(job.plan.pieces):
        file_index = numbers.setdefault((piece.label, piece.path, piece.role), len(numbers))
        marker = Marker(folder / f"piece-{index:05d}.json", job.plan.fingerprint(piece, index, file_index))
        policy = job.options.orphan_conversions
        tasks.append(StageTask(source, piece, index, file_index, folder, policy, marker, job.plan.files_of(piece)))
    staged = staged_pieces(job.run("reading", stage_or_error, tasks, _rows_read))
    ledger = sum((piece.ledger for piece in staged), Ledger())
    if not ledger.read:
        fix = "check the paths and the filters"
        raise InputMissingError(Finding("data.empty", "the source holds no rows", fix=fix))
    prints = [task.marker.fingerprint if task.marker else NEVER for task in tasks]
    return prints, KeptRows(staged, column_types(staged), ledger)


def _rows_read(result: StagedPiece | DataError) -> int:
    return 0 if isinstance(result, DataError) else result.ledger.read


def _joined(job: _Preparation) -> Source:
    """Turn the tables that rows are joined with to columns; returns the source that reads those."""
    source = job.plan.source
    if not isinstance(source, JoinedSource):
        return source
    tasks, folder = [], job.partial.sides
    for index, piece in enumerate(job.plan.sides):
        marker = Marker(folder / f"part-{index:05d}.json", job.plan.fingerprint(piece, "side", index))
        tasks.append(SideTask(source, piece, folder / f"part-{index:05d}.arrow", marker, job.plan.files_of(piece)))
    for _ in job.run("reading what rows are joined with", stage_side, tasks, int):
        pass
    return join_sides(source, tasks, folder / "tables")


def _without_copies(job: _Preparation, kept: KeptRows) -> KeptRows:
    """Find later copies of an exposure id, where the schema names one, and put them into quarantine."""
    schema, folder = job.schema, job.partial.staged
    for path in (folder / "rejects").glob("*-copies-*"):  # an earlier run's
        path.unlink()
    if schema.columns.exposure_id is None or not any(piece.rows for piece in kept.pieces):
        return kept
    duplicates = find_duplicates(kept.pieces, kept.types, by_role=job.plan.kind == "provider")
    part, examples = reject_duplicates(kept.pieces, kept.types, duplicates, schema, folder)
    pieces = [replace(piece, examples=merge_examples(piece.examples, examples)) for piece in kept.pieces[:1]]
    pieces += kept.pieces[1:]
    return replace(kept, pieces=pieces, ledger=kept.ledger + part, duplicates=duplicates)


def _judge(job: _Preparation, kept: KeptRows) -> None:
    """Publish the rejected rows; stop where they are too many, or where weights are out of range."""
    place = publish_rejects(job.partial.staged, job.out)
    ledger, allowed = kept.ledger, job.options.max_reject_ratio
    ratio = ledger.rejected_rows / ledger.read
    problems: list[Finding] = []
    if ratio > allowed:
        examples: Mapping[str, tuple[tuple[str, str], ...]] = {}
        for piece in kept.pieces:
            examples = merge_examples(examples, piece.examples)
        hint = f"{ratio:.3%} of the rows are rejected, allowed are {allowed:.3%} (--max-reject-ratio)"
        hint += f"; they are in {place}"
        details = {"data.duplicate_key": kept.duplicates.words} if kept.duplicates and kept.duplicates.rows else {}
        found = findings(ledger.rejected, examples, details)
        problems = [replace(item, fix=f"{item.fix}; {hint}") for item in found]
    problems += [item for piece in kept.pieces for item in piece.refusals]
    if problems:
        raise DataError(*problems)
    if not kept.rows:
        raise InputMissingError(Finding("data.empty", "no row is left after rejection", str(place)))


def _fit(job: _Preparation, tasks: Sequence[PassTask], prints: Sequence[str], base: Encoder | None) -> dict[str, int]:
    """Write vocabulary and transforms; returns field -> distinct values in the training rows."""
    folder, options = job.partial.log / "vocabulary", job.options
    if base is not None and not options.grow:
        base.vocabulary.save(folder)
        base.transforms.save(folder)
        return {}
    start = None if options.vocabulary is None else str(options.vocabulary)
    fingerprint = NEVER if NEVER in prints or start else digest(list(prints), options.min_count)
    marker = Marker(job.partial.encoded / "vocabulary.json", fingerprint)
    body = marker.read()
    if body is not None and body["digest"] == folder_digest(folder):
        return dict(body["distinct"])
    marker.clear()
    vocabulary, transforms, distinct = _learn(job, tasks, base)
    for path in folder.iterdir():
        path.unlink()
    vocabulary.save(folder)
    transforms.save(folder)
    marker.write({"digest": folder_digest(folder), "distinct": distinct})
    return distinct


def _learn(
    job: _Preparation, tasks: Sequence[PassTask], base: Encoder | None
) -> tuple[Vocabulary, Transforms, dict[str, int]]:
    """Count the training rows; parts are merged as they come in."""
    schema = job.schema
    merger, statistics, rows = CountMerger(), empty_statistics(schema), 0

    def train_rows(survey: Survey) -> int:
        return survey.rows

    for survey in job.run("counting", survey_piece, tasks, train_rows):
        merger.add(survey.counts)
        statistics = statistics.merge(survey.statistics)
        rows += survey.rows
    if not rows and base is None:
        what = "there are no rows to train on, so no vocabulary can be made"
        fix = "look at this data with `postclick inspect`, or name the --vocabulary of a LOG or BUNDLE"
        raise DataError(Finding("data.no_train", what, fix=fix))
    counts = merger.result()
    check_cardinality(schema, counts, None if base is None else base.vocabulary)
    distinct = {item.name: counts.fields[item.name].num_rows for item in schema.sparse if item.hash_buckets is None}
    if base is not None:
        return base.vocabulary.extend(counts), base.transforms, distinct
    vocabulary = Vocabulary.build(schema, counts, min_count=job.options.min_count)
    return vocabulary, Transforms.fit(schema, statistics), distinct


def _encode(
    job: _Preparation, tasks: Sequence[PassTask], prints: Sequence[str], ledger: Ledger
) -> tuple[Ledger, dict[str, EncodeCounts]]:
    vocabulary = folder_digest(job.partial.log / "vocabulary")
    folder = job.partial.encoded
    marked = [
        replace(task, marker=Marker(folder / f"{task.file}.json", found and digest(found, vocabulary)))
        for task, found in zip(tasks, prints, strict=True)
    ]
    encoded: dict[str, EncodeCounts] = {}
    try:
        for part in job.run("encoding", encode_piece, marked, lambda piece: piece.ledger.kept_rows):
            ledger += part.ledger
            for split, counts in part.encoded.items():
                encoded[split] = encoded.get(split, EncodeCounts()) + counts
    finally:
        forget_encoder()
    _remove_strangers(job.partial.log, {task.file for task in tasks})
    ledger = replace(ledger, kept={name: ledger.kept[name] for name in SPLITS if name in ledger.kept})
    ledger.check()
    return ledger, {name: encoded[name] for name in SPLITS if name in encoded}


def _remove_strangers(folder: Path, known: set[str]) -> None:
    """Remove what an earlier run with more pieces, or with a truth, left."""
    (folder / "truth.arrow").unlink(missing_ok=True)
    for split in SPLITS:
        for path in (folder / split).iterdir():
            if path.name not in known:
                path.unlink()


def _write_papers(
    job: _Preparation,
    split: SplitPlan,
    kept: KeptRows,
    ledger: Ledger,
    encoded: Mapping[str, EncodeCounts],
    distinct: Mapping[str, int],
    sampled: SampleFacts,
) -> None:
    """Write schema, ledger and audit."""
    source, options, folder, found = job.plan.source, job.options, job.partial.log, kept.duplicates
    facts = AuditFacts(
        source.schema,
        source.protocol,
        ledger,
        split.to_dict(),
        encoded,
        None if found is None else {"exact": found.exact, "conflicting": found.conflicting},
        kept.overlap,
        distinct,
        [piece.label for piece in kept.pieces if not piece.ledger.read],
        options.orphan_conversions,
        sampled,
        sum(map(len, kept.strays.values())),
        Vocabulary.load(folder / "vocabulary").table_rows,
    )
    settings = {key: value for key, value in asdict(options).items() if key not in ("vocabulary", "split")}
    files.write_text(folder / "schema.toml", source.schema.to_toml())
    files.write_json(folder / "ledger.json", ledger.to_dict())
    files.write_json(folder / "audit.json", {**audit_body(facts), "options": settings})
