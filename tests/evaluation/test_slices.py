import numpy as np

from postclick.data.arrays import Labels
from postclick.data.scores import Scores
from postclick.evaluation.rows import EvaluationRows
from postclick.evaluation.slices import MOST_VALUES, left_out, slice_masks


def rows(count, **parts):
    label = np.zeros(count, np.int8)
    return EvaluationRows(Labels(label, label), Scores({"ctr": np.zeros(count)}, {}), **parts)


def test_largest_values_first_and_cold_slices():
    cold = np.array([True, False, False, False])
    masks = {"cold_item": cold, "cold_user": ~cold, "new_pair": cold}
    found = dict(slice_masks(rows(4, slices={"day": np.array([3, 1, 1, 2])}, **masks)))
    assert list(found) == ["day=1", "day=2", "day=3", "cold-item", "cold-user", "new-pair"]
    assert found["new-pair"].tolist() == cold.tolist()
    assert found["day=1"].tolist() == [False, True, True, False]
    assert found["cold-item"].tolist() == cold.tolist()


def test_the_number_of_values_is_capped_and_the_rest_counted():
    many = rows(100, slices={"city": np.arange(100) % 30, "day": np.zeros(100)})
    assert sum(name.startswith("city=") for name, _ in slice_masks(many)) == MOST_VALUES
    assert left_out(many) == {"city": 30 - MOST_VALUES}


def test_values_are_printable():
    found = dict(slice_masks(rows(1, slices={"city": np.array(["a\x1b[31m"], object)})))
    assert list(found) == ["city=a\\x1b[31m"]
