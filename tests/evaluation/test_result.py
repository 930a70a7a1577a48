import json
from dataclasses import replace

import pytest

from postclick.errors import DataError
from postclick.evaluation.experts import ExpertUse
from postclick.evaluation.result import EvaluationResult, Metric

RESULT = EvaluationResult(
    {
        "cvr/auc@click": Metric(0.75, 0.7, 0.8, 0.95, "DeLong", 100, 10),
        "ctr/auc@exposure": Metric(None, n=5, undefined="no positives"),
        "cvr/ece@click": Metric(0.1, 0.01, 0.02, 0.95, "null band", 100, 10, derived=True),
        "cvr/mean@world": Metric(0.125, n=7, positives=0.5),
    },
    "test",
    "b" * 64,
    "a" * 64,
    {"rows": 105, "notes": ["one note"]},
)


def test_the_json_form_is_the_one_of_interfaces():
    content = RESULT.to_dict()
    assert list(content) == ["format", "bundle", "log", "split", "metrics", "ledger"]
    assert content["format"] == 1
    assert content["metrics"]["ctr/auc@exposure"] == {
        "value": None,
        "low": None,
        "high": None,
        "level": None,
        "method": "",
        "n": 5,
        "positives": 0,
        "undefined": "no positives",
        "derived": False,
    }


def test_it_survives_the_trip_through_json():
    assert EvaluationResult.from_dict(json.loads(json.dumps(RESULT.to_dict(), allow_nan=False))) == RESULT


def test_experts_are_in_the_json_where_there_are_gates():
    with_gates = replace(RESULT, experts={"ctr": ExpertUse(105, (0.25, 0.75), (0.1, 0.9), 0.5)})
    content = with_gates.to_dict()
    assert list(content) == [*RESULT.to_dict(), "experts"]
    assert content["experts"]["tasks"]["ctr"]["weight"] == [0.25, 0.75]
    assert EvaluationResult.from_dict(json.loads(json.dumps(content, allow_nan=False))) == with_gates


def test_another_format_is_refused():
    with pytest.raises(DataError, match="expected an evaluation of format 1, got 2"):
        EvaluationResult.from_dict({**RESULT.to_dict(), "format": 2})


def test_it_is_a_mapping():
    assert RESULT["cvr/auc@click"].value == 0.75
    assert len(RESULT) == 4
    assert "cvr/auc@click" in RESULT
    assert "cvr/auc" not in RESULT
    assert next(iter(RESULT)) == "cvr/auc@click"
    assert RESULT.get("cvr/auc") is None
    assert RESULT.notes == ("one note",)
    with pytest.raises(KeyError, match="did you mean 'cvr/auc@click'"):
        RESULT["cvr/auc@clik"]


def test_the_table_says_what_is_undefined_and_what_is_a_band():
    rows = {row["metric"]: row for row in RESULT.table()}
    assert rows["cvr/auc@click"]["value"] == "0.75"
    assert rows["ctr/auc@exposure"] == {
        "metric": "ctr/auc@exposure",
        "value": "-",
        "low": "-",
        "high": "-",
        "n": "5",
        "positives": "0",
        "note": "undefined: no positives",
    }
    assert rows["cvr/ece@click"]["note"] == "derived; low and high: null band"
    assert rows["cvr/mean@world"]["positives"] == "0.5"
