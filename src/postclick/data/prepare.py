"""Source -> vocabulary -> ExposureLog: streamed in three passes, bounded in memory, all or nothing on disk.

1. *Stage*: each piece is read once; labels are parsed, faulty rows go to quarantine, the rest to scratch files.
2. *Survey*: later copies of an exposure id go to quarantine, the split is decided, training rows are counted.
3. *Encode*: each piece becomes ``SPLIT/part-NNNNN.arrow``.

Passes 1 to 3 run a piece at a time, so their results do not depend on the number of processes.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar, get_args

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from postclick import files, progress
from postclick.data.audit import AuditFacts, audit_body, refuse_leaks
from postclick.data.counts import CountMerger
from postclick.data.duplicates import Duplicates, find_duplicates
from postclick.data.encode import EncodeCounts, Encoder
from postclick.data.faults import findings, merge_examples
from postclick.data.labels import OrphanPolicy
from postclick.data.ledger import Ledger
from postclick.data.log import SPLITS, ExposureLog
from postclick.data.passes import PassTask, Survey, empty_statistics, encode_piece, forget_encoder, survey_piece
from postclick.data.quarantine import check_rejects, publish_rejects, reject_duplicates
from postclick.data.sources.base import Piece, Source
from postclick.data.split import SplitKind, SplitPlan, choose_split, time_plan
from postclick.data.staging import StagedPiece, StageTask, column_types, read_staged, stage
from postclick.data.transforms import Transforms
from postclick.data.truth import write_truth
from postclick.data.vocabulary import Vocabulary
from postclick.errors import ConfigError, DataError, Finding, InputMissingError
from postclick.execution import ordered_map

__all__ = ["PrepareOptions", "prepare"]

Task = TypeVar("Task")
Result = TypeVar("Result")
_SCRATCH = ".scratch"


@dataclass(frozen=True)
class PrepareOptions:
    """How to prepare.

    Parameters
    ----------
    split
        ``provider``, ``time``, ``user`` or ``random``; None takes the provider's files where there are any, else time.
    vocabulary
        A LOG, RUN or BUNDLE whose vocabulary and transforms are used as they are; None fits them to the training rows.
    grow
        With `vocabulary`: append the training rows' new values; old rows stay where they are.
    min_count
        Floor of fields that declare none.
    orphan_conversions
        What a conversion without click is: ``reject``, ``set_click`` or ``view_through``.
    max_reject_ratio
        Largest share of rows in quarantine that still gives a log.
    allow_overlap
        Accept exposures or times that are in several splits of the provider.

    Raises
    ------
    ConfigError
        All values out of range, together.
    """

    split: str | None = None
    vocabulary: Path | None = None
    grow: bool = False
    min_count: int = 10
    orphan_conversions: OrphanPolicy = "reject"
    max_reject_ratio: float = 0.001
    allow_overlap: bool = False

    def __post_init__(self) -> None:
        policies = get_args(OrphanPolicy)
        checks = (
            (self.min_count >= 1, f"expected at least 1, got {self.min_count}", "--min-count"),
            (0 <= self.max_reject_ratio <= 1, f"expected 0 to 1, got {self.max_reject_ratio}", "--max-reject-ratio"),
            (
                self.orphan_conversions in policies,
                f"expected one of {', '.join(policies)}, got {self.orphan_conversions!r}",
                "--orphan-conversions",
            ),
        )
        problems = [Finding("config.value", what, where) for sound, what, where in checks if not sound]
        if problems:
            raise ConfigError(*problems)


@dataclass(frozen=True)
class _Staged:
    """All pieces after the first pass, without later copies."""

    pieces: list[StagedPiece]
    types: Mapping[str, pa.DataType]
    ledger: Ledger
    duplicates: Duplicates | None = None
    overlap: dict[str, Any] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        return sum(piece.rows for piece in self.pieces) - (self.duplicates.rows if self.duplicates else 0)

    def drop(self, piece: StagedPiece) -> dict[int, NDArray[np.int64]]:
        """Return file within the piece -> rows to leave out."""
        found = self.duplicates.drop if self.duplicates else {}
        return {number: rows for (index, number), rows in found.items() if index == piece.index}


def prepare(
    source: Source,
    out: str | Path,
    options: PrepareOptions | None = None,
    *,
    truth: Path | None = None,
    force: bool = False,
    jobs: int = 1,
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
    jobs
        Processes; the result does not depend on it.

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
    StorageError
        Where `out` exists and `force` is off, or the disk fails.
    """
    started = time.monotonic()
    out, options = Path(out), options or PrepareOptions()
    pieces = source.pieces()
    refuse_leaks(source.schema)
    kind = choose_split(options.split, [piece.role for piece in pieces], source.schema)
    base = None if options.vocabulary is None else _base_encoder(options.vocabulary, source)
    files.check_free(out, force=force)
    check_rejects(out, force=force)
    with files.new_folder(out, "log", force=force) as folder:
        for name in (*SPLITS, "vocabulary", _SCRATCH, f"{_SCRATCH}/rejects"):
            (folder / name).mkdir()
        staged = _stage(source, pieces, folder / _SCRATCH, options, jobs)
        staged = _without_copies(staged, source, folder / _SCRATCH, kind)
        _judge(staged, folder / _SCRATCH, out, options)
        plan = _plan(kind, staged)
        staged = _check_overlap(staged, source, kind, options)
        tasks = [
            PassTask(piece, source.schema, staged.types, plan, staged.drop(piece), folder) for piece in staged.pieces
        ]
        distinct = _fit(source, tasks, folder / "vocabulary", base, options, jobs)
        ledger, encoded = _encode(tasks, staged.ledger, jobs)
        _write_papers(source, folder, options, plan, staged, ledger, encoded, distinct)
        if truth is not None:
            write_truth(truth, folder)
        shutil.rmtree(folder / _SCRATCH)
        seconds = time.monotonic() - started
        record = {"stage": "prepare", "seconds": round(seconds, 3), "rows": ledger.read, "jobs": jobs}
        files.append_json_line(folder / files.RECORD, record)
    return ExposureLog(out)


def _base_encoder(path: Path, source: Source) -> Encoder:
    """Read the vocabulary of a LOG, RUN or BUNDLE."""
    for folder in (path / "vocabulary", path / "bundle" / "vocabulary"):
        if folder.is_dir():
            return Encoder.load(folder, source.schema)
    fix = "pass a LOG, RUN or BUNDLE"
    raise InputMissingError(Finding("input.wrong_kind", "there is no vocabulary here", str(path), fix=fix))


def _run(
    label: str, work: Callable[[Task], Result], tasks: Sequence[Task], jobs: int, rows: Callable[[Result], int]
) -> Iterator[Result]:
    """Run a pass with its progress bar."""
    with progress.bar(label, None) as advance:
        for number, result in enumerate(ordered_map(work, tasks, jobs=jobs)):
            advance(rows(result), f"{number + 1} of {len(tasks)} pieces")
            yield result


def _stage(source: Source, pieces: Sequence[Piece], scratch: Path, options: PrepareOptions, jobs: int) -> _Staged:
    numbers: dict[tuple[str, str | None, str | None], int] = {}
    tasks = []
    for index, piece in enumerate(pieces):
        file_index = numbers.setdefault((piece.label, piece.path, piece.role), len(numbers))
        tasks.append(StageTask(source, piece, index, file_index, scratch, options.orphan_conversions))
    staged = list(_run("reading", stage, tasks, jobs, lambda piece: piece.ledger.read))
    ledger = sum((piece.ledger for piece in staged), Ledger())
    if not ledger.read:
        fix = "check the paths and the filters"
        raise InputMissingError(Finding("data.empty", "the source holds no rows", fix=fix))
    return _Staged(staged, column_types(staged), ledger)


def _without_copies(staged: _Staged, source: Source, scratch: Path, kind: SplitKind) -> _Staged:
    """Find later copies of an exposure id, where the schema names one, and put them into quarantine."""
    if source.schema.columns.exposure_id is None or not any(piece.rows for piece in staged.pieces):
        return staged
    duplicates = find_duplicates(staged.pieces, staged.types, by_role=kind == "provider")
    part, examples = reject_duplicates(staged.pieces, staged.types, duplicates, source.schema, scratch)
    pieces = [replace(piece, examples=merge_examples(piece.examples, examples)) for piece in staged.pieces[:1]]
    pieces += staged.pieces[1:]
    return replace(staged, pieces=pieces, ledger=staged.ledger + part, duplicates=duplicates)


def _judge(staged: _Staged, scratch: Path, out: Path, options: PrepareOptions) -> None:
    """Publish the rejected rows; stop where they are too many, or where weights are out of range."""
    place = publish_rejects(scratch, out)
    ledger = staged.ledger
    ratio = ledger.rejected_rows / ledger.read
    problems: list[Finding] = []
    if ratio > options.max_reject_ratio:
        examples: Mapping[str, tuple[tuple[str, str], ...]] = {}
        for piece in staged.pieces:
            examples = merge_examples(examples, piece.examples)
        hint = f"{ratio:.3%} of the rows are rejected, allowed are {options.max_reject_ratio:.3%} "
        hint += f"(--max-reject-ratio); they are in {place}"
        problems = [replace(item, fix=f"{item.fix}; {hint}") for item in findings(ledger.rejected, examples)]
    problems += [item for piece in staged.pieces for item in piece.refusals]
    if problems:
        raise DataError(*problems)
    if not staged.rows:
        raise InputMissingError(Finding("data.empty", "no row is left after rejection", str(place)))


def _plan(kind: SplitKind, staged: _Staged) -> SplitPlan:
    if kind == "time":
        return time_plan(lambda: (times for _, times in _times(staged)), staged.rows)
    carve = kind == "provider" and not any(piece.role == "valid" for piece in staged.pieces)
    return SplitPlan(kind, carve_valid=carve)


def _times(staged: _Staged) -> Iterator[tuple[str | None, NDArray[np.int64]]]:
    """Yield (role, exposure times) of the rows that stay."""
    for piece in staged.pieces:
        drop = staged.drop(piece)
        for number, file in enumerate(piece.files):
            parts = [np.asarray(b.column(0)) for b in read_staged(file, staged.types, ["label:time"])]
            times = np.concatenate(parts)
            yield piece.role, np.delete(times, drop[number]) if number in drop else times


def _check_overlap(staged: _Staged, source: Source, kind: SplitKind, options: PrepareOptions) -> _Staged:
    """Refuse exposures or times that are in several splits of the provider, unless that is allowed (D18)."""
    if kind != "provider":
        return staged
    allowed = options.allow_overlap or source.protocol.allow_overlap
    keys = dict(staged.duplicates.overlap) if staged.duplicates else {}
    spans = _time_overlap(staged) if source.schema.columns.time else {}
    fix = "repair the split, choose another --split, or accept it with --allow-overlap"
    problems = [
        Finding("data.split_leak", f"exposure ids are in both splits of {pair}", count=count, fix=fix)
        for pair, count in keys.items()
    ]
    problems += [
        Finding("data.split_leak", f"the times of {pair} overlap by {span / 1e6:,.0f} seconds", fix=fix)
        for pair, span in spans.items()
    ]
    if problems and not allowed:
        raise DataError(*problems)
    return replace(staged, overlap={"keys": keys, "time_us": spans, "allowed": allowed})


def _time_overlap(staged: _Staged) -> dict[str, int]:
    last_train, first_test = None, None
    for role, times in _times(staged):
        if role == "train" and len(times):
            last_train = max(int(times.max()), int(times.max()) if last_train is None else last_train)
        if role == "test" and len(times):
            first_test = min(int(times.min()), int(times.min()) if first_test is None else first_test)
    if last_train is None or first_test is None or last_train <= first_test:
        return {}
    return {"train-test": last_train - first_test}


def _fit(
    source: Source, tasks: Sequence[PassTask], folder: Path, base: Encoder | None, options: PrepareOptions, jobs: int
) -> dict[str, int]:
    """Write vocabulary and transforms; returns field -> distinct values in the training rows."""
    if base is not None and not options.grow:
        base.vocabulary.save(folder)
        base.transforms.save(folder)
        return {}
    merger, statistics, rows = CountMerger(), empty_statistics(source.schema), 0

    def train_rows(survey: Survey) -> int:
        return survey.rows

    for survey in _run("counting", survey_piece, tasks, jobs, train_rows):
        merger.add(survey.counts)
        statistics = statistics.merge(survey.statistics)
        rows += survey.rows
    if not rows and base is None:
        what = "there are no rows to train on, so no vocabulary can be made"
        fix = "look at this data with `postclick inspect`, or name the --vocabulary of a LOG or BUNDLE"
        raise DataError(Finding("data.no_train", what, fix=fix))
    counts = merger.result()
    if base is None:
        vocabulary = Vocabulary.build(source.schema, counts, min_count=options.min_count)
        transforms = Transforms.fit(source.schema, statistics)
    else:
        vocabulary, transforms = base.vocabulary.extend(counts), base.transforms
    vocabulary.save(folder)
    transforms.save(folder)
    return {item.name: counts.fields[item.name].num_rows for item in source.schema.sparse if item.hash_buckets is None}


def _encode(tasks: Sequence[PassTask], ledger: Ledger, jobs: int) -> tuple[Ledger, dict[str, EncodeCounts]]:
    encoded: dict[str, EncodeCounts] = {}
    try:
        for part in _run("encoding", encode_piece, tasks, jobs, lambda piece: piece.ledger.kept_rows):
            ledger += part.ledger
            for split, counts in part.encoded.items():
                encoded[split] = encoded.get(split, EncodeCounts()) + counts
    finally:
        forget_encoder()
    ledger = replace(ledger, kept={name: ledger.kept[name] for name in SPLITS if name in ledger.kept})
    ledger.check()
    return ledger, {name: encoded[name] for name in SPLITS if name in encoded}


def _write_papers(
    source: Source,
    folder: Path,
    options: PrepareOptions,
    plan: SplitPlan,
    staged: _Staged,
    ledger: Ledger,
    encoded: Mapping[str, EncodeCounts],
    distinct: Mapping[str, int],
) -> None:
    """Write schema, ledger and audit."""
    found = staged.duplicates
    facts = AuditFacts(
        source.schema,
        source.protocol,
        ledger,
        plan.to_dict(),
        encoded,
        None if found is None else {"exact": found.exact, "conflicting": found.conflicting},
        staged.overlap,
        distinct,
        [piece.label for piece in staged.pieces if not piece.ledger.read],
        options.orphan_conversions,
    )
    settings = {key: value for key, value in asdict(options).items() if key not in ("vocabulary", "split")}
    files.write_text(folder / "schema.toml", source.schema.to_toml())
    files.write_json(folder / "ledger.json", ledger.to_dict())
    files.write_json(folder / "audit.json", {**audit_body(facts), "options": settings})
