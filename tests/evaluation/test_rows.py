from dataclasses import replace

import numpy as np
import pytest

from postclick.data.arrays import Labels
from postclick.data.log import Truth
from postclick.data.scores import Scores
from postclick.errors import DataError
from postclick.evaluation.rows import EvaluationRows, group_codes

ODDS = np.array([0.1, 0.2, 0.3, 0.4, 0.5])
HALF = np.full(5, 0.5)


def int8(*values):
    return np.array(values, np.int8)


def rows(truth=None, heads=("ctr", "cvr", "ctcvr"), **labels):
    given = {"click": int8(1, 0, 1, 0, 1), "conversion": int8(1, 0, 0, 0, 1)} | labels
    scores = Scores(dict.fromkeys(heads, ODDS), {"ctcvr": ODDS + 1}, frozenset({"cvr"}))
    return EvaluationRows(Labels(**given), scores, truth)


def by_name(found, population="exposure"):
    return {(sample.head, sample.population): sample for sample in found.samples(population)}


def test_each_head_on_its_population():
    samples = by_name(rows())
    assert set(samples) == {("ctr", "exposure"), ("cvr", "click"), ("ctcvr", "exposure")}
    assert samples["ctr", "exposure"].label.tolist() == [1, 0, 1, 0, 1]
    cvr = samples["cvr", "click"]
    assert (cvr.odds.tolist(), cvr.label.tolist(), cvr.positives) == ([0.1, 0.3, 0.5], [1, 0, 1], 2)
    assert cvr.derived
    assert not samples["ctr", "exposure"].derived
    assert samples["ctcvr", "exposure"].raw is not None
    assert cvr.raw is None


def test_censored_labels_are_left_out_and_counted():
    samples = by_name(rows(conversion=int8(-1, 0, 0, 0, 1)))
    assert samples["cvr", "click"].label.tolist() == [0, 1]
    assert samples["ctcvr", "exposure"].label.tolist() == [0, 0, 0, 1]
    assert [samples[key].censored for key in (("ctr", "exposure"), ("cvr", "click"), ("ctcvr", "exposure"))] == [
        0,
        1,
        1,
    ]


def test_rows_with_an_open_window_are_left_out_of_conversions_whatever_was_seen():
    """Of five rows the first, clicked and converted, and the third, unclicked, were too young."""
    whole, found = by_name(rows()), by_name(rows(immature=int8(1, 0, 1, 0, 2)))
    np.testing.assert_array_equal(found["ctr", "exposure"].label, whole["ctr", "exposure"].label)
    assert found["ctcvr", "exposure"].places.tolist() == [1, 3, 4]
    assert found["ctcvr", "exposure"].censored == 2
    clicked = np.flatnonzero(rows().labels.click == 1)
    assert found["cvr", "click"].places.tolist() == [place for place in clicked if place not in (0, 2)]
    assert found["cvr", "click"].censored == sum(place in (0, 2) for place in clicked)


def test_actions_where_the_log_and_the_system_have_them():
    heads = ("ctr", "action", "ctar")
    assert set(by_name(rows(heads=heads))) == {("ctr", "exposure")}
    samples = by_name(rows(heads=heads, action=int8(1, 1, 0, 0, -1)))
    assert samples["action", "click"].label.tolist() == [1, 0]
    # an action without click is no positive of P(click and action)
    assert samples["ctar", "exposure"].label.tolist() == [1, 0, 0, 0]
    assert samples["ctar", "exposure"].censored == 1


def test_randomised_exposures_are_a_population_of_their_own():
    assert not any(population == "random" for _, population in by_name(rows(randomised=int8(0, 0, 0, 0, 0))))
    samples = by_name(rows(randomised=int8(1, 1, 0, 0, 1)))
    assert samples["ctr", "random"].label.tolist() == [1, 0, 1]
    assert samples["cvr", "random"].odds.tolist() == [0.1, 0.5]


def test_the_world_has_true_probabilities_as_soft_labels():
    truth = Truth(HALF, HALF / 2, HALF / 4, HALF / 8)
    samples = by_name(rows(truth))
    assert samples["ctr", "world"].label.tolist() == HALF.tolist()
    assert samples["cvr", "world"].label.tolist() == (HALF / 2).tolist()
    assert samples["ctcvr", "world"].positives == pytest.approx(5 / 16)
    assert len(samples["cvr", "world"]) == 5


def test_the_world_knows_actions_where_it_has_them():
    heads = ("ctr", "cvr", "ctcvr", "action", "ctar")
    truth = Truth(HALF, HALF / 2, HALF / 4, HALF / 8, action=HALF / 3, ctar=HALF / 6)
    samples = by_name(rows(truth, heads, action=int8(1, 0, 1, 0, 1)))
    assert samples["action", "world"].label.tolist() == (HALF / 3).tolist()
    assert samples["ctar", "world"].label.tolist() == (HALF / 6).tolist()
    assert len(samples["action", "world"]) == 5  # all exposures, not the clicked ones alone
    without = by_name(rows(replace(truth, action=None, ctar=None), heads, action=int8(1, 0, 1, 0, 1)))
    assert not {("action", "world"), ("ctar", "world")} & set(without)
    assert not {("action", "world"), ("ctar", "world")} & set(by_name(rows(truth)))  # a system without these heads


def test_a_log_of_clicks_says_nothing_of_exposures():
    samples = by_name(rows(Truth(HALF, HALF, HALF, HALF), click=int8(1, 1, 1, 1, 1)), "click")
    assert samples["ctr", "exposure"].undefined == "log of clicks"
    assert samples["ctcvr", "exposure"].undefined == "log of clicks"
    assert samples["cvr", "click"].undefined is None
    assert not any(population == "world" for _, population in samples)


def test_ratings_on_demand_say_nothing_of_clicks():
    ones = int8(1, 1, 1, 1, 1)
    found = rows(click=ones, conversion=int8(1, 0, 0, 0, 1), randomised=ones)
    assert found.asked
    samples = {name: sample.undefined for name, sample in by_name(found).items()}
    reason = "every row was clicked on demand"
    assert samples["cvr", "random"] is samples["cvr", "click"] is None
    assert {samples[head, place] for head in ("ctr", "ctcvr") for place in ("exposure", "random")} == {reason}
    for change in ({"randomised": int8(1, 1, 1, 1, 0)}, {"click": int8(1, 1, 1, 0, 1)}):
        assert not rows(**{"click": ones, "conversion": int8(1, 0, 0, 0, 1), "randomised": ones} | change).asked


def test_slices_are_taken_in_rows_of_the_split():
    weight = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    found = rows(sample_weight=weight, user_id=np.array([9, 9, 7, 7, 9]))
    cvr = by_name(found)["cvr", "click"].select(np.array([False, True, True, True, True]))
    assert (cvr.odds.tolist(), cvr.weight.tolist(), cvr.user.tolist()) == ([0.3, 0.5], [3.0, 5.0], [0, 1])
    assert cvr.select(np.array([False, False, False, False, True])).places.tolist() == [4]


def test_codes_follow_the_order_of_values():
    assert group_codes(np.array([30, 2**53 + 1, 10, 2**53, 30])).tolist() == [1, 3, 0, 2, 1]
    assert group_codes(np.array(["b", "a", "b"], object)).tolist() == [1, 0, 1]
    assert group_codes(np.array(["b", None, "a"], object)).tolist() == [1, 2, 0]
    assert group_codes(np.array(["b", "a"])).tolist() == [1, 0]
    assert group_codes(np.zeros(0, np.int64)).tolist() == []


def test_all_mistakes_together():
    with pytest.raises(DataError) as caught:
        EvaluationRows(
            Labels(int8(1), int8(0), sample_weight=np.array([-1.0])),
            Scores({"ctr": np.zeros(2)}, {}),
            slices={"day": np.zeros(3)},
            cold_item=np.zeros(4, bool),
        )
    assert [finding.where for finding in caught.value.findings] == [
        "scores.ctr",
        "slices.day",
        "cold_item",
        "sample_weight",
    ]
    assert "eval.length 2 rows where the labels have 1" in str(caught.value)
