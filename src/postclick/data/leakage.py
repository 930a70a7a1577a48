"""Features that give the outcome away (D15): by their name, or because one alone ranks it almost perfectly."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from postclick.data.columns import column, numbers
from postclick.data.row_sample import RowSample
from postclick.errors import DataError, Finding
from postclick.schema import Schema, SparseFeature

__all__ = ["FeatureAuc", "auc_with_low", "feature_aucs", "leak_findings", "refuse_leaks"]

_LEAKS = frozenset(
    (
        *("label", "target", "click", "clicked", "isclick", "isclicked", "clicklabel", "labelclick", "ctrlabel"),
        *("clicktime", "clickts", "clicktimestamp", "postclick", "dwelltime"),
        *("conversion", "converted", "isconversion", "isconverted", "conversionlabel", "labelconversion"),
        *(
            "conversiontime",
            "conversionts",
            "conversiontimestamp",
            "conversionvalue",
            "cvrlabel",
            "ctcvr",
            "ctcvrlabel",
        ),
        *("buy", "bought", "isbuy", "buytime", "pay", "paid", "ispay", "ispaid", "paytime", "ordertime", "ordervalue"),
        *("purchase", "purchased", "ispurchase", "purchasetime", "addtocart", "isaddtocart", "iscart", "carted"),
    )
)
"""Names, letters and digits alone, that say what happened after the exposure."""
_AT_LEAST = 50
_SUSPICIOUS = 0.99
_NORMAL = 1.96
_FOLDS = 5
_BINS = 256


@dataclass(frozen=True)
class FeatureAuc:
    """How well one feature alone ranks one outcome.

    Parameters
    ----------
    auc, low
        Area under the ROC curve, out of fold, and the lower end of its 95 % interval (DeLong, rows independent).
    rows, positives
        What it was judged on.
    """

    auc: float
    low: float
    rows: int
    positives: int

    @property
    def suspicious(self) -> bool:
        """Whether nothing known before the outcome does this."""
        return self.low > _SUSPICIOUS


def _plain(name: str) -> str:
    return "".join(char for char in name.casefold() if char.isalnum())


def refuse_leaks(schema: Schema) -> None:
    """Refuse features that are an outcome by their name.

    Raises
    ------
    DataError
        ``data.leakage``, all of them together.
    """
    outcomes = {_plain(name) for role, name in schema.columns.named().items() if role in ("click", "conversion")}
    leaks = [feature.name for feature in schema.features if _plain(feature.name) in _LEAKS | outcomes]
    if leaks:
        fix = "drop them from the features, or rename what only sounds like an outcome"
        raise DataError(
            *(Finding("data.leakage", "a feature that is an outcome by its name", name, fix=fix) for name in leaks)
        )


def auc_with_low(scores: NDArray[np.float64], positive: NDArray[np.bool_]) -> tuple[float, float]:
    """Return AUC and the lower end of its 95 % interval (DeLong, DeLong and Clarke-Pearson 1988), ties counted half.

    Parameters
    ----------
    scores
        float64 [B].
    positive
        bool [B], both classes present.
    """
    values, code = np.unique(scores, return_inverse=True)
    ones = np.bincount(code[positive], minlength=len(values)).astype(np.float64)
    zeros = np.bincount(code[~positive], minlength=len(values)).astype(np.float64)
    n1, n0 = ones.sum(), zeros.sum()
    # share of negatives below each value, and of positives above it, ties half
    below = (np.cumsum(zeros) - zeros / 2) / n0
    above = 1.0 - (np.cumsum(ones) - ones / 2) / n1
    auc = float((ones * below).sum() / n1)
    variance = (ones * (below - auc) ** 2).sum() / n1**2 + (zeros * (above - auc) ** 2).sum() / n0**2
    return auc, auc - _NORMAL * float(np.sqrt(variance))


def feature_aucs(sample: RowSample, schema: Schema) -> dict[str, dict[str, FeatureAuc]]:
    """Return feature -> outcome -> how well it ranks it, on the sampled training rows.

    A value stands for the rate of the outcome among the other folds' rows that have it (five folds by hash; a value
    that occurs nowhere else stands for the overall rate), so an id that occurs once proves nothing. A number also
    stands for itself, in either direction, missing ones lowest. Outcomes with fewer than 50 positives or negatives are
    left out.

    Parameters
    ----------
    sample
        Of all splits.
    schema
        Names the features; ``population = "click"`` has no click outcome.
    """
    found: dict[str, dict[str, FeatureAuc]] = {}
    for outcome, rows, positive in _outcomes(sample, schema):
        folds = RowSample.folds(rows, _FOLDS)
        for feature in schema.features:
            array = column(rows, feature.name)
            if pa.types.is_null(array.type):
                continue
            scores = [_rates(_codes(array, feature), positive, folds)]
            if not isinstance(feature, SparseFeature):
                ranks = np.nan_to_num(numbers(array, feature.name), nan=-np.inf)
                scores += [ranks, -ranks]
            auc, low = max(auc_with_low(score, positive) for score in scores)
            entry = FeatureAuc(auc, low, len(positive), int(positive.sum()))
            found.setdefault(feature.name, {})[outcome] = entry
    return found


def _outcomes(sample: RowSample, schema: Schema) -> Iterator[tuple[str, pa.Table, NDArray[np.bool_]]]:
    """Yield (outcome, rows, which are positive) of those with enough of both."""
    pairs = [("conversion", (1, 2))] if schema.population == "click" else [("click", (0, 1, 2)), ("conversion", (1, 2))]
    for name, outcomes in pairs:
        # a rate that differs between positives and negatives changes no AUC, so each class is as large as it may be
        low, high = (outcomes[:1], outcomes[1:]) if name == "click" else (outcomes[:1], outcomes[-1:])
        negatives, positives = sample.of(0, low), sample.of(0, high)
        if min(len(negatives), len(positives)) >= _AT_LEAST:
            rows = pa.concat_tables([negatives, positives]).combine_chunks()
            yield name, rows, np.arange(len(rows)) >= len(negatives)


def _codes(array: pa.Array, feature: Any) -> NDArray[np.int64]:
    """Return a number a distinct value; numbers of many values go to bins of equal mass. Missing is a value."""
    if isinstance(feature, SparseFeature):
        coded = array.dictionary_encode()
        return np.asarray(coded.indices.fill_null(len(coded.dictionary)), np.int64)
    values = numbers(array, feature.name)
    distinct, codes = np.unique(values, return_inverse=True)  # NaN sorts last and is one value
    if len(distinct) > _BINS:
        known = values[~np.isnan(values)]
        edges = np.unique(np.quantile(known, np.linspace(0, 1, _BINS)[1:-1]))
        codes = np.where(np.isnan(values), len(edges) + 1, np.searchsorted(edges, values))
    return codes.astype(np.int64)


def _rates(codes: NDArray[np.int64], positive: NDArray[np.bool_], folds: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the smoothed rate of positives among the other folds' rows of the same value."""
    prior = positive.mean()
    cell = codes * _FOLDS + folds
    size = (int(codes.max()) + 1) * _FOLDS
    rows = np.bincount(cell, minlength=size).reshape(-1, _FOLDS)
    hits = np.bincount(cell, positive, minlength=size).reshape(-1, _FOLDS)
    other_rows = rows.sum(axis=1, keepdims=True) - rows
    other_hits = hits.sum(axis=1, keepdims=True) - hits
    rates = (other_hits + prior) / (other_rows + 1.0)
    result: NDArray[np.float64] = rates.ravel()[cell]
    return result


def leak_findings(aucs: Mapping[str, Mapping[str, FeatureAuc]]) -> list[Finding]:
    """Return the features that rank an outcome almost perfectly, as ``data.leakage``."""
    found = []
    for name, outcomes in aucs.items():
        for outcome, entry in outcomes.items():
            if entry.suspicious:
                what = f"a feature that alone ranks the {outcome} with AUC {entry.auc:.4f} (at least {entry.low:.4f})"
                shown = f"{entry.positives:,} {outcome}s on {entry.rows:,} sampled rows"
                fix = "it tells what happened afterwards: drop it from the features"
                found.append(Finding("data.leakage", what, name, examples=(shown,), fix=fix))
    return found
