"""Compare scored systems on the same rows: paired, over seeds and users, Holm over each metric's table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np

from postclick.data.arrays import Labels
from postclick.data.log import Truth
from postclick.data.scores import Scores
from postclick.errors import ConfigError, DataError, Finding, nearest
from postclick.evaluation.comparison import Comparison, Difference, Standing, Verdict
from postclick.evaluation.names import MetricName, unknown_name
from postclick.evaluation.readings import Reading, readings, samples_of
from postclick.metrics.influence import COMPARED, HIGHER_IS_BETTER, Influence
from postclick.metrics.significance import Contrast, Distance, contrast, holm, needed

__all__ = ["DEFAULT_COMPARED", "compare", "compare_readings"]

DEFAULT_COMPARED = ("cvr/auc@click", "cvr/logloss@click", "ctcvr/auc@exposure", "ctcvr/logloss@exposure")
_NOUN = {"ctr": "clicks", "action": "actions", "ctar": "actions"}


@dataclass(frozen=True)
class _Side:
    """One system's metric: an influence a seed, or why there is none."""

    name: str
    seeds: tuple[Influence, ...]
    derived: bool
    undefined: str | None
    n: int
    positives: float
    clustered: bool

    @classmethod
    def of(cls, name: str, found: Sequence[Reading]) -> _Side:
        """Join the seeds; the rows, and so their counts, are the same for all of them."""
        undefined = next((entry.undefined for entry in found if entry.undefined), None)
        derived = any(entry.derived for entry in found)
        first = found[0]
        influences = tuple(entry.influence for entry in found)
        return cls(name, influences, derived, undefined, first.n, first.positives, first.clustered)

    def standing(self, log_scale: bool) -> Standing:
        if self.undefined is not None:
            return Standing(None, None, len(self.seeds), self.undefined, self.derived)
        values = np.array([entry.value for entry in self.seeds])
        spread = float(values.std(ddof=1)) if len(values) > 1 else None
        mean = float(values.mean())
        return Standing(math.exp(mean) if log_scale else mean, spread, len(values), None, self.derived)


def compare(
    systems: Mapping[str, Sequence[Scores]],
    labels: Labels,
    *,
    truth: Truth | None = None,
    metrics: Sequence[str] = DEFAULT_COMPARED,
    baseline: str | None = None,
    level: float = 0.95,
    population: str = "exposure",
) -> Comparison:
    """Return where each system stands and which differ, metric by metric.

    The difference of two systems is that of their means over seeds. Its variance is the seed variance / S plus the
    test variance of the seed-mean difference, clustered by ``labels.user_id``, by row where there is no user, which
    `Difference.method` says (`metrics.significance` has the equations). More than 32,768 users (rows) are first folded
    at random into as many groups. Verdicts use p-values adjusted by Holm over the pairs of each metric.

    Parameters
    ----------
    systems
        Name -> one scoring of the same rows a training seed, at least two systems. Two systems with equally many
        seeds are paired in the order given. With one seed the verdict is on those trained models, not on the systems.
    labels, truth
        Of the same rows.
    metrics
        Full names with ``auc``, ``gauc``, ``logloss``, ``ne``, ``brier``, ``mae`` or ``pcoc`` (by the distance of log
        PCOC from 0: nearer is better); ``@exposure``, ``@click``, ``@random``, and ``@world`` with truth.
    baseline
        Compare all others with this one; None: all pairs.
    level
        Nominal coverage of each interval; 1 - level is the chance of any wrong verdict in a metric's table.
    population
        The schema's: in a log of clicks (``click``) the metrics of exposures are undefined.

    Raises
    ------
    ConfigError
        For fewer than two systems, a system without scores, an unknown baseline, names that are unknown or cannot be
        compared; all at once.
    DataError
        When scores have another number of rows than the labels.
    """
    names = _checked(systems, metrics, baseline, level)
    _check_lengths(systems, len(labels))
    every = [scores for seeds in systems.values() for scores in seeds]
    samples = samples_of(every, labels, truth, population)
    found = {key: [readings(scores, samples, names) for scores in seeds] for key, seeds in systems.items()}
    return compare_readings(found, metrics=metrics, baseline=baseline, level=level)


def compare_readings(
    systems: Mapping[str, Sequence[Mapping[str, Reading]]],
    *,
    metrics: Sequence[str] = DEFAULT_COMPARED,
    baseline: str | None = None,
    level: float = 0.95,
) -> Comparison:
    """Return what `compare` does, from readings that were taken of each scoring before (`readings`).

    Parameters
    ----------
    systems
        Name -> the readings of one scoring a training seed, all of the same rows.
    metrics, baseline, level
        As `compare` takes them.

    Raises
    ------
    ConfigError
        As `compare` does.
    """
    names = _checked(systems, metrics, baseline, level)
    standings: dict[str, dict[str, Standing]] = {}
    differences: dict[str, tuple[Difference, ...]] = {}
    for name in names:
        text = str(name)
        sides = {key: _Side.of(key, [seed[text] for seed in seeds]) for key, seeds in systems.items()}
        standings[text] = {key: side.standing(name.metric == "pcoc") for key, side in sides.items()}
        pairs = list(combinations(sides, 2)) if baseline is None else [(s, baseline) for s in sides if s != baseline]
        found = [_difference(name, sides[one], sides[other], level) for one, other in pairs]
        references = [standings[text][other].value for _, other in pairs]
        differences[text] = _judged(name, found, references, level)
    return Comparison(tuple(systems), baseline, level, standings, differences)


def _checked(
    systems: Mapping[str, Sequence[Any]], metrics: Sequence[str], baseline: str | None, level: float
) -> list[MetricName]:
    problems: list[Finding] = []
    names: list[MetricName] = []
    if len(systems) < 2:
        problems.append(Finding("config.comparison", f"{len(systems)} systems", fix="give at least two"))
    empty = [name for name, scores in systems.items() if not len(scores)]
    if empty:
        problems.append(Finding("config.comparison", "systems without scores", ", ".join(empty), len(empty)))
    if baseline is not None and baseline not in systems:
        near = nearest(baseline, systems)
        fix = f"did you mean {near!r}?" if near else f"known: {', '.join(systems)}"
        problems.append(Finding("config.comparison", f"the baseline {baseline!r} is not among the systems", fix=fix))
    if not 0.0 < level < 1.0:
        problems.append(Finding("config.comparison", f"level must lie between 0 and 1, got {level}"))
    for text in metrics:
        try:
            name = MetricName.parse(text)
        except ConfigError as error:
            problems += error.findings
            continue
        names.append(name)
        if name.metric not in COMPARED:
            problems.append(replace(unknown_name(name.metric, COMPARED, text), what=f"{name.metric} is not compared"))
        if name.slice:
            fix = "compare the scores and labels of its rows"
            problems.append(Finding("config.metric_name", "slices are not compared", text, fix=fix))
    if problems:
        raise ConfigError(*problems)
    return list(dict.fromkeys(names))


def _check_lengths(systems: Mapping[str, Sequence[Scores]], rows: int) -> None:
    problems = [
        Finding("eval.length", f"{len(odds)} rows where the labels have {rows}", f"systems.{name}[{seed}].{head}")
        for name, seeds in systems.items()
        for seed, scores in enumerate(seeds)
        for head, odds in scores.odds.items()
        if len(odds) != rows
    ]
    if problems:
        raise DataError(*problems)


@dataclass(frozen=True)
class _Found:
    """A difference and the contrast behind it, before the table is judged."""

    difference: Difference
    contrast: Contrast | Distance | None


def _difference(name: MetricName, one: _Side, other: _Side, level: float) -> _Found:
    reason = one.undefined or other.undefined
    seeds = len(one.seeds), len(other.seeds)
    plain = Difference(str(name), one.name, other.name, level=level, seeds=seeds, n=one.n, positives=one.positives)
    if reason is not None:
        return _Found(replace(plain, undefined=reason), None)
    found: Contrast | Distance = contrast(one.seeds, other.seeds)
    if name.metric == "pcoc":
        found = Distance(contrast(one.seeds, other.seeds), contrast(one.seeds, other.seeds, sign=1.0))
    if math.isnan(found.p):
        who = "users" if one.clustered else "rows"
        return _Found(replace(plain, value=found.value, undefined=f"fewer than two {who} of a class"), None)
    low, high = found.interval(level)
    base = found.limiting
    difference = replace(
        plain,
        value=found.value,
        low=low,
        high=high,
        p=found.p,
        seed_variance=base.seed_variance,
        test_variance=base.test_variance,
        df=base.df if math.isfinite(base.df) else None,
        method=_method(name, plain.seeds, clustered=one.clustered),
    )
    return _Found(difference, found)


def _method(name: MetricName, seeds: tuple[int, int], *, clustered: bool) -> str:
    kind = {"auc": "DeLong", "pcoc": "|log PCOC|"}.get(name.metric, "linearised")
    who = "clustered by user" if clustered else "independent rows"
    if max(seeds) == 1:
        over = "one seed: these trained models, not the systems"
    elif seeds[0] == seeds[1]:
        over = f"{seeds[0]} seeds, paired"
    else:
        over = f"{seeds[0]} and {seeds[1]} seeds" + (", seed variance of one side unknown" if min(seeds) == 1 else "")
    return f"paired {kind}, {who}, {over}, t by Satterthwaite"


def _judged(
    name: MetricName, found: Sequence[_Found], references: Sequence[float | None], level: float
) -> tuple[Difference, ...]:
    """Adjust the p-values over the table and put each verdict in words."""
    raw = [math.nan if entry.difference.p is None else entry.difference.p for entry in found]
    result = []
    for entry, reference, p, adjusted in zip(found, references, raw, holm(raw), strict=True):
        difference = replace(entry.difference, reference=reference)
        if entry.contrast is not None and difference.value is not None:
            significant = bool(adjusted < 1.0 - level)
            # Holm asks of this pair what a test alone at (1 - level) p / adjusted would
            alpha = (1.0 - level) * (p / adjusted if adjusted > 0.0 else 1.0)
            difference = replace(
                difference,
                p_holm=min(1.0, float(adjusted)),
                verdict=_verdict(name, difference.value) if significant else "cannot tell",
                needed="" if significant else _needed(name, difference, entry.contrast.limiting, alpha),
            )
        result.append(difference)
    return tuple(result)


def _verdict(name: MetricName, value: float) -> Verdict:
    return "better" if (value > 0.0) == (name.metric in HIGHER_IS_BETTER) else "worse"


def _needed(name: MetricName, difference: Difference, found: Contrast, alpha: float) -> str:
    more = needed(found, alpha)
    if more is None:
        return ""
    soft = name.population == "world"
    rows = more.rows * (difference.n if soft else difference.positives)
    noun = "exposures" if soft else _NOUN.get(name.head, "conversions")
    parts = [f"about {_rounded(rows)} more {noun}"] if more.rows > 0.0 else []
    if more.seeds > 0.0:
        parts.append(f"about {_rounded(more.seeds * max(difference.seeds))} more seeds")
    return " and ".join(parts)


def _rounded(count: float) -> str:
    """Return a count to two figures, rounded up, at least 1."""
    if count >= 1e12:
        return "a trillion"
    scale = 10 ** max(0, len(str(int(count))) - 2)
    return str(max(1, math.ceil(count / scale) * scale))
