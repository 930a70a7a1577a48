"""ES-DFM: which clicks are history, which are told, and which are told again."""

import dataclasses

import numpy as np
import pytest
import torch

from postclick.models.base import Batch, Delays
from postclick.models.es_dfm import ESDFM
from postclick.schema import Columns

# age of the click, its delay (0: none seen), its label; window 4 days, wait 0.4, a log of 10 days: a stream of 6
CLICKS = (
    (0.2, 0.0, 0),  # younger than the wait: not told yet
    (0.2, 0.1, 1),  # nor is one that has converted
    (2.0, 0.0, 0),  # told without
    (2.0, 0.3, 1),  # told with
    (2.0, 1.0, 1),  # told without, then with
    (6.4, 0.0, 0),  # the oldest that the stream told
    (6.5, 0.0, 0),  # history, without
    (6.5, 0.2, 1),  # history, with
    (7.0, 2.0, 1),  # history, and told again within the stream
    (9.0, 0.5, 1),  # history; told again before the stream began
)
POSITIVES = (0, 0, 0, 1, 1, 0, 0, 0, 1, 0)
NEGATIVES = (0, 0, 1, 0, 1, 1, 0, 0, 0, 0)
HISTORY = (0, 0, 0, 0, 0, 0, 1, 1, 1, 1)


@pytest.fixture
def given(spec):
    columns = Columns(
        click_time="c", conversion_time="b", observed_until="u", attribution_window=4 * 86_400.0, immature="censor"
    )
    spec = dataclasses.replace(spec, schema=dataclasses.replace(spec.schema, columns=columns), days=10.0)
    age, delay, label = (torch.tensor(column, dtype=torch.float32) for column in zip(*CLICKS, strict=True))
    delays = Delays(elapsed=age, delay=delay, immature=(age < 4).float())
    return spec, Batch(None, click=torch.ones_like(age), conversion=label, delays=delays)


def test_what_is_told(given):
    spec, batch = given
    told = ESDFM(spec)._told(batch, batch.conversion)
    assert tuple(told.positives.int().tolist()) == POSITIVES
    assert tuple(told.negatives.int().tolist()) == NEGATIVES
    assert tuple(told.history.int().tolist()) == HISTORY
    assert told.late.int().tolist() == [0, 0, 0, 0, 1, 0, 0, 0, 1, 1]


def test_a_log_without_times_is_history(spec, exposures):
    model, (none, one) = ESDFM(spec), (torch.zeros(3), torch.ones(3))
    told = model._told(Batch(None, click=one, conversion=one), one)
    assert (told.history == 1).all()
    assert (told.positives == 0).all()
    assert (told.late == none).all()


def test_a_log_shorter_than_its_window_teaches_no_conversion(given):
    spec, batch = given
    told = ESDFM(dataclasses.replace(spec, days=3.0))._told(
        dataclasses.replace(batch, delays=dataclasses.replace(batch.delays, immature=torch.ones(10))), batch.conversion
    )
    assert not (told.history > 0).any()
    assert not (told.negatives > 0).any()


def test_a_wait_is_a_share_of_the_window(spec):
    for wait in (0.0, 1.0, -0.1, np.nan):
        with pytest.raises(ValueError, match="a wait is a share of the window"):
            ESDFM(spec, wait=wait)
