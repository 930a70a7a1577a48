"""Unknown rows at export."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import torch
from torch import nn

from postclick.data.vocabulary import FieldVocabulary, Vocabulary
from postclick.run.unknown_rows import fill_unknown, row_fields


def vocabulary():
    values, rows = pa.array([10, 20, 30]), np.array([2, 3, 8], np.int32)
    grown = FieldVocabulary("item", 0, "int64", values, rows, np.ones(3, np.int64), 1)
    none = np.zeros(0, np.int32)
    hashed = FieldVocabulary("word", 1, "text", pa.array([], pa.int64()), none, np.zeros(0, np.int64), 1, 4, 4)
    return Vocabulary((grown, hashed), 9)


class Tables(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.arange(9.0).reshape(9, 1).clone())

    def tables(self):
        yield self.weight


def test_rows_that_were_appended_later_belong_to_their_field():
    assert row_fields(vocabulary()).tolist() == [0, 1, 0, 0, 1, 1, 1, 1, 0]


def test_an_untouched_unknown_row_is_the_mean_of_what_its_field_saw():
    model, touched = Tables(), np.zeros(9, bool)
    touched[[1, 2, 8, 4]] = True
    fill_unknown(model, vocabulary(), touched)
    assert model.weight[0, 0].item() == (2.0 + 8.0) / 2
    assert model.weight[1:, 0].tolist() == list(range(1, 9))


def test_touched_unknown_rows_stay():
    model, touched = Tables(), np.ones(9, bool)
    fill_unknown(model, vocabulary(), touched)
    assert model.weight[:, 0].tolist() == list(range(9))
