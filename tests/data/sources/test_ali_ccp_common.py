from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from postclick.data.sources.ali_ccp_common import MISSING, Ragged, read_common
from postclick.data.sources.ali_ccp_text import Lines

lists = st.lists(st.lists(st.integers(0, 99), max_size=6), min_size=1, max_size=8)


def ragged(values: list[list[int]], longest: int | None = None) -> Ragged:
    line = np.repeat(np.arange(len(values)), [len(part) for part in values])
    flat = np.array([item for part in values for item in part], np.int64)
    return Ragged.build(line, flat, flat.astype(np.float32) / 2, len(values), longest)


def plain(part: Ragged) -> list[list[int]]:
    assert (part.weights == part.values.astype(np.float32) / 2).all()
    return [part.values[start:end].tolist() for start, end in zip(part.offsets[:-1], part.offsets[1:], strict=True)]


@given(lists, st.integers(1, 6))
def test_build_cuts_at_the_longest(values, longest):
    part = ragged(values, longest)
    assert plain(part) == [item[:longest] for item in values]
    assert part.cut.tolist() == [max(len(item) - longest, 0) for item in values]


@given(lists, st.data())
def test_take(values, data):
    index = data.draw(st.lists(st.integers(-1, len(values) - 1)))
    part = ragged(values, 4).take(np.array(index, np.int64))
    assert plain(part) == [values[place][:4] if place >= 0 else [] for place in index]
    assert part.cut_total == sum(max(len(values[place]) - 4, 0) for place in index if place >= 0)


@given(
    st.lists(st.tuples(st.lists(st.integers(0, 99), max_size=4), st.lists(st.integers(0, 99), max_size=4)), min_size=1)
)
def test_join(pairs):
    left, right = [a for a, _ in pairs], [b for _, b in pairs]
    assert plain(ragged(left).join(ragged(right))) == [a + b for a, b in pairs]


def digests(*keys: str):
    return Lines("".join(f"{key},0,\n" for key in keys).encode(), 2, "x", 0).digests(0)


def test_read_common(tmp_path):
    path = tmp_path / "common.csv"
    path.write_text(
        "k1,2,101\x025\x031.0\x01109_14\x027\x030.5\n"
        "k2,3,109_14\x028\x031.0\x01109_14\x029\x032.0\x01109_14\x0210\x033.0\n"
        "k1,2,101\x026\x031.0\x01101\x0277\x031.0\n"
    )
    common = read_common(path, ["101"], [("109_14", 2)])
    assert common.replaced_keys == 1
    rows = common.find(*digests("k2", "nobody", "k1"))
    assert rows.tolist() == [1, -1, 2]
    values, replaced = common.take(rows)
    assert values.tolist() == [[MISSING], [MISSING], [77]]  # the last line of a key, its last value
    assert replaced.tolist() == [1]
    taken = common.lists[0].take(rows)
    assert [taken.values[:2].tolist(), taken.offsets.tolist(), taken.cut.tolist()] == [[8, 9], [0, 2, 2, 2], [1, 0, 0]]


def test_an_empty_file_has_no_keys(tmp_path):
    (tmp_path / "c.csv").write_text("")
    common = read_common(tmp_path / "c.csv", ["101"], [("109_14", 2)])
    rows = common.find(*digests("k"))
    assert rows.tolist() == [-1]
    assert common.take(rows)[0].tolist() == [[MISSING]]
    assert len(common.lists[0].take(rows).values) == 0


@pytest.mark.parametrize("value", [2**31 - 1, 2**31, 2**53 + 1])
def test_large_values_of_lists_stay_exact(tmp_path, value):
    (tmp_path / "c.csv").write_text(f"k,1,109_14\x02{value}\x031.0\n")
    assert read_common(tmp_path / "c.csv", [], [("109_14", 2)]).lists[0].values.tolist() == [value]
