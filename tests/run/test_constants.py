"""Heads of one class (TRUST D04)."""

from __future__ import annotations

import numpy as np
import pytest

from postclick.bundle.header import Constant
from postclick.data.arrays import CENSORED, Labels
from postclick.errors import DataError
from postclick.run.constants import constant_heads

HEADS = {"ctr": "head", "cvr": "head", "ctcvr": "head"}


def labels(click, conversion, action=None):
    wide = [None if values is None else np.array(values, np.int8) for values in (click, conversion, action)]
    return Labels(wide[0], wide[1], wide[2])


def test_both_classes_everywhere_is_no_constant():
    assert constant_heads(labels([0, 1, 1], [0, 0, 1]), HEADS) == {}


def test_no_conversion_is_refused_with_split_and_counts():
    with pytest.raises(DataError) as caught:
        constant_heads(labels([0, 1, 1], [0, 0, 0]), HEADS)
    text = str(caught.value)
    assert caught.value.exit_code == 65
    assert "data.single_class the cvr head has one class only: 0 conversions on 2 clicks in train" in text
    assert "train:conversion" in text
    assert "--allow-degenerate" in text


def test_on_request_it_is_the_prior():
    assert constant_heads(labels([0, 1, 1], [0, 0, 0]), HEADS, allow=True) == {"cvr": Constant(0, 2)}


def test_all_mistakes_together():
    with pytest.raises(DataError) as caught:
        constant_heads(labels([0, 0], [0, 0], [0, 0]), HEADS | {"action": "head"})
    assert [finding.where for finding in caught.value.findings] == ["train:click", "train:conversion", "train:action"]


def test_every_click_converts_is_one_class_for_cvr_but_not_for_ctcvr():
    whole = labels([0, 1], [0, 1])
    assert constant_heads(whole, HEADS, allow=True) == {"cvr": Constant(1, 1)}
    assert constant_heads(whole, HEADS | {"cvr": "derived"}) == {}


def test_in_a_log_of_clicks_ctr_is_one_by_definition():
    assert constant_heads(labels([1, 1], [0, 1]), HEADS, population="click") == {"ctr": Constant(2, 2)}


def test_censored_labels_do_not_count():
    assert constant_heads(labels([1, 1, 0], [0, CENSORED, 0]), HEADS, allow=True) == {"cvr": Constant(0, 1)}


def test_where_the_action_is_derived_ctar_is_judged():
    """An action without a click is none: the label is click times action."""
    whole = labels([0, 1, 1], [0, 0, 1], [1, 0, 0])
    acting = HEADS | {"ctar": "head", "action": "derived"}
    assert constant_heads(whole, acting, allow=True) == {"ctar": Constant(0, 3)}
    assert constant_heads(whole, HEADS | {"ctar": "head", "action": "head"}, allow=True) == {"action": Constant(0, 2)}
    with pytest.raises(DataError, match="the ctar head has one class only: 0 actions on 3 exposures in train"):
        constant_heads(whole, acting)
    # every click is followed by an action: one class for the action, two for ctar
    assert constant_heads(labels([0, 1, 1], [0, 0, 1], [0, 1, 1]), acting) == {}


def test_in_a_log_of_clicks_the_action_is_judged_as_ever():
    clicks = labels([1, 1], [0, 1], [0, 0])
    acting = HEADS | {"ctar": "head", "action": "head"}
    with pytest.raises(DataError, match="the action head has one class only"):
        constant_heads(clicks, acting, population="click")
    assert set(constant_heads(clicks, acting, population="click", allow=True)) == {"ctr", "action"}


def test_where_unclicked_rows_are_negatives_every_click_may_convert():
    positive = labels([0, 1, 1], [0, 1, 1])
    with pytest.raises(DataError, match="the cvr head has one class only"):
        constant_heads(positive, HEADS)
    assert constant_heads(positive, HEADS, negatives_everywhere=True) == {}
    nothing = labels([0, 1, 1], [0, 0, 0])
    assert constant_heads(nothing, HEADS, allow=True, negatives_everywhere=True) == {"cvr": Constant(0, 3)}
