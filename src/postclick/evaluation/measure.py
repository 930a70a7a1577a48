"""All metrics of one sample of rows, with their intervals; rows are gone through once a family of metrics."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from postclick.evaluation.names import format_metric, parse_metric
from postclick.evaluation.result import Metric
from postclick.evaluation.rows import Sample
from postclick.metrics import Curve, Estimate, auc_interval, bootstrap_t, curve_of, ece, fold_units, ratio
from postclick.metrics.bootstrap import MOST_UNITS, REPLICATES, Statistic
from postclick.metrics.curve_bootstrap import curve_bootstrap
from postclick.metrics.delong import curve_auc_interval
from postclick.metrics.estimate import Link
from postclick.metrics.probability import STATISTICS, columns, from_sums
from postclick.metrics.ranking import UserRanking, curve_pr_auc, user_ranking
from postclick.metrics.thresholds import curve_f1, curve_ks, curve_lift, curve_recall
from postclick.metrics.top_k import EmptyUser, UserMeans, user_ndcg, user_recall

__all__ = ["measure"]

CurveFunction = Callable[[Curve], Estimate]
_GAUC = ratio("user_wins", "user_mass", "logit")


def measure(
    sample: Sample, wanted: Sequence[str], *, level: float, seed: int
) -> tuple[dict[str, Metric], dict[str, int]]:
    """Return the wanted metrics of one sample by ``metric[variant]``, and what was counted on the way.

    Parameters
    ----------
    sample
        The rows.
    wanted
        ``metric`` or ``metric[variant]``; `score=raw` where the sample has raw scores.
    level
        Nominal coverage of the intervals.
    seed
        Of the bootstrap and of ECE's null band.
    """
    reason = sample.undefined or _unusable(sample)
    counts: dict[str, int] = {}
    if reason is None:
        found = _ranked(sample, wanted, level, seed)
        found |= _additive(sample, wanted, level, seed, counts)
        found |= _top_k(sample, wanted, level, seed)
        if "ece" in wanted:
            found["ece"] = ece(sample.odds, sample.label, sample.weight, level=level, seed=seed)
        found |= _raw(sample, wanted, level, seed)
    else:
        found = {name: Estimate.none(reason) for name in wanted}
    rows, positives = len(sample), sample.positives
    metrics = {name: Metric.of(estimate, rows, positives, derived=sample.derived) for name, estimate in found.items()}
    return {name: metrics[name] for name in wanted if name in metrics}, counts


def _unusable(sample: Sample) -> str | None:
    if not len(sample) or (sample.weight is not None and not float(sample.weight.sum()) > 0.0):
        return "no rows"
    return "scores are not numbers" if bool(np.isnan(np.min(sample.odds))) else None


def _curve_metrics(wanted: Sequence[str]) -> dict[str, tuple[CurveFunction, Link]]:
    table: dict[str, tuple[Callable[..., Estimate], Link]] = {
        "recall": (curve_recall, "logit"),
        "f1": (curve_f1, "logit"),
        "lift": (curve_lift, "log"),
    }
    found: dict[str, tuple[CurveFunction, Link]] = {}
    for name in wanted:
        metric, variant = parse_metric(name)
        if metric == "pr_auc":
            found[name] = (curve_pr_auc, "logit")
        elif metric == "ks":
            found[name] = (curve_ks, "logit")
        elif metric in table and variant.startswith("top="):
            function, link = table[metric]
            found[name] = (_at(function, float(variant.removeprefix("top="))), link)
    return found


def _at(function: Callable[..., Estimate], top: float) -> CurveFunction:
    return lambda ranked: function(ranked, top)


def _ranked(sample: Sample, wanted: Sequence[str], level: float, seed: int) -> dict[str, Estimate]:
    """AUC, and the metrics of the sorted rows."""
    metrics = _curve_metrics(wanted)
    found: dict[str, Estimate] = {}
    if not metrics and "auc" not in wanted:
        return found
    plain = sample.weight is None and sample.user is None and sample.label.dtype.kind in "iub"
    ranked = curve_of(sample.odds, sample.label, sample.weight) if metrics or plain else None
    if "auc" in wanted:
        if plain and ranked is not None:
            found["auc"] = curve_auc_interval(ranked, level)
        else:
            found["auc"] = auc_interval(sample.odds, sample.label, sample.weight, sample.user, level)
    if ranked is None or not metrics:
        return found
    values = {name: function(ranked) for name, (function, _) in metrics.items()}
    if all(estimate.value is None for estimate in values.values()):
        return found | values
    attach = curve_bootstrap(sample.odds, sample.label, sample.weight, sample.user, metrics, level=level, seed=seed)
    return found | {name: attach[name](estimate) for name, estimate in values.items()}


def _additive(
    sample: Sample, wanted: Sequence[str], level: float, seed: int, counts: dict[str, int]
) -> dict[str, Estimate]:
    """Metrics that are functions of sums over rows, and GAUC, by one user bootstrap."""
    statistics: dict[str, Statistic] = {name: STATISTICS[name] for name in wanted if name in STATISTICS}
    users = _users(sample) if "gauc" in wanted else None
    if not statistics and "gauc" not in wanted:
        return {}
    unit, units = fold_units(sample.user, len(sample), MOST_UNITS)
    needed = {"weight", "label"}.union(*(statistic.columns for statistic in statistics.values()))
    sums: dict[str, NDArray[np.float64]] = {
        name: np.asarray(np.bincount(unit, column, units), np.float64)
        for name, column in columns(sample.odds, sample.label, sample.weight)
        if name in needed
    }
    totals = {name: float(column.sum()) for name, column in sums.items()}
    found = {name: from_sums(name, totals) for name in statistics}
    if "gauc" in wanted:
        found["gauc"] = Estimate.none("no user id") if users is None else users.estimate
    if users is not None and sample.user is not None:
        counts |= {"users": users.users, "skipped": users.skipped}
        sums |= _folded(users, sample.user, unit, units)
        statistics["gauc"] = _GAUC
    defined = {name: statistic for name, statistic in statistics.items() if found[name].value is not None}
    ends = bootstrap_t(sums, defined, level=level, seed=seed)
    method = _method("row" if sample.user is None else "user", units)
    for name, (low, high) in ends.items():
        found[name] = found[name].within(low, high, level, f"{method}, {defined[name].link} scale")
    return found


def _method(who: str, units: int) -> str:
    return f"{who} bootstrap-t, {REPLICATES} replicates, {units} {'groups' if units == MOST_UNITS else who + 's'}"


def _first(metric: str, variant: str) -> tuple[int, EmptyUser] | None:
    """Return K, and what a user without a positive counts, of ``ndcg[k=5]`` and ``recall[k=5]``; None of others."""
    if metric not in ("ndcg", "recall") or not variant.startswith("k="):
        return None
    number, _, empty = variant.removeprefix("k=").partition(",empty=")
    return int(number), "zero" if empty == "zero" else "one" if empty == "one" else "skip"


def _top_k(sample: Sample, wanted: Sequence[str], level: float, seed: int) -> dict[str, Estimate]:
    """Metrics of the first K rows of each user, by a bootstrap of the users' means."""
    asked = {name: first for name in wanted if (first := _first(*parse_metric(name))) is not None}
    if not asked or sample.user is None:
        return {name: Estimate.none("no user id") for name in asked}
    unit, units = fold_units(sample.user, len(sample), MOST_UNITS)
    means: dict[str, UserMeans] = {}
    sums: dict[str, NDArray[np.float64]] = {}
    statistics: dict[str, Statistic] = {}
    for name, (k, empty) in asked.items():
        function = user_ndcg if name.startswith("ndcg") else user_recall
        means[name] = found = function(sample.odds, sample.label, sample.user, k, sample.weight, empty=empty)
        sums |= _by_unit({f"{name} sum": found.value, f"{name} users": found.counted}, sample.user, unit, units)
        if found.estimate.value is not None:
            statistics[name] = ratio(f"{name} sum", f"{name} users", "logit")
    ends = bootstrap_t(sums, statistics, level=level, seed=seed)
    estimates = {name: found.estimate for name, found in means.items()}
    for name, (low, high) in ends.items():
        rule = {"skip": "left out", "zero": "count 0", "one": "count 1"}[asked[name][1]]
        method = (
            f"{_method('user', units)}; {means[name].empty} of {means[name].users} users, without a positive, {rule}"
        )
        estimates[name] = estimates[name].within(low, high, level, method)
    return estimates


def _users(sample: Sample) -> UserRanking | None:
    return None if sample.user is None else user_ranking(sample.odds, sample.label, sample.user, sample.weight)


def _folded(
    users: UserRanking, user: NDArray[np.int32], unit: NDArray[np.int64], units: int
) -> Mapping[str, NDArray[np.float64]]:
    """Return the users' sums by bootstrap unit."""
    return _by_unit({"user_wins": users.wins, "user_mass": users.mass}, user, unit, units)


def _by_unit(
    columns: Mapping[str, NDArray[np.float64]], user: NDArray[np.int32], unit: NDArray[np.int64], units: int
) -> dict[str, NDArray[np.float64]]:
    """Return columns of a number a user, [U], summed by bootstrap unit."""
    of_user = np.zeros(int(user.max(initial=-1)) + 1, np.int64)
    of_user[user] = unit
    return {name: np.asarray(np.bincount(of_user, column, units), np.float64) for name, column in columns.items()}


def _raw(sample: Sample, wanted: Sequence[str], level: float, seed: int) -> dict[str, Estimate]:
    """AUC and PCOC of the scores before calibration and undone weights."""
    found: dict[str, Estimate] = {}
    auc, ratio_name = format_metric("auc", "score=raw"), format_metric("pcoc", "score=raw")
    if sample.raw is None or not {auc, ratio_name}.intersection(wanted):
        return found
    if bool(np.isnan(np.min(sample.raw))):
        return {name: Estimate.none("scores are not numbers") for name in (auc, ratio_name)}
    if auc in wanted:
        found[auc] = auc_interval(sample.raw, sample.label, sample.weight, sample.user, level)
    if ratio_name in wanted:
        found[ratio_name] = _additive(replace(sample, odds=sample.raw), ["pcoc"], level, seed, {})["pcoc"]
    return found
