"""Eq. 2: embeddings side by side."""

from __future__ import annotations

import numpy as np
import pytest

from postclick.errors import ConfigError
from postclick.structure.representations import representations


def test_each_entity_is_its_features_rows_side_by_side():
    table = np.arange(12, dtype=np.float32).reshape(6, 2)
    features = np.array([[0, 5], [3, 3], [4, 1]], np.int32)
    expected = [[0, 1, 10, 11], [6, 7, 6, 7], [8, 9, 2, 3]]
    np.testing.assert_array_equal(representations(table, features), expected)
    half = representations(table, features, dtype=np.float16)
    assert half.dtype == np.float16
    np.testing.assert_array_equal(half, expected)
    assert representations(table, features[:0]).shape == (0, 4)


@pytest.mark.parametrize("row", [-1, 6])
def test_a_feature_outside_the_table_is_refused(row):
    with pytest.raises(ConfigError, match="the table has 6"):
        representations(np.zeros((6, 2), np.float32), np.array([[0, row]]))
