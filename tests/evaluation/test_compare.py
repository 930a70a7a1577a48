import json
import math

import numpy as np
import pytest
from scipy import stats

from postclick.data.arrays import Labels
from postclick.data.log import Truth
from postclick.data.scores import Scores
from postclick.errors import ConfigError, DataError
from postclick.evaluation import EvaluationRows, evaluate
from postclick.evaluation.compare import DEFAULT_COMPARED, compare
from postclick.evaluation.comparison import Comparison, Margin
from postclick.metrics.influence import COMPARED

AUC, LOSS, PCOC = "cvr/auc@click", "cvr/logloss@click", "cvr/pcoc@click"


def sigmoid(odds):
    return 1 / (1 + np.exp(-odds))


def world(rows=4000, seed=0, **columns):
    rng = np.random.default_rng(seed)
    ctr, cvr = sigmoid(rng.normal(-0.5, 1.0, rows)), sigmoid(rng.normal(-1.0, 1.0, rows))
    click = (rng.random(rows) < ctr).astype(np.int8)
    conversion = (click * (rng.random(rows) < cvr)).astype(np.int8)
    columns = {"user_id": rng.integers(0, 300, rows), **columns}
    return Labels(click, conversion, **columns), Truth(ctr, cvr, cvr, ctr * cvr)


LABELS, TRUTH = world()


def scored(noise, seed, **parts):
    error = noise * np.random.default_rng(seed).normal(size=len(LABELS))
    odds = {"ctr": TRUTH.ctr, "cvr": TRUTH.cvr_do, "ctcvr": TRUTH.ctcvr}
    return Scores({head: np.log(p / (1 - p)) + error for head, p in odds.items()}, {}, **parts)


GOOD, BAD = ([scored(noise, seed) for seed in range(first, first + 3)] for noise, first in ((0.1, 1), (2.0, 11)))
SYSTEMS = {"good": GOOD, "bad": BAD}


def test_a_clearly_better_system_is_better_on_every_metric():
    names = [f"cvr/{metric}@click" for metric in COMPARED if metric != "pcoc"]
    found = compare(SYSTEMS, LABELS, metrics=names)
    turned = compare({"bad": BAD, "good": GOOD}, LABELS, metrics=names)
    for name in names:
        difference = found.difference(name, "good", "bad")
        assert difference.verdict == "better", name
        assert difference.needed == ""
        assert turned.difference(name, "bad", "good").verdict == "worse"
        assert turned.difference(name, "bad", "good").value == pytest.approx(-difference.value, rel=1e-12)


def test_two_equal_systems_differ_by_nothing():
    found = compare({"one": GOOD, "two": list(GOOD)}, LABELS)
    for name in DEFAULT_COMPARED:
        difference = found.difference(name, "one", "two")
        assert (difference.value, difference.low, difference.high, difference.p_holm) == (0.0, 0.0, 0.0, 1.0)
        assert difference.words == "cannot tell"
    assert found.groups(AUC) == {"one": "a", "two": "a"}
    assert not found.difference(AUC, "one", "two").equivalent()
    five = compare({"one": [*GOOD, *GOOD], "two": [*GOOD, *GOOD]}, LABELS)
    assert five.difference(AUC, "one", "two").equivalent()


def test_values_are_the_seed_means_of_what_evaluate_finds():
    names = [AUC, LOSS, PCOC, "ctcvr/auc@exposure", "cvr/auc@world", "cvr/mae@world", "ctr/ne@exposure"]
    found = compare(SYSTEMS, LABELS, truth=TRUTH, metrics=names)
    for system, scores in SYSTEMS.items():
        every = [evaluate(EvaluationRows(LABELS, one, TRUTH), metrics=names) for one in scores]
        for name in names:
            values = np.array([result[name].value for result in every])
            own = np.log(values) if "pcoc" in name else values
            standing = found.standings[name][system]
            expected = math.exp(own.mean()) if "pcoc" in name else own.mean()
            assert standing.value == pytest.approx(expected, rel=1e-12)
            assert standing.seed_sd == pytest.approx(own.std(ddof=1), rel=1e-9)
            difference = found.difference(name, "good", "bad")
            assert difference.n == every[0][name].n
            assert difference.positives == every[0][name].positives


def test_one_seed_without_users_is_the_paired_t_test_on_rows():
    labels, _ = world(user_id=None)
    found = compare({"good": GOOD[:1], "bad": BAD[:1]}, labels, metrics=[LOSS]).difference(LOSS, "good", "bad")
    click, y = labels.click == 1, labels.conversion[labels.click == 1]
    one, other = (
        np.log1p(np.exp(-np.where(y == 1, s, -s))) for s in (scores[0].odds["cvr"][click] for scores in (GOOD, BAD))
    )
    expected = stats.ttest_rel(one, other)
    assert found.value == pytest.approx(expected.statistic * math.sqrt(found.test_variance), rel=1e-9)
    assert found.method == (
        "paired linearised, independent rows, one seed: these trained models, not the systems, t by Satterthwaite"
    )
    assert compare(SYSTEMS, LABELS).difference(AUC, "good", "bad").method == (
        "paired DeLong, clustered by user, 3 seeds, paired, t by Satterthwaite"
    )
    mixed = compare({"good": GOOD, "bad": BAD[:1]}, LABELS).difference(AUC, "good", "bad")
    assert "3 and 1 seeds, seed variance of one side unknown" in mixed.method


def test_doubling_every_row_of_a_user_changes_no_interval():
    """What clustering is for: copies of rows are no news."""
    twice = LABELS.take(np.tile(np.arange(len(LABELS)), 2))
    double = {
        name: [Scores({head: np.tile(odds, 2) for head, odds in one.odds.items()}, {}) for one in scores]
        for name, scores in SYSTEMS.items()
    }
    for name in (AUC, LOSS):
        once, again = (
            compare(s, y, metrics=[name]).difference(name, "good", "bad")
            for s, y in ((SYSTEMS, LABELS), (double, twice))
        )
        assert (again.low, again.high) == pytest.approx((once.low, once.high), rel=1e-9)


def test_a_sample_weight_of_two_is_the_row_twice():
    weight = np.where(np.arange(len(LABELS)) % 3 == 0, 2.0, 1.0)
    rows = np.repeat(np.arange(len(LABELS)), weight.astype(int))
    weighted, _ = world(sample_weight=weight)
    repeated = {
        name: [Scores({head: odds[rows] for head, odds in one.odds.items()}, {}) for one in scores]
        for name, scores in SYSTEMS.items()
    }
    for name in (AUC, LOSS, "cvr/gauc@click"):
        one = compare(SYSTEMS, weighted, metrics=[name]).difference(name, "good", "bad")
        other = compare(repeated, LABELS.take(rows), metrics=[name]).difference(name, "good", "bad")
        assert (one.value, one.low, one.high) == pytest.approx((other.value, other.low, other.high), rel=1e-9)


def test_pcoc_is_judged_by_its_distance_from_one():
    """1.35 is farther from 1 than 0.8 is, and 0.74 as far as 1.35."""
    base = scored(0.0, 0).odds["cvr"]

    def shifted(by):
        return [Scores({"cvr": base + by + 0.001 * seed}, {}) for seed in range(3)]

    found = compare({"over": shifted(0.6), "under": shifted(-0.15)}, LABELS, metrics=[PCOC])
    difference = found.difference(PCOC, "over", "under")
    over, under = (found.standings[PCOC][name].value for name in ("over", "under"))
    assert over > 1.2
    assert under < 1.0
    assert difference.value == pytest.approx(abs(math.log(over)) - abs(math.log(under)), rel=1e-9)
    assert difference.verdict == "worse"
    assert found.ranking(PCOC) == ["under", "over"]


def test_holm_goes_over_the_table_and_a_baseline_makes_it_smaller():
    three = {**SYSTEMS, "middle": [scored(0.3, seed) for seed in (21, 22, 23)]}
    every, against = compare(three, LABELS), compare(three, LABELS, baseline="bad")
    assert [(d.system, d.against) for d in every.differences[AUC]] == [
        ("good", "bad"),
        ("good", "middle"),
        ("bad", "middle"),
    ]
    assert [(d.system, d.against) for d in against.differences[AUC]] == [("good", "bad"), ("middle", "bad")]
    for result, tests in ((every, 3), (against, 2)):
        raw = np.sort([d.p for d in result.differences[AUC]])
        adjusted = np.sort([d.p_holm for d in result.differences[AUC]])
        expected = np.minimum(1, np.maximum.accumulate(raw * np.arange(tests, 0, -1)))
        assert adjusted == pytest.approx(expected, rel=1e-12)
    letters = every.groups(AUC)
    assert letters["bad"] == "b"
    assert letters["good"] == letters["middle"] == "a"


def test_the_conversions_that_would_tell_follow_the_stated_formula():
    pair = {"one": [scored(0.45, 31)], "two": [scored(0.5, 32)]}
    found = compare(pair, LABELS, metrics=[AUC]).difference(AUC, "one", "two")
    assert found.verdict == "cannot tell"
    half = found.high - found.value
    expected = found.positives * ((half / found.value) ** 2 - 1)
    count = int(found.needed.split()[1])
    assert found.needed == f"about {count} more conversions"
    assert expected <= count <= 1.1 * expected + 1
    assert found.words == f"cannot tell (needs about {count} more conversions)"


def test_clicks_exposures_and_seeds_are_called_so():
    pair = {"one": [scored(0.45, 31)], "two": [scored(0.46, 34)]}
    names = ["ctr/auc@exposure", "cvr/logloss@world"]
    found = compare(pair, LABELS, truth=TRUTH, metrics=names, level=0.9999)
    assert found.difference(names[0], "one", "two").needed.endswith(" more clicks")
    assert found.difference(names[1], "one", "two").needed.endswith(" more exposures")
    wild = {
        name: [scored(noise, seed) for noise, seed in zip((0.01, 1.4), seeds, strict=True)]
        for name, seeds in (("a", (1, 2)), ("b", (5, 4)))
    }
    needed = compare(wild, LABELS, metrics=[AUC]).difference(AUC, "a", "b").needed
    assert needed.endswith(" more seeds")


def test_populations_and_raw_scores():
    randomised = (np.arange(len(LABELS)) % 2).astype(np.int8)
    labels, truth = world(randomised=randomised)
    names = [AUC, "cvr/auc@random", "ctr/auc@random", "cvr/auc@world", "cvr/auc[score=raw]@click"]
    raw = [Scores(one.odds, {"cvr": -one.odds["cvr"]}) for one in GOOD]
    found = compare({"good": raw, "bad": BAD}, labels, truth=truth, metrics=names)
    clicked = labels.click == 1
    sizes = {name: found.differences[name][0].n for name in names}
    assert sizes == {
        AUC: clicked.sum(),
        "cvr/auc@random": (clicked & (randomised == 1)).sum(),
        "ctr/auc@random": randomised.sum(),
        "cvr/auc@world": len(labels),
        "cvr/auc[score=raw]@click": clicked.sum(),
    }
    standings = found.standings["cvr/auc[score=raw]@click"]
    assert standings["good"].value == pytest.approx(1 - found.standings[AUC]["good"].value, abs=1e-12)
    assert standings["bad"].value == found.standings[AUC]["bad"].value


def test_what_is_undefined_says_why_and_spoils_nothing_else():
    no_cvr = [Scores({"ctr": one.odds["ctr"]}, {}) for one in BAD]
    lost = [Scores({**one.odds, "cvr": np.full(len(LABELS), np.nan)}, {}) for one in BAD]
    systems = {"good": GOOD, "no-cvr": no_cvr, "lost": lost}
    found = compare(systems, LABELS, metrics=[AUC, "cvr/auc@world", "ctr/auc@exposure"])
    assert found.difference(AUC, "good", "no-cvr").undefined == "no score of cvr"
    assert found.difference(AUC, "good", "lost").undefined == "scores are not numbers"
    assert found.standings[AUC]["good"].undefined is None
    assert found.difference("cvr/auc@world", "good", "lost").undefined == "these rows have no cvr@world"
    assert found.difference("ctr/auc@exposure", "good", "lost").verdict == "better"
    assert found.ranking(AUC) == ["good"]
    clicks = compare(SYSTEMS, LABELS, population="click")
    assert clicks.differences["ctcvr/auc@exposure"][0].undefined == "log of clicks"
    alone, _ = world(user_id=np.zeros(len(LABELS), int))
    one = compare(SYSTEMS, alone, metrics=[AUC]).differences[AUC][0]
    assert (one.undefined, one.verdict, one.low) == ("fewer than two users of a class", "cannot tell", None)


def test_derived_heads_are_marked():
    derived = [scored(0.1, seed, derived=frozenset({"cvr"})) for seed in (1, 2, 3)]
    found = compare({"derived": derived, "bad": BAD}, LABELS, metrics=[AUC])
    assert found.standings[AUC]["derived"].derived
    assert not found.standings[AUC]["bad"].derived
    assert found.table()[0]["verdict"] == "better; derived: derived"


def test_json_there_and_back_and_equal_bytes():
    systems = {**SYSTEMS, "lost": [Scores({"ctr": one.odds["ctr"]}, {}) for one in BAD]}
    found = compare(systems, LABELS, metrics=[*DEFAULT_COMPARED, PCOC])
    text = json.dumps(found.to_dict(), allow_nan=False)
    assert Comparison.from_dict(json.loads(text)) == found
    assert json.dumps(compare(systems, LABELS, metrics=[*DEFAULT_COMPARED, PCOC]).to_dict()) == text


def test_all_mistakes_come_together():
    with pytest.raises(ConfigError) as error:
        compare(
            {"a": []}, LABELS, metrics=["cvr/auk@click", "cvr/ece@click", f"{AUC}|cold-item"], baseline="aa", level=2
        )
    text = str(error.value)
    for part in (
        "1 systems | give at least two",
        "systems without scores | a",
        "the baseline 'aa' is not among the systems | did you mean 'a'?",
        "level must lie between 0 and 1, got 2",
        "there is no 'auk'",
        "ece is not compared | cvr/ece@click",
        "slices are not compared",
    ):
        assert part in text
    with pytest.raises(DataError, match=r"3 rows where the labels have 4000 \| systems.bad\[1\].cvr"):
        compare({"good": GOOD, "bad": [BAD[0], Scores({"cvr": np.zeros(3)}, {})]}, LABELS)


def test_equal_within_a_margin():
    near = [scored(0.1, seed) for seed in range(41, 46)]
    pair = {"one": [*GOOD, *near[:2]], "two": near}
    found = compare(pair, LABELS, metrics=[AUC]).difference(AUC, "one", "two")
    assert found.equivalent(Margin(0.02))
    assert not found.equivalent(Margin(1e-5))
