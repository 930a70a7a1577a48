"""Evaluate scores: heads by populations by slices, every number with its interval or the reason why there is none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from postclick.data.arrays import CENSORED, Labels
from postclick.data.log import Truth
from postclick.data.scores import Scores
from postclick.errors import ConfigError, Finding
from postclick.evaluation.calibration import calibration_tables, field_rces
from postclick.evaluation.debiased import DEBIASED_METRICS, OWN, Debiased, debiased_metrics, is_debiased
from postclick.evaluation.measure import measure
from postclick.evaluation.names import MetricName, format_metric, parse_metric
from postclick.evaluation.result import EvaluationResult, Metric
from postclick.evaluation.rows import EvaluationRows, Sample
from postclick.evaluation.slices import left_out, slice_masks
from postclick.evaluation.value import DEFAULT_VALUE, has_values, value_metrics, value_total

__all__ = ["DEFAULT_METRICS", "RANDOM_METRICS", "SLICE_METRICS", "WORLD_METRICS", "evaluate", "oracle"]

DEFAULT_METRICS = (
    *("auc", "gauc", "pr_auc", "logloss", "ne", "brier", "pcoc", "ece", "ks"),
    *("recall[top=0.01]", "f1[top=0.01]", "lift[top=0.01]", "mean"),
)
WORLD_METRICS = ("auc", "logloss", "pcoc", "ece", "mae", "mean")
SLICE_METRICS = ("auc", "logloss", "pcoc", "mean")
RANDOM_METRICS = ("ndcg[k=5]", "recall[k=5]")
"""Besides, where exposures were randomised: a user's list is then no choice of the system that showed it."""
_RAW_METRICS = ("auc[score=raw]", "pcoc[score=raw]")


class _Wanted:
    """Which metrics were asked for: by ``metric[variant]`` everywhere, or by full name."""

    def __init__(self, names: Sequence[str] | None) -> None:
        self.everywhere: list[str] = []
        self.full: list[MetricName] = []
        self.chosen = names is not None
        problems: list[Finding] = []
        for name in names or ():
            try:
                if "/" in name:
                    self.full.append(MetricName.parse(name))
                else:
                    self.everywhere.append(format_metric(*parse_metric(name)))
            except ConfigError as error:
                problems += error.findings
        if problems:
            raise ConfigError(*problems)

    def on(self, sample: Sample, part: str = "") -> list[str]:
        """Return ``metric[variant]`` wanted on a sample, of a slice where `part` is given."""
        if not self.chosen:
            world = sample.population == "world"
            names = SLICE_METRICS if part else WORLD_METRICS if world else DEFAULT_METRICS
            lists = RANDOM_METRICS if sample.population == "random" and sample.user is not None and not part else ()
            return [*names, *lists, *(_RAW_METRICS if sample.raw is not None and not part else ())]
        return [name for name in self._named(sample, part) if not _is_apart(name)]

    def apart(self, sample: Sample, metric: str, default: Sequence[str]) -> list[str]:
        """Return ``metric[variant]`` wanted of a whole sample, for a metric that needs more than the sample."""
        if not self.chosen:
            return [*default]
        return [name for name in self._named(sample, "") if parse_metric(name)[0] == metric]

    def _named(self, sample: Sample, part: str) -> list[str]:
        place = (sample.head, sample.population, part)
        here = (name for name in self.full if (name.head, name.population, name.slice) == place)
        return [*dict.fromkeys([*self.everywhere, *(format_metric(name.metric, name.variant) for name in here)])]

    def debiased(self) -> list[str]:
        """Return ``metric[estimator=...]`` wanted of the cvr on all exposures."""
        if not self.chosen:
            return [*DEBIASED_METRICS]
        full = [format_metric(name.metric, name.variant) for name in self.full]
        return [name for name in dict.fromkeys([*self.everywhere, *full]) if is_debiased(name)]


def evaluate(
    rows: EvaluationRows,
    *,
    level: float = 0.95,
    metrics: Sequence[str] | None = None,
    seed: int = 0,
    population: str = "exposure",
    split: str = "",
    bundle: str | None = None,
    log: str | None = None,
    ledger: Mapping[str, Any] | None = None,
) -> EvaluationResult:
    """Return the metrics of a split's scores, named ``HEAD/METRIC[variant]@POPULATION|slice``.

    ctr, ctcvr and ctar are measured on ``exposure``, cvr and action on ``click``; all of them on ``random`` where
    exposures were randomised (cvr and action on its clicked rows); on ``world`` those whose truth is known, over all
    exposures with the true probability as soft label. There, cvr and action are held against P(conversion | do(click))
    and P(action | do(click)); given click = 1 they differ only under hidden confounders. The mean CVR
    and the CVR's log-loss on ``exposure`` are estimated from clicked rows by several estimators.

    Parameters
    ----------
    rows
        Labels, scores, and what else is known.
    level
        Nominal coverage of the intervals.
    metrics
        Metrics (``auc``, ``recall[top=0.05]``) or full names; None is the default set. A full name that these rows do
        not have is absent from the result.
    seed
        Of the bootstraps; equal seeds give equal bits.
    population
        The schema's: in a log of clicks (``click``) the metrics of exposures are undefined.
    split, bundle, log, ledger
        Carried into the result.

    Raises
    ------
    ConfigError
        For unknown metrics, all at once, with the nearest spelling.
    """
    wanted = _Wanted(metrics)
    found: dict[str, Metric] = {}
    counted: dict[str, Any] = {"one_class_users": {}, "censored": {}}
    samples = rows.samples(population)
    for sample, part in _parts(rows, samples):
        names = wanted.on(sample, part)
        measured, counts = measure(sample, names, level=level, seed=seed)
        for name, metric in measured.items():
            found[str(MetricName(sample.head, *_swap(name, sample.population), part))] = metric
        place = f"{sample.head}@{sample.population}" + (f"|{part}" if part else "")
        if counts.get("skipped"):
            counted["one_class_users"][place] = counts
        if sample.censored and not part:
            counted["censored"][place] = sample.censored
    for sample in samples:
        found |= _with_columns(rows, sample, wanted, level, seed)
    estimated = debiased_metrics(rows, wanted.debiased(), population, level=level)
    found = dict(sorted((found | estimated.metrics).items(), key=lambda entry: "|" in entry[0]))  # slices last
    if estimated.censored and estimated.metrics:
        counted["censored"]["cvr@exposure"] = estimated.censored
    own = _ledger(rows, samples, found, counted, ledger or {})
    own["notes"] += _doubts(estimated)
    tables = calibration_tables(rows, samples, level=level) if metrics is None else None
    own["notes"] += tables.verdict if tables is not None else ()
    return EvaluationResult(found, split, bundle, log, own, overlap=estimated.overlap, calibration=tables)


def _is_apart(name: str) -> bool:
    """Return whether a metric needs more than the rows of one sample."""
    return is_debiased(name) or parse_metric(name)[0] in ("field_rce", "value")


def _with_columns(rows: EvaluationRows, sample: Sample, wanted: _Wanted, level: float, seed: int) -> dict[str, Metric]:
    """Return the metrics of a sample that read columns beside it: Field-RCE by a column's values, realised value."""
    found: dict[str, Metric] = {}
    observed = sample.population != "world"
    by = wanted.apart(sample, "field_rce", [f"field_rce[by={column}]" for column in rows.slices] if observed else [])
    columns = {name: parse_metric(name)[1].removeprefix("by=") for name in by}
    held = [column for column in columns.values() if column in rows.slices]
    for column, estimate in field_rces(rows, sample, held, level=level, seed=seed).items():
        metric = Metric.of(estimate, len(sample), sample.positives, derived=sample.derived)
        found[str(MetricName(sample.head, "field_rce", sample.population, f"by={column}"))] = metric
    worth = has_values(rows.labels) and sample.head == "ctcvr" and observed
    names = wanted.apart(sample, "value", [DEFAULT_VALUE]) if worth else []
    for name, metric in value_metrics(sample, rows.labels, names, level=level, seed=seed).items() if names else ():
        found[str(MetricName(sample.head, *_swap(name, sample.population)))] = metric
    return found


def _doubts(estimated: Debiased) -> list[str]:
    """Return what a reader of the debiased estimates must know."""
    seen = estimated.overlap
    if seen is None or seen.thin:  # then the weighted ones are withheld anyway
        return []
    learned = (
        "debiased estimates divide by the system's own ctr: their intervals leave out its error, and what it has not "
        "learned of the clicks stays uncorrected"
    )
    return [*([learned] if seen.source == OWN else []), *(f"{seen.source}: {doubt}" for doubt in seen.doubts)]


def _swap(name: str, population: str) -> tuple[str, str, str]:
    metric, variant = parse_metric(name)
    return metric, population, variant


def _parts(rows: EvaluationRows, samples: list[Sample]) -> Iterator[tuple[Sample, str]]:
    """Yield every sample whole, then by slices."""
    yield from ((sample, "") for sample in samples)
    for part, mask in slice_masks(rows):
        for sample in samples:
            if sample.undefined is None:
                yield sample.select(mask), part


def _ledger(
    rows: EvaluationRows,
    samples: list[Sample],
    found: Mapping[str, Metric],
    counted: Mapping[str, Any],
    ledger: Mapping[str, Any],
) -> dict[str, Any]:
    labels = rows.labels
    notes = []
    for place, count in counted["censored"].items():
        notes.append(f"{place}: {count} rows left out, the window of their label has not closed")
    for place, count in counted["one_class_users"].items():
        notes.append(f"{place}: gauc skipped {count['skipped']} of {count['users']} users, they have one class")
    for column, more in left_out(rows).items():
        notes.append(f"{column}: {more} more values have no metrics of their own")
    undefined: dict[str, list[str]] = {}
    for name, metric in found.items():
        if metric.undefined:
            undefined.setdefault(metric.undefined, []).append(name)
    for reason, names in undefined.items():
        code = "eval.single_class " if reason in ("no positives", "no negatives") else ""
        notes.append(f"{code}undefined ({reason}): {', '.join(names[:5])}" + (" ..." if len(names) > 5 else ""))
    if rows.scores.clipped and any(sample.derived for sample in samples):
        notes.append(f"{rows.scores.clipped} derived values left [0, 1] and were clipped")
    own = {
        "rows": len(labels),
        "clicks": _ones(labels.click),
        "conversions": _ones(labels.conversion),
        "weighted": labels.sample_weight is not None,
        "users": None if rows.user is None else int(rows.user.max(initial=-1)) + 1,
        "clipped": rows.scores.clipped,
        "value": value_total(labels),
        **counted,
        "notes": notes,
    }
    return {**ledger, **own}


def _ones(label: NDArray[np.int8]) -> int:
    return int(np.count_nonzero((label == 1) & (label != CENSORED)))


def oracle(labels: Labels, truth: Truth, **options: Any) -> EvaluationResult:
    """Return the metrics of the true probabilities as scores: the ceiling of every system on these rows.

    On ``click`` and ``random`` the cvr is P(conversion | click = 1), the right answer to what is observed there; on
    ``world`` it is P(conversion | do(click)). They are one function unless the world has hidden confounders.

    Parameters
    ----------
    labels, truth
        Of the same rows.
    options
        Arguments of `evaluate`, and ``slices``, ``cold_user``, ``cold_item`` of `EvaluationRows`.
    """
    parts = {name: options.pop(name) for name in ("slices", "cold_user", "cold_item") if name in options}

    def of(cvr: NDArray[np.float64]) -> EvaluationResult:
        odds = {"ctr": truth.ctr, "cvr": cvr, "ctcvr": truth.ctcvr, "action": truth.action, "ctar": truth.ctar}
        scores = Scores({head: _log_odds(share) for head, share in odds.items() if share is not None}, {})
        return evaluate(EvaluationRows(labels, scores, truth, **parts), **options)

    whole = of(truth.cvr_do)
    if np.array_equal(truth.cvr_do, truth.cvr_click):
        return whole
    observed = of(truth.cvr_click)
    mixed = {
        name: metric if name.startswith("cvr/") and "@world" in name else observed[name]
        for name, metric in whole.metrics.items()
    }
    return replace(observed, metrics=mixed)


def _log_odds(share: NDArray[np.float64]) -> NDArray[np.float64]:
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(share) - np.log1p(-share))
