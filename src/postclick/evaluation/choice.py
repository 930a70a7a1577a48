"""Which way a metric points, where settings are chosen by it."""

from __future__ import annotations

import math

from postclick.evaluation.names import MetricName
from postclick.metrics.influence import HIGHER_IS_BETTER

__all__ = ["higher_is_better", "merit"]

_RANKED_UP = (*HIGHER_IS_BETTER, "pr_auc", "ks", "recall", "f1", "lift", "ndcg", "value")


def higher_is_better(name: str) -> bool:
    """Return whether a larger value of the metric called `name` is the better one."""
    return MetricName.parse(name).metric in _RANKED_UP


def merit(name: str, value: float | None) -> float:
    """Return what a choice by the metric called `name` minimises: -x, |ln x| for ``pcoc``, else x.

    Infinity where there is no value, or a ratio that has no logarithm.
    """
    if value is None:
        return math.inf
    if MetricName.parse(name).metric == "pcoc":
        return abs(math.log(value)) if value > 0.0 else math.inf
    return -value if higher_is_better(name) else value
