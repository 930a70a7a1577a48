"""Weights of a down-sampled log: a kept row stands for the 1 / (keep rate) rows like it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from postclick.data.arrays import Labels
from postclick.schema import KeepRates

__all__ = ["weighed"]


def weighed(labels: Labels, keep: KeepRates) -> Labels:
    """Return the labels with each sample weight over the row's keep rate.

    1 / s0 without click, 1 / s1 after a click without conversion (or with one that is not known yet: whether it was
    converted was asked when the sample was drawn), 1 for conversions and for view-through ones, which were kept whole.
    Sums over the rows then estimate sums over the log before the draw, and 1 / |D| is one over the sum of weights.

    Parameters
    ----------
    labels
        As logged.
    keep
        The rates; whole ones change nothing.
    """
    if keep.whole:
        return labels
    weight = np.where(labels.click == 1, 1.0 / keep.clicked, 1.0 / keep.unclicked)
    converted = labels.conversion == 1
    if labels.view_through is not None:
        converted = converted | (labels.view_through == 1)
    weight[converted] = 1.0
    return replace(labels, sample_weight=weight if labels.sample_weight is None else labels.sample_weight * weight)
