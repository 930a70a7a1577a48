"""Metrics at a threshold: KS, and recall, F1 and lift of the rows with the highest scores."""

from __future__ import annotations

import numpy as np

from postclick.metrics.curve import Curve, Floats, Label, curve_of
from postclick.metrics.estimate import Estimate

__all__ = ["curve_f1", "curve_ks", "curve_lift", "curve_recall", "f1", "ks", "lift", "recall"]


def curve_ks(ranked: Curve) -> Estimate:
    """Return KS of rows that are already sorted; see `ks`."""
    reason = ranked.missing(both=True)
    if reason:
        return Estimate.none(reason)
    hits = np.cumsum(ranked.positive) / ranked.positives
    alarms = np.cumsum(ranked.negative) / ranked.negatives
    return Estimate.of(min(max(float(np.max(hits - alarms)), 0.0), 1.0))


def ks(odds: Floats, label: Label, weight: Floats | None = None) -> Estimate:
    """Return max over thresholds of (true-positive rate - false-positive rate), in [0, 1].

    Parameters as in `ranking.auc`; undefined without positives or negatives. Source: Kolmogorov (1933), Smirnov (1948).
    """
    return curve_ks(curve_of(odds, label, weight))


def _hits(ranked: Curve, top: float) -> float:
    """Return the positive mass among the `top` share of all mass; a tie group that is cut gives its share."""
    hits = np.concatenate([[0.0], np.cumsum(ranked.positive)])
    taken = hits + np.concatenate([[0.0], np.cumsum(ranked.negative)])
    return float(np.interp(top * taken[-1], taken, hits))


def curve_recall(ranked: Curve, top: float) -> Estimate:
    """Return recall[top] of rows that are already sorted; see `recall`."""
    reason = ranked.missing(both=False)
    return Estimate.none(reason) if reason else Estimate.of(_hits(ranked, top) / ranked.positives)


def recall(odds: Floats, label: Label, top: float, weight: Floats | None = None) -> Estimate:
    """Return the share of positives among the `top` share (0 to 1) of rows with the highest scores.

    A group of tied rows that is cut counts in expectation over a random order of its rows. Undefined without positives.
    """
    return curve_recall(curve_of(odds, label, weight), top)


def curve_f1(ranked: Curve, top: float) -> Estimate:
    """Return F1[top] of rows that are already sorted; see `f1`."""
    reason = ranked.missing(both=False)
    if reason:
        return Estimate.none(reason)
    taken = top * (ranked.positives + ranked.negatives)
    return Estimate.of(2.0 * _hits(ranked, top) / (taken + ranked.positives))


def f1(odds: Floats, label: Label, top: float, weight: Floats | None = None) -> Estimate:
    """Return 2 hits / (rows taken + positives) when the `top` share of rows is called positive; ties as in `recall`."""
    return curve_f1(curve_of(odds, label, weight), top)


def curve_lift(ranked: Curve, top: float) -> Estimate:
    """Return lift[top] of rows that are already sorted; see `lift`."""
    reason = ranked.missing(both=False)
    return Estimate.none(reason) if reason else Estimate.of(_hits(ranked, top) / (top * ranked.positives))


def lift(odds: Floats, label: Label, top: float, weight: Floats | None = None) -> Estimate:
    """Return the positive rate of the `top` share of rows over the positive rate of all; at most 1 / top."""
    return curve_lift(curve_of(odds, label, weight), top)
