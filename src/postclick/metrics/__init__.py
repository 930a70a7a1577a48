"""Metrics: pure functions, arrays in, numbers out. Weights and soft labels everywhere; undefined is an outcome."""

from postclick.metrics.bootstrap import Statistic, bootstrap_t, fold_units, ratio
from postclick.metrics.causal import DEBIASED, ESTIMATORS, WEIGHTED, debiased
from postclick.metrics.curve import Curve, curve_of
from postclick.metrics.delong import Components, auc_interval, components
from postclick.metrics.estimate import Estimate
from postclick.metrics.influence import COMPARED, Influence, influence
from postclick.metrics.overlap import Overlap, overlap
from postclick.metrics.probability import brier, logloss, mae, mean, ne, pcoc
from postclick.metrics.ranking import auc, gauc, pr_auc, user_ranking
from postclick.metrics.reliability import Reliability, ece, reliability_table
from postclick.metrics.significance import Contrast, Distance, contrast, holm, letters, satterthwaite
from postclick.metrics.slices import Shrunken, SliceSums, field_rce, shrunken, slice_sums
from postclick.metrics.thresholds import f1, ks, lift, recall
from postclick.metrics.top_k import ndcg, recall_at

__all__ = [
    "COMPARED",
    "DEBIASED",
    "ESTIMATORS",
    "WEIGHTED",
    "Components",
    "Contrast",
    "Curve",
    "Distance",
    "Estimate",
    "Influence",
    "Overlap",
    "Reliability",
    "Shrunken",
    "SliceSums",
    "Statistic",
    "auc",
    "auc_interval",
    "bootstrap_t",
    "brier",
    "components",
    "contrast",
    "curve_of",
    "debiased",
    "ece",
    "f1",
    "field_rce",
    "fold_units",
    "gauc",
    "holm",
    "influence",
    "ks",
    "letters",
    "lift",
    "logloss",
    "mae",
    "mean",
    "ndcg",
    "ne",
    "overlap",
    "pcoc",
    "pr_auc",
    "ratio",
    "recall",
    "recall_at",
    "reliability_table",
    "satterthwaite",
    "shrunken",
    "slice_sums",
    "user_ranking",
]
