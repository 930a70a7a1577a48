"""Verdicts: each check speaks when it should and is silent when it should."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from postclick.data.audit import AuditFacts, audit_body, audit_lines, refuse_leaks, verdicts
from postclick.data.encode import EncodeCounts, FieldCounts
from postclick.data.ledger import Funnel, Ledger
from postclick.data.sources.base import SourceProtocol
from postclick.errors import DataError
from postclick.schema import Columns, Schema, SparseFeature

SOUND = AuditFacts(
    Schema((SparseFeature("f"),)),
    SourceProtocol("memory"),
    Ledger(300, {"train": Funnel(200, 100, conversions=10), "test": Funnel(100, 50, conversions=5)}),
    {"kind": "random"},
    {"test": EncodeCounts(100, {"f": FieldCounts(100, 5)})},
    {"exact": 0, "conflicting": 0},
    {"keys": {}, "time_us": {}, "allowed": False},
    {"f": 20},
)


def codes(**changes):
    return [verdict.code for verdict in verdicts(replace(SOUND, **changes)) if verdict.code != "audit.funnel"]


def test_a_sound_log_has_only_its_funnel():
    assert codes() == []
    texts = [verdict.text for verdict in verdicts(SOUND)]
    assert texts[0] == "train: 200 rows, CTR 50 %, CVR 10 %, CTCVR 5 %."


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"ledger": Ledger(1, {"train": Funnel(9, 9)})}, ["data.single_class", "data.single_class"]),
        ({"ledger": Ledger(1, {"test": Funnel(9, 3)})}, ["data.single_class"]),
        ({"ledger": Ledger(1, {"test": Funnel(9, 3, 0, 1, 2)})}, ["data.conversion_without_click"]),
        ({"ledger": Ledger(1, {}, {"data.conversion_without_click": 2})}, ["data.conversion_without_click"]),
        ({"duplicates": {"exact": 1, "conflicting": 2}}, ["data.duplicate_key"]),
        ({"duplicates": None}, []),
        ({"overlap": {"keys": {"train-test": 3}, "time_us": {"train-test": 5}}}, ["data.split_leak"] * 2),
        (
            {"protocol": SourceProtocol("coat", allow_overlap=True, notes=("note",))},
            ["audit.overlap", "audit.protocol"],
        ),
        ({"encoded": {"test": EncodeCounts(9, {"f": FieldCounts(10, 3)})}}, ["data.unseen"]),
        ({"encoded": {"train": EncodeCounts(9, {"f": FieldCounts(10, 3)})}}, []),
        ({"distinct": {"f": 150}}, ["data.id_like"]),
        ({"empty_files": ["a.csv"]}, ["data.empty"]),
    ],
)
def test_each_check(changes, wanted):
    assert codes(**changes) == wanted


def test_a_log_of_clicks_is_not_degenerate_in_clicks():
    facts = {
        "schema": Schema((SparseFeature("f"),), Columns(), "click"),
        "ledger": Ledger(1, {"train": Funnel(9, 9, 0, 3)}),
    }
    assert codes(**facts) == []


def test_the_body_is_plain_and_warnings_are_printed_first():
    body = audit_body(replace(SOUND, empty_files=["a"], distinct={"f": 150}))
    assert json.loads(json.dumps(body, allow_nan=False)) == body
    assert body["features"]["test"]["f"]["unseen_rate"] == 0.05
    assert body["funnel"]["train"]["ctr"] == 0.5
    lines = audit_lines(body)
    assert lines[0] == "warning: f has 150 values in 200 training rows, like a row id."
    assert all(line.startswith("note: ") for line in lines[1:])


def test_outcomes_among_the_features():
    refuse_leaks(Schema((SparseFeature("clicks_last_week"), SparseFeature("order_hour"))))
    schema = Schema((SparseFeature("My_Label"), SparseFeature("isBuy")), Columns(click="my label", conversion="bought"))
    with pytest.raises(DataError) as caught:
        refuse_leaks(schema)
    assert [finding.where for finding in caught.value.findings] == ["My_Label", "isBuy"]
