"""Evaluation: which rows each metric uses; arrays in, frozen results out."""

from postclick.evaluation.compare import DEFAULT_COMPARED, compare
from postclick.evaluation.comparison import EQUAL, Comparison, Difference, Margin, Standing
from postclick.evaluation.evaluate import DEFAULT_METRICS, SLICE_METRICS, WORLD_METRICS, evaluate, oracle
from postclick.evaluation.experts import COLLAPSED_BELOW, ExpertUse, expert_use, verdicts
from postclick.evaluation.names import METRICS, POPULATIONS, MetricName
from postclick.evaluation.result import EvaluationResult, Metric
from postclick.evaluation.rows import EvaluationRows, Sample, group_codes

__all__ = [
    "COLLAPSED_BELOW",
    "DEFAULT_COMPARED",
    "DEFAULT_METRICS",
    "EQUAL",
    "METRICS",
    "POPULATIONS",
    "SLICE_METRICS",
    "WORLD_METRICS",
    "Comparison",
    "Difference",
    "EvaluationResult",
    "EvaluationRows",
    "ExpertUse",
    "Margin",
    "Metric",
    "MetricName",
    "Sample",
    "Standing",
    "compare",
    "evaluate",
    "expert_use",
    "group_codes",
    "oracle",
    "verdicts",
]
