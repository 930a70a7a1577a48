"""Features know their number of rows and can swap their rows."""

import torch

from postclick.nn.features import Features


def test_with_rows_changes_nothing_else():
    features = Features(torch.zeros(3, 2, dtype=torch.int32), torch.ones(3, 1), torch.ones(3, 0))
    other = features.with_rows(torch.ones(3, 2, dtype=torch.int32))
    assert len(other) == 3
    assert other.dense is features.dense
    assert torch.all(features.rows == 0)
    assert torch.all(other.rows == 1)
