"""Evaluation: which rows each metric uses; arrays in, frozen results out."""

from postclick.evaluation.evaluate import DEFAULT_METRICS, SLICE_METRICS, WORLD_METRICS, evaluate, oracle
from postclick.evaluation.names import METRICS, POPULATIONS, MetricName
from postclick.evaluation.result import EvaluationResult, Metric
from postclick.evaluation.rows import EvaluationRows, Sample, group_codes

__all__ = [
    "DEFAULT_METRICS",
    "METRICS",
    "POPULATIONS",
    "SLICE_METRICS",
    "WORLD_METRICS",
    "EvaluationResult",
    "EvaluationRows",
    "Metric",
    "MetricName",
    "Sample",
    "evaluate",
    "group_codes",
    "oracle",
]
