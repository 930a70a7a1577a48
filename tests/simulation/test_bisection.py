import math

import pytest

from postclick.simulation.bisection import rising_root


def test_the_root_of_a_rising_function():
    assert rising_root(lambda x: x**3 - 8.0) == pytest.approx(2.0, abs=1e-14)
    assert rising_root(lambda x: math.exp(x) - 1e-9) == pytest.approx(math.log(1e-9), abs=1e-14)


def test_a_root_beyond_the_ends_gives_the_end():
    assert rising_root(lambda x: x - 100.0) == pytest.approx(60.0)
    assert rising_root(lambda x: x + 100.0) == pytest.approx(-60.0)
