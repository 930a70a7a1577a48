"""From paths to facts: which RUNs belong together, which LOG is whose, and what stays unknown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from postclick import files
from postclick.errors import Finding, InputMissingError
from postclick.report.boards import read_benchmark, shared_logs
from postclick.report.facts import Cell, Contestant, Figures, RunFacts, Study
from postclick.report.folders import read_log, read_run, remembered_log, short_names
from postclick.report.scored import COMPARED, judged

__all__ = ["SCORED_ROWS", "collect"]

SCORED_ROWS = 2_000_000
"""Rows times systems of a benchmark that are scored unasked: seconds. What ``--log`` names is scored at any size."""
_NEEDS_ROWS = "calibration curves, the best possible score and paired verdicts"


@dataclass(frozen=True)
class _Given:
    """What came on the command line."""

    runs: dict[str, Path]
    benchmarks: dict[str, Path]
    logs: dict[str, Path]
    by: tuple[str, ...]


def collect(paths: Sequence[Path], logs: Sequence[Path] = (), by: Sequence[str] = ()) -> Figures:
    """Return the facts of RUNs and BENCHMARKs.

    RUNs of one LOG are one study, a BENCHMARK is a study a data set. A RUN tells all but what needs rows; with its LOG
    in `logs` it is scored anew for calibration curves and compared with the others in pairs.

    Parameters
    ----------
    paths
        RUN and BENCHMARK folders.
    logs
        LOG folders; each belongs to the runs that were trained on it.
    by
        Columns whose values get calibration curves of their own.

    Raises
    ------
    InputMissingError
        A folder of another kind, or a LOG that none of the runs was trained on; all at once.
    """
    from importlib.metadata import version

    given = _sorted(paths, logs, by)
    runs = {name: read_run(path, name) for name, path in given.runs.items()}
    studies, used = [], set()
    for group in _groups(runs):
        studies.append(_runs_study(group, given))
        used.add(group[0].log)
    for name, path in given.benchmarks.items():
        kept = shared_logs(path)
        for study in read_benchmark(path, name, kept | given.logs):
            studies.append(_scored_benchmark(study, path, kept, given))
            used.add(study.log.hash)
    strays = [str(given.logs[log]) for log in given.logs if log not in used]
    if strays:
        fix = "pass the LOG that `postclick prepare` made for them"
        raise InputMissingError(
            *(Finding("input.wrong_kind", "none of the runs was trained on this LOG", path, fix=fix) for path in strays)
        )
    studies = _told_apart(studies)
    return Figures(tuple(studies), tuple(_missing(studies)), version("postclick"))


def _sorted(paths: Sequence[Path], logs: Sequence[Path], by: Sequence[str]) -> _Given:
    """Tell RUNs from BENCHMARKs; every wrong folder is reported."""
    problems: list[Finding] = []
    kinds: dict[Path, str] = {}
    for path in dict.fromkeys([*paths, *logs]):
        wanted = ("log",) if path in logs and path not in paths else ("run", "benchmark")
        try:
            kinds[path] = files.read_manifest(path, *wanted).kind
        except InputMissingError as error:
            problems += error.findings
    if problems:
        raise InputMissingError(*problems)
    given = list(dict.fromkeys(paths))
    names = dict(zip(given, short_names(given), strict=True))
    runs = {names[path]: path for path in given if kinds[path] == "run"}
    benchmarks = {names[path]: path for path in given if kinds[path] == "benchmark"}
    by_hash = {files.read_manifest(path, "log").hash: path for path in logs}
    return _Given(runs, benchmarks, by_hash, tuple(by))


def _told_apart(studies: Sequence[Study]) -> list[Study]:
    """Return the studies; those that share a name, as data sets of two BENCHMARKs may, with their origin in it."""
    names = [study.name for study in studies]
    return [
        replace(study, name=f"{study.name} ({study.origin})") if names.count(study.name) > 1 else study
        for study in studies
    ]


def _groups(runs: Mapping[str, RunFacts]) -> list[list[RunFacts]]:
    found: dict[str, list[RunFacts]] = {}
    for run in runs.values():
        found.setdefault(run.log, []).append(run)
    return list(found.values())


def _runs_study(runs: Sequence[RunFacts], given: _Given) -> Study:
    """Return the study of RUNs of one LOG; those that differ by their seed alone are seeds of one contestant."""
    path = given.logs.get(runs[0].log)
    log = remembered_log(runs) if path is None else read_log(path, _log_names(given)[path])
    metrics = tuple(name for name in COMPARED if any(_value(run, name) is not None for run in runs))
    alike: dict[str, list[RunFacts]] = {}
    for run in runs:
        alike.setdefault(repr((run.system, sorted(run.config.items(), key=str))), []).append(run)
    labels = dict(zip([run.name for run in runs], short_names([given.runs[run.name] for run in runs]), strict=True))
    contestants = tuple(_contestant(labels[seeds[0].name], seeds, metrics) for seeds in alike.values())
    study = Study(log.name, ", ".join(run.name for run in runs), log, contestants, metrics)
    if path is None:
        return study
    folders = {seeds[0].name: [given.runs[run.name] for run in seeds] for seeds in alike.values()}
    return judged(study, path, folders, given.by)


def _value(run: RunFacts, name: str) -> Any:
    return run.metrics.get(name, {}).get("value")


def _log_names(given: _Given) -> dict[Path, str]:
    """Return what tells the LOGs apart: `a/log` and `b/log` are a and b."""
    paths = list(given.logs.values())
    names = short_names(paths)
    common = {name.rpartition("/")[2] for name in names}
    if len(names) > 1 and len(common) == 1:
        names = [name.rpartition("/")[0] or name for name in names]
    return dict(zip(paths, names, strict=True))


def _contestant(label: str, runs: Sequence[RunFacts], metrics: Sequence[str]) -> Contestant:
    first = runs[0]
    cells = {}
    for name in metrics:
        entries = [run.metrics.get(name, {}) for run in runs]
        values = tuple(float(entry["value"]) for entry in entries if entry.get("value") is not None)
        undefined = next((str(entry["undefined"]) for entry in entries if entry.get("undefined")), None)
        derived = any(bool(entry.get("derived")) for entry in entries)
        if len(values) < len(runs):
            cells[name] = Cell(None, seeds=values, derived=derived, undefined=undefined or "not measured")
            continue
        spread = stdev(values) if len(values) > 1 else None
        low, high = (entries[0]["low"], entries[0]["high"]) if len(values) == 1 else (None, None)
        cells[name] = Cell(fmean(values), low, high, values, spread, derived)
    return Contestant(label, first.system, first, len(runs), cells)


def _scored_benchmark(study: Study, path: Path, kept: Mapping[str, Path], given: _Given) -> Study:
    """Score a benchmark's shown runs where its LOG was given, or lies beside it and is small."""
    runs = [entry.run for entry in study.contestants if entry.run is not None]
    log = given.logs.get(study.log.hash)
    if log is None and study.log.hash in kept:
        judges = study.log.funnel(study.split)
        if judges is not None and judges.rows * len(runs) <= SCORED_ROWS:
            log = kept[study.log.hash]
    if log is None or not runs:
        return study
    return judged(study, log, {run.name: [path / "runs" / run.name] for run in runs}, given.by)


def _missing(studies: Sequence[Study]) -> list[str]:
    """Say what is not shown for want of a LOG."""
    found = []
    for study in studies:
        runs = [entry.run for entry in study.contestants if entry.run is not None]
        lacks = [] if study.log.known else ["the ledger, the audit and the fields of the log"]
        curves = any(run.curves for run in runs)
        lacks += [] if curves else [_NEEDS_ROWS]
        lacks += ["paired verdicts"] if curves and len(study.contestants) > 1 and not study.pairs else []
        if lacks and runs:
            found.append(f"{study.name}: {', and '.join(lacks)} need the LOG; add --log LOG to show them.")
        silent = [run.name for run in runs if not run.metrics]
        if silent:
            found.append(f"{', '.join(silent)}: not evaluated; run postclick evaluate RUN LOG first.")
    return found
