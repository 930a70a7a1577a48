import json
from dataclasses import replace

import pytest

from postclick.errors import ConfigError, DataError
from postclick.evaluation.comparison import EQUAL, Comparison, Difference, Margin, Standing

AUC, LOSS, PCOC = "cvr/auc@click", "cvr/logloss@click", "cvr/pcoc@click"


def difference(metric, system, against, verdict="cannot tell", **parts):
    known = {"value": 0.001, "low": -0.001, "high": 0.0015, "p": 0.3, "p_holm": 0.6, "reference": 0.7, "seeds": (5, 5)}
    return Difference(metric, system, against, verdict, **{**known, **parts})


def comparison(baseline=None):
    standings = {
        AUC: {"x": Standing(0.70, 0.01, 5), "y": Standing(0.72, None, 5, derived=True), "z": Standing(0.60, 0.0, 5)},
        PCOC: {"x": Standing(1.3), "y": Standing(0.9), "z": Standing(None, undefined="no positives")},
    }
    differences = {
        AUC: (
            difference(AUC, "x", "y", needed="about 1200 more conversions"),
            difference(AUC, "x", "z", "better", p_holm=0.001),
            difference(AUC, "y", "z"),
        ),
        PCOC: (
            difference(PCOC, "x", "y", "worse"),
            Difference(PCOC, "x", "z", undefined="no positives"),
            Difference(PCOC, "y", "z", undefined="no positives"),
        ),
    }
    return Comparison(("x", "y", "z"), baseline, 0.95, standings, differences)


def test_equal_needs_five_seeds_and_the_interval_inside_the_margin():
    close = difference(AUC, "x", "y", low=-0.0019, high=0.0019)
    assert close.equivalent()
    assert not replace(close, seeds=(5, 4)).equivalent()
    assert not replace(close, low=-0.0021).equivalent()
    assert not replace(close, high=0.0021).equivalent()
    assert not replace(close, level=0.9).equivalent()
    assert not replace(close, low=None, high=None).equivalent()
    assert not close.equivalent(Margin(0.001))


def test_the_margin_of_log_loss_is_half_a_percent_of_the_other_systems():
    assert Margin(0.005, relative=True) == EQUAL["logloss"]
    close = difference(LOSS, "x", "y", low=-0.002, high=0.002, reference=0.401)
    assert close.equivalent()
    assert not replace(close, reference=0.399).equivalent()


def test_a_margin_must_be_stated_where_none_is_laid_down():
    found = difference("cvr/brier@click", "x", "y")
    with pytest.raises(ConfigError, match="no margin is laid down for cvr/brier@click"):
        found.equivalent()
    assert found.equivalent(Margin(0.01))


def test_verdicts_in_words():
    table = comparison().table()
    assert [row["verdict"] for row in table] == [
        "cannot tell (needs about 1200 more conversions); derived: y",
        "better",
        "cannot tell; derived: y",
        "worse",
        "cannot tell (undefined: no positives)",
        "cannot tell (undefined: no positives)",
    ]
    assert list(table[0]) == ["metric", "system", "against", "difference", "low", "high", "p (Holm)", "verdict"]
    assert (table[0]["difference"], table[0]["p (Holm)"]) == ("0.001", "0.6")
    assert (table[5]["difference"], table[5]["p (Holm)"]) == ("-", "-")


def test_rankings_go_by_what_is_better():
    found = comparison()
    assert found.ranking(AUC) == ["y", "x", "z"]
    assert found.ranking(PCOC) == ["y", "x"]
    losses = {LOSS: {name: Standing(value) for name, value in (("x", 0.5), ("y", 0.4))}}
    assert Comparison(("x", "y"), None, 0.95, losses, {LOSS: ()}).ranking(LOSS) == ["y", "x"]


def test_letters_join_what_cannot_be_told_apart():
    assert comparison().groups(AUC) == {"y": "ab", "x": "a", "z": "b"}
    assert comparison().groups(PCOC) == {"y": "a", "x": "b"}
    with pytest.raises(ConfigError, match="letters need all pairs, and only 'z' was compared with"):
        comparison("z").groups(AUC)


def test_unknown_metrics_and_pairs_are_named():
    with pytest.raises(ConfigError, match=r"'cvr/auc@clik' was not compared .* did you mean 'cvr/auc@click'"):
        comparison().difference("cvr/auc@clik", "x", "y")
    with pytest.raises(ConfigError, match="no difference of 'y' against 'x'"):
        comparison().difference(AUC, "y", "x")
    assert comparison().difference(AUC, "x", "z").verdict == "better"


def test_json_there_and_back():
    found = comparison()
    content = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert Comparison.from_dict(content) == found
    content["differences"][AUC][0]["later"] = 1
    assert Comparison.from_dict(content) == found
    with pytest.raises(DataError, match="format 1, got 2"):
        Comparison.from_dict({**content, "format": 2})
