"""Weights of a down-sampled log."""

from __future__ import annotations

import numpy as np

from postclick.data.arrays import CENSORED, Labels
from postclick.data.keep import weighed
from postclick.schema import KeepRates

CLICK = np.array([0, 1, 1, 1, 0], np.int8)
CONVERSION = np.array([0, 0, 1, CENSORED, 0], np.int8)
VIEW = np.array([0, 0, 0, 0, 1], np.int8)


def test_by_hand():
    found = weighed(Labels(CLICK, CONVERSION, view_through=VIEW), KeepRates(0.1, 0.5))
    assert found.sample_weight.tolist() == [10.0, 2.0, 1.0, 2.0, 1.0]


def test_logged_weights_are_kept_and_whole_logs_are_left():
    own = np.array([1.0, 2.0, 3.0, 0.0, 1.0])
    labels = Labels(CLICK, CONVERSION, sample_weight=own)
    assert weighed(labels, KeepRates(0.1, 0.5)).sample_weight.tolist() == [10.0, 4.0, 3.0, 0.0, 10.0]
    assert weighed(labels, KeepRates()) is labels
    assert own.tolist() == [1.0, 2.0, 3.0, 0.0, 1.0]
