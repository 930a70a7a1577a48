"""Inverse propensity weights of calibration."""

from __future__ import annotations

import numpy as np
import pytest

from postclick.calibration.weights import inverse_propensity
from postclick.data.arrays import Labels
from postclick.errors import DataError


def test_by_hand_with_the_floor_relative_to_the_click_rate():
    click = np.array([1, 0, 0, 1], np.int8)
    ctr = np.log(np.array([0.5, 0.25, 0.01, 0.04]) / (1 - np.array([0.5, 0.25, 0.01, 0.04])))
    # click rate 1/2: nothing under 0.05 is divided by
    assert inverse_propensity(ctr, Labels(click, click)) == pytest.approx([2.0, 4.0, 20.0, 20.0])
    weighted = Labels(click, click, sample_weight=np.array([1.0, 4.0, 4.0, 1.0]))
    assert inverse_propensity(ctr, weighted) == pytest.approx([2.0, 4.0, 50.0, 25.0])


def test_the_logged_one_on_demand():
    click = np.array([1, 0], np.int8)
    logged = Labels(click, click, propensity=np.array([0.2, 0.8]))
    assert inverse_propensity(np.zeros(2), logged, logged=True) == pytest.approx([5.0, 1.25])
    with pytest.raises(DataError, match="logged propensities"):
        inverse_propensity(np.zeros(2), Labels(click, click), logged=True)
