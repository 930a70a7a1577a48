"""Counts, rates and sentences of the in-shop action, against labels counted one by one."""

from __future__ import annotations

import numpy as np
import pytest

from postclick.data.arrays import CENSORED, Labels
from postclick.data.behaviour import ActionCounts
from postclick.data.ledger import Funnel

CLICK = np.array([1, 1, 1, 1, 1, 1, 0, 0], np.int8)
ACTION = np.array([1, 1, 1, 0, 0, 0, 1, 0], np.int8)
CONVERSION = np.array([1, 0, 0, 1, 1, CENSORED, 0, 0], np.int8)


def test_a_funnel_counts_labels():
    funnel = Funnel.of(Labels(CLICK, CONVERSION, ACTION), set_click=1)
    assert funnel == Funnel(8, 6, 4, 3, 0, 1, orphan_actions=1, conversions_without_action=2)
    # without an action label nothing is said of actions
    assert Funnel.of(Labels(CLICK, CONVERSION)) == Funnel(8, 6, 0, 3)
    seen = np.array([0, 0, 0, 0, 0, 0, 1, 1], np.int8)
    assert Funnel.of(Labels(CLICK, CONVERSION, view_through=seen)).view_through == 2


def test_rates_and_counts():
    found = ActionCounts.of(Funnel.of(Labels(CLICK, CONVERSION, ACTION)))
    assert found.to_dict() == {
        "clicks": 6,
        "actions": 3,
        "conversions": 3,
        "orphan_actions": 1,
        "conversions_without_action": 2,
        "actions_without_conversion": 2,
        "action": 3 / 6,
        "cvr_given_action": 1 / 3,
        "cvr_given_other": 2 / 3,
    }


def test_sentences_and_which_of_them_warn():
    found = list(ActionCounts(clicks=200, actions=50, conversions=40, both=30, orphan_actions=3).sentences())
    assert [warns for warns, _ in found] == [False, True, False, True]
    assert found[0][1] == (
        "an action on 25 % of the clicks; 60 % of the clicks with one convert, 6.67 % of those without."
    )
    assert found[1][1].startswith("10 of the 40 conversions (25 %) came without an action: a chain P(click)")
    assert found[2][1] == "20 of the 50 actions after a click (40 %) led to no conversion."
    assert found[3][1].startswith("3 actions came without a click: their rows stay")


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        (ActionCounts(0, 0, 0, 0, 0), []),
        (ActionCounts(9, 0, 0, 0, 0), ["an action on 0 % of the clicks; an undefined share of the clicks with one"]),
        (ActionCounts(9, 2, 1, 1, 0), ["an action on", "each of the 1 conversions came with an action.", "1 of the 2"]),
    ],
)
def test_what_did_not_happen_is_not_divided_by(counts, words):
    found = [text for _, text in counts.sentences()]
    assert len(found) == len(words)
    assert all(text.startswith(word) for text, word in zip(found, words, strict=True))
    assert not any(warns for warns, _ in counts.sentences())
