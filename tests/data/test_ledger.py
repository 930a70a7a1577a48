"""In = kept + rejected + filtered."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from postclick.data.arrays import Labels
from postclick.data.ledger import Funnel, Ledger
from postclick.data.sources.base import ValueCounts
from postclick.errors import PostclickError

numbers = st.integers(0, 1_000)
names = st.dictionaries(st.sampled_from(["a", "b"]), numbers)


@st.composite
def sound(draw):
    kept = {name: Funnel(rows, rows) for name, rows in draw(names).items()}
    rejected, filtered = draw(names), draw(names)
    parts = draw(st.tuples(numbers, numbers, numbers, numbers))
    values = {"f": ValueCounts(sum(parts), *parts)}
    read = sum(f.rows for f in kept.values()) + sum(rejected.values()) + sum(filtered.values())
    return Ledger(read, kept, rejected, filtered, values)


@given(sound(), sound(), sound())
def test_sums_of_sound_ledgers_are_sound_and_addition_is_associative(a, b, c):
    (a + b).check()
    assert (a + b) + c == a + (b + c)
    assert a + Ledger() == a
    assert (a + b).read == a.read + b.read


@given(sound(), st.integers(1, 5))
def test_a_lost_row_or_value_is_found(ledger, lost):
    broken = ledger + Ledger(read=lost, values={"g": ValueCounts(read=lost)})
    with pytest.raises(PostclickError) as caught:
        broken.check()
    assert [finding.where for finding in caught.value.findings] == ["rows", "g"]
    assert caught.value.exit_code == 70


@given(sound())
def test_the_plain_form_comes_back(ledger):
    assert Ledger.from_dict(json.loads(json.dumps(ledger.to_dict()))) == ledger


def test_lines_say_where_rows_went():
    ledger = Ledger(
        1_010,
        {"train": Funnel(1_000, 100, 20, 10, view_through=2)},
        {"data.label_missing": 7},
        {"rule": 3},
        {"f": ValueCounts(5, 3, 1, 1)},
    )
    text = "\n".join(ledger.lines())
    assert text.startswith("1,010 rows in = 1,000 kept + 7 rejected + 3 filtered")
    assert "rejected 7: data.label_missing" in text
    assert "train: 1,000 rows, 100 clicks, 10 conversions, 20 actions, 2 view-through" in text
    assert "values of f: 5 in = 3 kept, 1 cut off, 1 replaced" in text


def test_splits_are_printed_in_the_order_of_use_even_from_a_file():
    ledger = Ledger(6, {"test": Funnel(1), "train": Funnel(2), "valid": Funnel(3)})
    names = [line.split(":")[0].strip() for line in ledger.lines()[1:]]
    assert names == ["train", "valid", "test"]


def test_values_that_went_with_their_row_are_not_printed_a_field():
    ledger = Ledger(2, {"train": Funnel(1)}, {"data.label_missing": 1}, {}, {"f": ValueCounts(2, 1, rejected=1)})
    assert not any("values of" in line for line in ledger.lines())
    assert "values of f: 3 in = 1 kept, 2 rejected" in "\n".join(
        (ledger + Ledger(values={"f": ValueCounts(1, rejected=1)})).lines()
    )


def test_actions_without_a_click_and_conversions_without_an_action_are_printed():
    funnel = Funnel(9, 5, 3, 2, orphan_actions=1, conversions_without_action=1)
    (line,) = Ledger(9, {"train": funnel}).lines()[1:]
    assert (
        line
        == "  train: 9 rows, 5 clicks, 2 conversions, 3 actions (1 without a click), 1 conversions without an action"
    )
    older = {name: value for name, value in Ledger(9, {"train": funnel}).to_dict().items() if name != "splits"}
    counts = {"rows": 9, "clicks": 5, "actions": 3, "conversions": 2, "view_through": 0, "set_click": 0}
    assert Ledger.from_dict({**older, "splits": {"train": counts}}).kept["train"] == Funnel(9, 5, 3, 2)


def test_open_windows_are_counted_and_absent_where_there_are_none():
    click, conversion = np.array([1, 1, 0, 1], np.int8), np.array([-1, 1, 0, 0], np.int8)
    funnel = Funnel.of(Labels(click, conversion, immature=np.array([1, 1, 1, 0], np.int8)))
    assert (funnel.immature, funnel.censored, funnel.conversions) == (3, 1, 1)
    (line,) = Ledger(4, {"train": funnel}).lines()[1:]
    assert line.endswith("3 with an open window (1 clicks may yet convert)")
    ledger = Ledger(4, {"train": funnel, "test": Funnel(2, 1)})
    assert Ledger.from_dict(ledger.to_dict()) == ledger
    assert "immature" not in ledger.to_dict()["splits"]["test"]
