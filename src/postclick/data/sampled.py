"""What the audit learns from the sample of rows: features that give the outcome away, drift, weights, collisions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from postclick.data.cardinality import hashed
from postclick.data.clock import TimeSpan, find_span
from postclick.data.columns import column
from postclick.data.drift import Drift, drifts
from postclick.data.leakage import FeatureAuc, feature_aucs, leak_findings
from postclick.data.log import SPLITS
from postclick.data.row_sample import RowSample, RowSampler, WeightTotals
from postclick.errors import DataError
from postclick.schema import Schema, SparseFeature

__all__ = ["SampleFacts", "look_at_sample", "refuse_suspicious", "sample_facts"]


@dataclass(frozen=True)
class SampleFacts:
    """Numbers of the audit that come from a sample.

    Parameters
    ----------
    rows, of
        Sampled training rows, and how many there are.
    aucs
        Feature -> outcome -> how well it alone ranks it.
    drift
        Pair of splits -> feature -> how far they lie apart.
    unseen
        Split -> sparse feature -> share of its values that no training row has; only where all rows were sampled.
    weights
        Split -> sums of the sample weights, where there are any.
    collisions
        Field with hash buckets -> expected share of the sampled values that share their bucket (more in all rows).
    span
        Where the sampled times lie; None without a time.
    """

    rows: int
    of: int
    aucs: Mapping[str, Mapping[str, FeatureAuc]] = field(default_factory=dict)
    drift: Mapping[str, Mapping[str, Drift]] = field(default_factory=dict)
    unseen: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    weights: Mapping[str, WeightTotals] = field(default_factory=dict)
    collisions: Mapping[str, float] = field(default_factory=dict)
    span: TimeSpan | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the plain form for ``audit.json``."""
        return {
            "sample": {"rows": self.rows, "of": self.of, "by": "a hash of the row's place, so many an outcome"},
            "leakage": {
                name: {outcome: asdict(entry) for outcome, entry in outcomes.items()}
                for name, outcomes in self.aucs.items()
            },
            "drift": {
                pair: {name: {**asdict(entry), "rows": list(entry.rows)} for name, entry in fields.items()}
                for pair, fields in self.drift.items()
            },
            "weights": {
                split: {"rows": sums.rows, "total": sums.total, "effective": sums.effective}
                for split, sums in self.weights.items()
            },
            "collisions": dict(self.collisions),
        }


def look_at_sample(sample: RowSample, schema: Schema, *, one_body: bool = False) -> SampleFacts:
    """Judge a sample.

    Parameters
    ----------
    sample
        Of all splits.
    schema
        Names the features.
    one_body
        The rows are not split yet (all count as training rows): drift is judged between the first 80 % by time and the
        last 10 %, which is what a split by time would compare.
    """
    train = sample.of(0)
    pairs: dict[str, tuple[pa.Table, pa.Table]] = {}
    if one_body and "label:time" in train.column_names and len(train):
        times = np.asarray(train.column("label:time"))
        early, late = np.quantile(times, (0.8, 0.9))
        pairs["first 80 % and last 10 % by time"] = (train.filter(pa.array(times < early)), _after(train, times, late))
    elif not one_body:
        pairs = {f"train-{SPLITS[code]}": (train, sample.of(code)) for code in (1, 2) if sample.totals[code].any()}
    distinct = {item.name: len(pc.unique(column(train, item.name))) for item in schema.sparse} if len(train) else {}
    complete = sample.table.num_rows == int(sample.totals.sum())
    return SampleFacts(
        len(train),
        int(sample.totals[0].sum()),
        feature_aucs(sample, schema),
        {name: drifts(*tables, schema) for name, tables in pairs.items()},
        {name: _unseen(*tables, schema) for name, tables in pairs.items()} if complete else {},
        {SPLITS[code]: sums for code, sums in enumerate(sample.weights) if sums.rows},
        hashed(schema, distinct),
        find_span([np.asarray(train.column("label:time"))]) if "label:time" in train.column_names else None,
    )


def sample_facts(folder: Path, pieces: int, schema: Schema) -> SampleFacts:
    """Judge the samples that encoding left.

    Parameters
    ----------
    folder
        Holds ``sample-NNNNN.arrow`` of each piece.
    pieces
        How many there are.
    schema
        Names the features.
    """
    sampler = RowSampler(schema)
    for index in range(pieces):
        sampler.merge(RowSample.load(folder / f"sample-{index:05d}.arrow"))
    return look_at_sample(sampler.result(), schema)


def refuse_suspicious(facts: SampleFacts) -> None:
    """Refuse features that alone rank an outcome almost perfectly (D15).

    Raises
    ------
    DataError
        ``data.leakage``, all of them together.
    """
    if found := leak_findings(facts.aucs):
        raise DataError(*found)


def _after(table: pa.Table, times: NDArray[np.int64], bound: float) -> pa.Table:
    return table.filter(pa.array(times >= bound))


def _unseen(first: pa.Table, second: pa.Table, schema: Schema) -> dict[str, float]:
    found = {}
    for feature in schema.features:
        if isinstance(feature, SparseFeature):
            known, values = column(first, feature.name), column(second, feature.name).drop_null()
            if len(values) and not pa.types.is_null(known.type) and known.type == values.type:
                seen = pc.is_in(values, value_set=pc.unique(known))
                found[feature.name] = 1.0 - float(pc.mean(seen.cast(pa.int8())).as_py())
    return found
