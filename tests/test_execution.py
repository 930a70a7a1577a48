"""Mapping over pieces: order, results and errors do not depend on the number of processes."""

from __future__ import annotations

import pytest

from postclick.errors import DataError, Finding
from postclick.execution import cores, ordered_map

SQUARES = [value * value for value in range(7)]


def test_there_is_at_least_one_core() -> None:
    assert cores() >= 1


def test_in_process_keeps_the_order() -> None:
    assert list(ordered_map(lambda value: value * value, range(7))) == SQUARES


def test_in_process_is_lazy() -> None:
    seen: list[int] = []
    results = ordered_map(lambda value: seen.append(value) or value, [1, 2, 3])
    assert next(results) == 1
    assert seen == [1]


def test_nothing_to_do_gives_nothing() -> None:
    assert list(ordered_map(abs, [], jobs=4)) == []


def test_two_processes_give_the_same_results_in_the_same_order() -> None:
    assert list(ordered_map(abs, range(-6, 1), jobs=2)) == [6, 5, 4, 3, 2, 1, 0]


def _fail(_piece: int) -> int:
    raise DataError(Finding("data.corrupt_file", "broken", "b.parquet"))


def test_a_typed_error_is_raised_here_as_there() -> None:
    with pytest.raises(DataError, match=r"data\.corrupt_file broken \| b\.parquet"):
        list(ordered_map(_fail, [1, 2], jobs=1))


def test_a_builtin_error_crosses_processes() -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        list(ordered_map(int, ["1", "x", "3"], jobs=2))
