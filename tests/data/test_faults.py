"""Row faults: one reason a row, the first in TRUST's order."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from postclick.data.faults import REASONS, RowFaults, feature_faults, findings, merge_examples
from postclick.schema import DenseFeature, EmbeddingFeature, Schema, SequenceFeature


def test_the_earlier_code_wins_in_any_order_of_marking():
    faults = RowFaults(3)
    faults.mark("data.non_finite", np.array([True, True, False]), "x")
    faults.mark("data.label_domain", np.array([True, False, False]), "click", pa.array([2, 0, 1]))
    faults.mark("data.time_order", np.array([True, True, False]), "time")
    assert faults.counts() == {"data.label_domain": 1, "data.non_finite": 1}
    assert faults.faulty.tolist() == [True, True, False]
    assert faults.names(np.array([0, 1])) == ["data.label_domain", "data.non_finite"]
    assert faults.located("file", 100)["data.label_domain"] == (("file:100:click", "2"),)


def test_reasons_stand_in_trusts_order():
    codes = ["label_missing", "label_domain", "conversion_without_click", "non_finite", "duplicate_key", "time_order"]
    assert list(REASONS) == [f"data.{code}" for code in codes]


def test_findings_have_place_count_examples_and_fix():
    examples = merge_examples(
        {"data.label_domain": (("a:1:click", "2"),)}, {"data.label_domain": (("b:2:click", "5"),)}
    )
    (finding,) = findings({"data.label_domain": 9, "data.non_finite": 0}, examples)
    assert (finding.where, finding.count, finding.examples) == ("a:1:click", 9, ("2", "5"))
    assert finding.fix


def test_numbers_that_are_not_finite():
    schema = Schema(
        (
            DenseFeature("mean"),
            DenseFeature("strict", missing="reject"),
            EmbeddingFeature("v", 2),
            SequenceFeature("s", weights="w"),
        )
    )
    batch = pa.RecordBatch.from_pydict(
        {
            "mean": [None, np.nan, np.inf, 1.0, 1e39, 1.0, 1.0],
            "strict": [1.0, 1.0, 1.0, None, 1.0, 1.0, 1.0],
            "v": [[1.0, 1.0]] * 5 + [[1.0, np.nan], None],
            "s": [[1]] * 7,
            "w": [[np.inf]] + [[1.0]] * 6,
        }
    )
    faults = RowFaults(7)
    feature_faults(batch, schema, faults)
    assert faults.faulty.tolist() == [True, False, True, True, True, True, False]
