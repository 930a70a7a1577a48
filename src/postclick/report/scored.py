"""What needs a LOG's rows: calibration curves, the oracle, and paired comparisons of RUNs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from postclick.report.curves import scored
from postclick.report.facts import Contestant, Curve, Pair, Slices, Study
from postclick.report.log_facts import Delay
from postclick.report.words import settled

if TYPE_CHECKING:
    from postclick.data.log import ExposureLog
    from postclick.data.scores import Scores
    from postclick.evaluation import Comparison, EvaluationRows

__all__ = ["COMPARED", "arrivals", "judged"]

COMPARED = ("cvr/auc@world", "cvr/auc@click", "cvr/logloss@click", "ctcvr/auc@exposure", "ctcvr/logloss@exposure")
"""What RUNs of one log are compared by, as far as their rows have it."""
_AGES = 48
"""Points of the delay curve."""


def judged(study: Study, log: Path, folders: Mapping[str, Sequence[Path]], by: Sequence[str]) -> Study:
    """Return the study with what the rows of its LOG say.

    Parameters
    ----------
    study
        What the folders alone say.
    log
        Its LOG.
    folders
        Name of a shown run -> its folder, and those of its other seeds.
    by
        Columns whose values get curves of their own.

    Raises
    ------
    DataError
        The LOG is not the one that a run was trained on.
    ConfigError
        A column in `by` that the LOG has not.
    """
    from postclick.bundle import Bundle, Scorer
    from postclick.data.log import ExposureLog
    from postclick.run.assessment import judged_rows

    opened = ExposureLog(log)
    population = opened.schema.population
    curves: dict[str, tuple[tuple[Curve, ...], Slices]] = {}
    scores: dict[str, list[Scores]] = {}
    rows = None
    for contestant in study.contestants:
        run = contestant.run
        if run is None:
            continue
        for folder in folders[run.name]:
            bundle = Bundle.load(folder)
            bundle.require_fit(opened)
            rows, _, _ = judged_rows(Scorer(bundle, "cpu"), opened, study.split, by)
            scores.setdefault(contestant.label, []).append(rows.scores)
            if run.name not in curves:
                curves[run.name] = scored(rows, population)
    if rows is None:
        return study
    contestants = tuple(_with_curves(entry, curves) for entry in study.contestants)
    best = study.oracle or _oracle(rows, opened, study)
    study = replace(study, contestants=contestants, oracle=best, log=replace(study.log, delay=arrivals(opened)))
    if study.pairs or len(scores) < 2:
        return study
    baseline = study.baseline or study.contestants[0].label
    return replace(study, baseline=baseline, pairs=_compared(scores, rows, study.metrics, baseline, population))


def _with_curves(contestant: Contestant, found: Mapping[str, tuple[tuple[Curve, ...], Slices]]) -> Contestant:
    run = contestant.run
    if run is None or run.name not in found:
        return contestant
    curves, slices = found[run.name]
    known = {curve.place for curve in run.curves}
    more = tuple(curve for curve in curves if curve.place not in known)
    slices = slices if slices.ratios else run.slices
    return replace(contestant, run=replace(run, curves=run.curves + more, slices=slices))


def _oracle(rows: EvaluationRows, log: ExposureLog, study: Study) -> dict[str, float]:
    """Return what the true probabilities themselves reach on these rows."""
    from postclick.evaluation import oracle

    truth, metrics = log.truth(study.split), [name for name in study.metrics if "|" not in name]
    if truth is None or not metrics:
        return {}
    found = oracle(rows.labels, truth, metrics=metrics, split=study.split, population=log.schema.population)
    return {name: settled(metric.value) for name, metric in found.metrics.items() if metric.value is not None}


def arrivals(log: ExposureLog) -> Delay | None:
    """Return how late the conversions of train come; None where clicks or conversions have no times."""
    from postclick.data.arrays import CENSORED

    if "train" not in log.splits:
        return None
    labels = log.split("train").labels()
    start, end = labels.click_time, labels.conversion_time
    if start is None or end is None:
        return None
    late = (end - start)[(labels.click == 1) & (labels.conversion == 1) & (end >= start) & (start > 0)] / 1e6
    if len(late) < _AGES:
        return None
    ages = np.unique(np.quantile(late, np.linspace(0.0, 1.0, _AGES)))
    arrived = np.searchsorted(np.sort(late), ages, "right") / len(late)
    words = "Only conversions that came before the log ends are counted, so the slowest are missing."
    immature = int(np.count_nonzero(labels.conversion == CENSORED))
    return Delay(tuple(map(float, ages)), tuple(map(float, arrived)), immature, (words,))


def _compared(
    scores: Mapping[str, Sequence[Scores]],
    rows: EvaluationRows,
    metrics: Sequence[str],
    baseline: str,
    population: str,
) -> tuple[Pair, ...]:
    from postclick.evaluation.compare import compare
    from postclick.evaluation.names import MetricName
    from postclick.metrics.influence import COMPARED as KINDS

    names = [name for name in metrics if MetricName.parse(name).metric in KINDS and "|" not in name]
    found: Comparison = compare(
        scores, rows.labels, truth=rows.truth, metrics=names, baseline=baseline, population=population
    )
    return tuple(
        Pair(
            name,
            entry.system,
            entry.against,
            entry.value,
            entry.low,
            entry.high,
            entry.verdict,
            entry.needed,
            entry.seeds[0],
            gain=None if "/pcoc" in name or not entry.reference else entry.value / abs(entry.reference),
            p=entry.p_holm,
            method=entry.method,
        )
        for name, entries in found.differences.items()
        for entry in entries
        if entry.value is not None and entry.low is not None and entry.high is not None
    )
