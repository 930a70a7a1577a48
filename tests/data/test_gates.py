import numpy as np

from postclick.data.gates import GateTotals


def test_totals_of_consecutive_rows_add_up():
    one = GateTotals(2, np.array([1.5, 0.5]), np.array([2, 0]), 0.25)
    two = GateTotals(1, np.array([0.25, 0.75]), np.array([0, 1]), 0.5)
    both = one + two
    assert both.rows == 3
    assert both.weight.tolist() == [1.75, 1.25]
    assert both.top.tolist() == [2, 1]
    assert both.entropy == 0.75
