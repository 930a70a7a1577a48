"""Arithmetic on log-odds."""

from __future__ import annotations

import numpy as np
import pytest

from postclick.calibration.odds import log_pair, product


def test_by_hand_and_exact_in_the_tails():
    log_p, log_not_p = log_pair(np.array([np.log(0.25), 800.0, -800.0]))
    assert log_p == pytest.approx([np.log(0.2), 0.0, -800.0])
    assert log_not_p == pytest.approx([np.log(0.8), -800.0, 0.0])


def test_a_product_is_one():
    # 0.2 x 0.5 = 0.1
    odds = np.array([np.log(0.25), -800.0, 800.0]), np.array([0.0, 3.0, 0.0])
    assert product(*odds) == pytest.approx([np.log(0.1 / 0.9), -800.0 + np.log(1 / (1 + np.exp(-3.0))), 0.0])
    assert np.array_equal(product(*odds), product(*odds[::-1]))
