"""Names of metrics: ``HEAD/METRIC[variant]@POPULATION|slice`` (``ctcvr/recall[top=0.01]@exposure|campaign=7``)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from postclick.data.scores import HEADS
from postclick.errors import ConfigError, Finding, nearest
from postclick.metrics import DEBIASED, ESTIMATORS

__all__ = ["METRICS", "POPULATIONS", "MetricName", "format_metric", "parse_metric", "unknown_name"]

POPULATIONS = ("exposure", "click", "world", "random")
METRICS = (
    *("auc", "gauc", "pr_auc", "logloss", "ne", "brier", "pcoc", "ece", "mae", "ks", "recall", "f1", "lift", "mean"),
    *("ndcg", "field_rce", "value"),
)
"""Every metric this part computes; a threshold or a variant stands in brackets behind it."""
_TOP = ("recall", "f1", "lift", "value")
_FIRST = ("ndcg", "recall")
_FIRST_VARIANT = re.compile(r"k=0*(?P<k>[1-9]\d{0,8})(,empty=(?P<empty>skip|zero|one))?")
_RAW = ("auc", "pcoc")
_ESTIMATORS = tuple(f"estimator={estimator}" for estimator in ESTIMATORS)
_DEBIASED_PLACE = ("cvr", "exposure", "")
"""Where debiased estimates are known: head, population, slice."""
_PATTERN = re.compile(
    r"(?P<head>[a-z]+)/(?P<metric>[a-z_0-9]+)(\[(?P<variant>[^\]]+)\])?@(?P<population>[a-z]+)(\|(?P<slice>.+))?",
    re.DOTALL,
)


@dataclass(frozen=True)
class MetricName:
    """One name, taken apart.

    Parameters
    ----------
    head
        ``ctr``, ``cvr``, ``ctcvr``, ``action`` or ``ctar``.
    metric
        ``auc``, ``recall``, ...
    population
        ``exposure``, ``click``, ``world`` or ``random``.
    variant
        What stands in brackets (``top=0.01``, ``k=5``, ``score=raw``), or "".
    slice
        What stands behind the bar (``column=value``, ``cold-item``), or "".
    """

    head: str
    metric: str
    population: str
    variant: str = ""
    slice: str = ""

    def __str__(self) -> str:
        variant = f"[{self.variant}]" if self.variant else ""
        return f"{self.head}/{self.metric}{variant}@{self.population}" + (f"|{self.slice}" if self.slice else "")

    @classmethod
    def parse(cls, text: str) -> MetricName:
        """Take a name apart.

        Raises
        ------
        ConfigError
            Naming each part that is unknown, with the nearest spelling.
        """
        match = _PATTERN.fullmatch(text)
        if match is None:
            fix = "write HEAD/METRIC@POPULATION, for instance cvr/auc@click"
            raise ConfigError(Finding("config.metric_name", "not the name of a metric", text, fix=fix))
        head, population = match["head"], match["population"]
        problems = [
            unknown_name(word, known, text)
            for word, known in ((head, HEADS), (population, POPULATIONS))
            if word not in known
        ]
        metric, variant, more = _metric(match["metric"], match["variant"] or "", text)
        place = (head, population, match["slice"] or "")
        if variant in _ESTIMATORS and place != _DEBIASED_PLACE and not problems and not more:
            fix = f"write cvr/{format_metric(metric, variant)}@exposure"
            problems = [Finding("config.metric_name", "estimates are of the cvr on all exposures", text, fix=fix)]
        if problems or more:
            raise ConfigError(*problems, *more)
        return cls(head, metric, population, variant, match["slice"] or "")


def unknown_name(word: str, known: Iterable[str], where: str) -> Finding:
    """Return the finding for an unknown word, with the likely spelling."""
    options = list(known)
    near = nearest(word, options)
    fix = f"did you mean {near!r}?" if near else f"known: {', '.join(options)}"
    return Finding("config.metric_name", f"there is no {word!r}", where, fix=fix)


def _metric(metric: str, variant: str, where: str) -> tuple[str, str, list[Finding]]:
    if metric not in METRICS:
        return metric, variant, [unknown_name(metric, METRICS, where)]
    if metric in _FIRST and (metric not in _TOP or variant.startswith("k=")):
        return _first(metric, variant, where)
    if metric in _TOP:
        key, _, number = variant.partition("=")
        try:
            share = float(number) if key == "top" else -1.0
        except ValueError:
            share = -1.0
        if not 0.0 < share <= 1.0:
            what = f"{metric} needs a share of rows in (0, 1]"
            return metric, variant, [Finding("config.metric_name", what, where, fix=f"write {metric}[top=0.01]")]
        return metric, f"top={share:g}", []
    if metric == "field_rce":
        if variant.startswith("by=") and len(variant) > len("by="):
            return metric, variant, []
        fix = "write field_rce[by=COLUMN], and name the column to slice by"
        return metric, variant, [Finding("config.metric_name", "field_rce needs a column", where, fix=fix)]
    if variant in _ESTIMATORS and metric in DEBIASED:
        return metric, variant, []
    if variant and not (variant == "score=raw" and metric in _RAW):
        return metric, variant, [Finding("config.metric_name", f"{metric} has no variant {variant!r}", where)]
    return metric, variant, []


def _first(metric: str, variant: str, where: str) -> tuple[str, str, list[Finding]]:
    """Read ``k=5``: the first 5 rows of each user's list; users without a positive are skipped, or count 0 or 1."""
    match = _FIRST_VARIANT.fullmatch(variant)
    if match is None:
        fix = f"write {metric}[k=5], or {metric}[k=5,empty=zero] where users without a positive count 0"
        return metric, variant, [Finding("config.metric_name", f"{metric} needs a number of rows", where, fix=fix)]
    empty = match["empty"]
    return metric, f"k={match['k']}" + (f",empty={empty}" if empty not in (None, "skip") else ""), []


def parse_metric(text: str) -> tuple[str, str]:
    """Take ``metric`` or ``metric[variant]`` apart.

    Raises
    ------
    ConfigError
        With the nearest spelling.
    """
    word, bracket, variant = text.partition("[")
    metric, variant, problems = _metric(word, variant.removesuffix("]") if bracket else "", text)
    if problems:
        raise ConfigError(*problems)
    return metric, variant


def format_metric(metric: str, variant: str = "") -> str:
    """Return ``metric`` or ``metric[variant]``."""
    return f"{metric}[{variant}]" if variant else metric
