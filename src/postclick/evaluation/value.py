"""What the conversions among the highest-scored exposures were worth: the log replayed under another ranking."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from postclick.data.arrays import Labels
from postclick.evaluation.measure import measure
from postclick.evaluation.names import parse_metric
from postclick.evaluation.result import Metric
from postclick.evaluation.rows import Sample

__all__ = ["DEFAULT_VALUE", "has_values", "value_metrics", "value_total"]

Floats = NDArray[np.float64]
DEFAULT_VALUE = "value[top=0.1]"


def has_values(labels: Labels) -> bool:
    """Return whether the log says what a conversion is worth."""
    return labels.value is not None or labels.bid is not None


def _realised(labels: Labels) -> Floats:
    """Return the value of each row's conversion, 0 without one, [B]; the bid where no value is logged."""
    worth = labels.value if labels.value is not None else labels.bid
    assert worth is not None
    return np.asarray(np.where(labels.conversion == 1, worth, 0.0), np.float64)


def value_total(labels: Labels) -> float | None:
    """Return the weighted value of all conversions; None without values, or where one is not a number of at least 0."""
    if not has_values(labels):
        return None
    realised = _realised(labels)
    if not bool(np.all(realised >= 0.0)):
        return None
    return float(realised.sum() if labels.sample_weight is None else labels.sample_weight @ realised)


def value_metrics(
    sample: Sample, labels: Labels, wanted: Sequence[str], *, level: float, seed: int
) -> Mapping[str, Metric]:
    """Return ``value[top=q]``: the share of all realised value on the q exposures of highest expected value.

    Rows are ranked by expected value ctcvr x bid where bids are logged, by ctcvr where not: `value` is known after a
    conversion alone and ranks nothing. sum_top w v t / sum w v t, in [0, 1]; over q it is the lift, times the ledger's
    ``value`` the value replayed. A tie group that is cut gives its share. Intervals as those of ``recall[top=q]``.

    Parameters
    ----------
    sample
        ctcvr on ``exposure`` or ``random``.
    labels
        Of all rows.
    wanted
        ``value[top=q]``.
    level, seed
        Of the intervals.
    """
    places = slice(None) if sample.places is None else sample.places
    worth, bid = _realised(labels)[places], None if labels.bid is None else labels.bid[places]
    reason = _reason(worth, bid)
    if reason is not None and sample.undefined is None:
        sample = replace(sample, undefined=reason)
    elif sample.undefined is None:
        most = float(worth.max(initial=0.0))
        sample = replace(sample, odds=_expected(sample.odds, bid), label=worth / most if most > 0.0 else worth)
    names = {name: f"recall[{parse_metric(name)[1]}]" for name in wanted}
    found, _ = measure(sample, list(names.values()), level=level, seed=seed)
    positives = int(np.count_nonzero(worth > 0.0))
    by = "ctcvr x bid" if bid is not None else "ctcvr"
    return {
        name: replace(found[recall], positives=positives, method=f"ranked by {by}; {found[recall].method}".rstrip("; "))
        for name, recall in names.items()
    }


def _reason(worth: Floats, bid: Floats | None) -> str | None:
    if not bool(np.all(worth >= 0.0)):  # NaN as well
        return "a conversion's value is missing or below 0"
    if bid is not None and not bool(np.all(bid >= 0.0)):
        return "a bid is missing or below 0"
    return None


def _expected(odds: Floats, bid: Floats | None) -> Floats:
    """Return the logarithm of ctcvr x bid: any monotone scale ranks alike."""
    log_p = -np.logaddexp(0.0, -odds)
    if bid is None:
        return np.asarray(log_p)
    with np.errstate(divide="ignore"):
        return np.asarray(np.maximum(log_p + np.log(bid), -1e300))
