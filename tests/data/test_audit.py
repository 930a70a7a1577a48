"""Verdicts: each check speaks when it should and is silent when it should."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from postclick.data.audit import AuditFacts, audit_body, audit_lines, verdicts
from postclick.data.clock import TimeSpan
from postclick.data.drift import Drift
from postclick.data.encode import EncodeCounts, FieldCounts
from postclick.data.leakage import FeatureAuc, refuse_leaks
from postclick.data.ledger import Funnel, Ledger
from postclick.data.row_sample import WeightTotals
from postclick.data.sampled import SampleFacts
from postclick.data.sources.base import SourceProtocol, ValueCounts
from postclick.errors import DataError, Finding
from postclick.schema import Columns, Schema, SequenceFeature, SparseFeature

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


def facts_of(**changes) -> AuditFacts:
    """A sound log with sampled facts."""
    stable, large, some = (
        Drift(psi, 0.01, word, (900, 800)) for psi, word in ((0.02, "stable"), (0.6, "large"), (0.2, "moderate"))
    )
    sampled = {
        "quiet": SampleFacts(90, 90, {"f": {"click": FeatureAuc(0.9, 0.8, 90, 60)}}, {"train-test": {"f": stable}}),
        "moved": SampleFacts(90, 90, {}, {"train-test": {"f": stable, "g": large, "h": some}}),
        "leaky": SampleFacts(90, 90, {"f": {"click": FeatureAuc(1.0, 0.999, 90, 60)}}),
        "heavy": SampleFacts(90, 90, weights={"train": WeightTotals(100, 100.0, 5_000.0)}),
        "light": SampleFacts(90, 90, weights={"train": WeightTotals(100, 100.0, 100.0)}),
        "hashed": SampleFacts(90, 90, collisions={"f": 0.5}),
        "new": SampleFacts(90, 90, unseen={"early and late": {"f": 0.5}}),
        "astray": SampleFacts(90, 90, span=TimeSpan(0, 100, 0, 50)),
    }
    if "sampled" in changes:
        changes["sampled"] = sampled[changes["sampled"]]
    return replace(SOUND, **changes)


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"sampled": "quiet"}, [("note", "audit.drift")]),
        ({"sampled": "moved"}, [("warning", "audit.drift"), ("note", "audit.drift")]),
        ({"sampled": "leaky"}, [("stop", "data.leakage")]),
        ({"sampled": "heavy"}, [("warning", "audit.weights")]),
        ({"sampled": "light"}, [("note", "audit.weights")]),
        ({"sampled": "hashed"}, [("note", "audit.collisions")]),
        ({"sampled": "new"}, []),
        ({"sampled": "new", "encoded": {}}, [("warning", "data.unseen")]),
        ({"sampled": "astray"}, [("note", "audit.time"), ("warning", "data.time_order")]),
        ({"table_rows": 1_000_000}, [("note", "audit.table")]),
        ({"refusals": [Finding("data.weights", "a weight", "f:1:w")]}, [("stop", "data.weights")]),
        ({"ledger": Ledger(9, {}, {"data.time_order": 4}), "strays": 1}, [("warning", "data.time_order")]),
    ],
)
def test_what_the_sample_and_the_clocks_say(changes, wanted):
    found = verdicts(facts_of(**changes))
    assert [(verdict.level, verdict.code) for verdict in found if verdict.code != "audit.funnel"] == wanted


def test_the_words_carry_the_numbers():
    texts = {verdict.code: verdict.text for verdict in verdicts(facts_of(sampled="heavy", table_rows=1_000_000))}
    assert texts["audit.weights"] == "train: the weights leave an effective sample of 2 of 100 rows (2 %)."
    assert texts["audit.table"] == "the embedding table has 1,000,000 rows: 64.0 MB at size 16 in float32."
    (moved, _) = (verdict for verdict in verdicts(facts_of(sampled="moved")) if verdict.code == "audit.drift")
    assert moved.text.endswith("over 0.25) in g 0.60.")
    body = audit_body(facts_of(sampled="leaky", refusals=[Finding("data.weights", "w")]))
    assert json.loads(json.dumps(body, allow_nan=False)) == body
    assert body["leakage"]["f"]["click"]["low"] == 0.999
    assert audit_lines(body)[0].startswith("stop: prepare would stop: data.weights w")


def test_sequences_that_lose_values_or_never_have_two():
    schema = Schema((SequenceFeature("s", separator="|"), SparseFeature("f")))
    ledger = Ledger(300, {"train": SOUND.ledger.kept["train"]}, values={"s": ValueCounts(120, 100, 15, 0, 5)})
    counts = {"train": EncodeCounts(200, {"s": FieldCounts(150, 0, 50)})}
    texts = [
        v.text
        for v in verdicts(replace(SOUND, schema=schema, ledger=ledger, encoded=counts))
        if v.code == "data.multivalue"
    ]
    assert texts[0].startswith("s: 120 values in, 15 cut off, 5 rejected")
    assert texts[1] == "s: no row has more than one value; is '|' its separator?"
    counts = {"train": EncodeCounts(200, {"s": FieldCounts(151, 0, 50)})}
    quiet = replace(SOUND, schema=schema, encoded=counts)
    assert [v for v in verdicts(quiet) if v.code == "data.multivalue"] == []


def test_actions_are_audited_where_the_log_has_them():
    acting = Schema((SparseFeature("f"),), Columns(action="a"))
    train = Funnel(200, 100, 23, 10, orphan_actions=3, conversions_without_action=4)
    kept = {"train": train, "test": Funnel(100, 50, 5, 5, conversions_without_action=1)}
    facts = replace(SOUND, schema=acting, ledger=Ledger(300, kept))
    said = [verdict for verdict in verdicts(facts) if verdict.code == "audit.action"]
    assert [verdict.level for verdict in said] == ["note", "warning", "note", "warning"]
    assert said[1].text.startswith("5 of the 15 conversions (33.3 %) came without an action")
    body = audit_body(facts)["actions"]
    assert list(body) == ["train", "test", "all"]
    assert (body["train"]["actions"], body["train"]["action"], body["train"]["cvr_given_action"]) == (20, 0.2, 6 / 20)
    assert (body["all"]["conversions_without_action"], body["all"]["orphan_actions"]) == (5, 3)
    assert audit_body(SOUND)["actions"] is None
    none = replace(facts, ledger=Ledger(300, {"train": Funnel(200, 100, 3, 10, orphan_actions=3)}))
    assert "train has no actions on its 100 clicks, so that label cannot be learned or judged." in [
        verdict.text for verdict in verdicts(none)
    ]
