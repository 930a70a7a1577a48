"""A hash of ids that is the same everywhere."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from postclick.data.hashing import stable_hash, unit_interval

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)


def mix(word):
    """splitmix64 in Python's integers."""
    word = (word + 0x9E3779B97F4A7C15) % 2**64
    word = (word ^ (word >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    word = (word ^ (word >> 27)) * 0x94D049BB133111EB % 2**64
    return word ^ (word >> 31)


def test_the_hash_never_changes():
    """Splits of old logs depend on these numbers."""
    assert mix(0) == 0xE220A8397B1DCDAF  # the generator's published first output
    numbers = [0, 1, -1, 2**53 + 1]
    assert stable_hash(np.array(numbers)).tolist() == [mix(number % 2**64 ^ mix(0)) for number in numbers]
    texts = ["", "a", "äöü", "a longer text than one word"]
    assert stable_hash(np.array(texts, object)).tolist() == [
        12035550249420947055,
        14179009069275656369,
        6054474116872905587,
        10880389918085502781,
    ]


@given(st.lists(texts, min_size=1, max_size=8), texts)
def test_a_text_hashes_alike_beside_any_neighbour(values, other):
    together = stable_hash(np.array([*values, other * 3], object))[: len(values)]
    alone = [stable_hash(np.array([value], object))[0] for value in values]
    np.testing.assert_array_equal(together, alone)
    np.testing.assert_array_equal(stable_hash(np.array(values)), stable_hash(np.array(values, object)))


@given(st.lists(texts, unique=True, min_size=2, max_size=30))
def test_different_texts_differ(values):
    assert len(set(stable_hash(np.array(values, object)).tolist())) == len(values)


@given(st.lists(st.integers(-(2**63), 2**63 - 1), unique=True, min_size=1))
def test_integers_never_collide_and_seeds_are_independent(values):
    array = np.array(values, np.int64)
    assert len(set(stable_hash(array).tolist())) == len(values)
    assert not np.array_equal(stable_hash(array), stable_hash(array, seed=1))


def test_no_value_gives_no_hash():
    assert stable_hash(np.array([], object)).shape == (0,)
    assert stable_hash(np.array([], np.int64)).shape == (0,)


@pytest.mark.parametrize("values", [np.arange(100_000), np.array([f"u{i}" for i in range(100_000)], object)])
def test_unit_interval_is_uniform(values):
    found = unit_interval(values)
    assert found.min() >= 0
    assert found.max() < 1
    counts = np.histogram(found, 20, (0, 1))[0]
    # chi-square with 19 degrees of freedom is below 44 in 999 of 1,000 draws
    assert ((counts - 5_000) ** 2 / 5_000).sum() < 44
    halves = (unit_interval(values, 1) < 0.5) & (found < 0.5)
    assert halves.mean() == pytest.approx(0.25, abs=0.01)
