"""Row faults: one reason a row, the first in TRUST's order."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from postclick.data.faults import REASONS, RowFaults, feature_faults, findings, merge_examples, placed
from postclick.errors import DataError, Finding
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


def test_what_is_raised_over_a_batch_gets_its_file_and_row():
    for where, wanted in (
        ("row 3:price", "a.csv:13:price"),
        ("price", "a.csv:price"),
        ("", "a.csv"),
        ("a.csv:7", "a.csv:7"),
    ):
        with pytest.raises(DataError) as caught, placed("a.csv", 10):
            raise DataError(Finding("data.text", "what", where))
        assert caught.value.findings[0].where == wanted


def test_details_stand_with_their_reason():
    (finding,) = findings({"data.duplicate_key": 3}, {}, {"data.duplicate_key": "2 equal, 1 other"})
    assert finding.what.endswith("(2 equal, 1 other)")


def test_weights_of_a_sequence_are_as_many_as_its_values():
    schema = Schema((SequenceFeature("s", weights="w"),))
    batch = pa.RecordBatch.from_pydict({"s": [[1], [1, 2]], "w": [[1.0], [1.0]]})
    with pytest.raises(DataError, match=r"data\.multivalue .*\| row 1:w \|.*2 values with 1 weights"):
        feature_faults(batch, schema, RowFaults(2))
