"""Losses a row against plain float64 loops."""

import math

import pytest
import torch

from postclick.losses.entire_space import click_loss, clicked_conversion_loss, joint_loss
from postclick.losses.probability import LogProbability

CLICK = [0.0, 1.0, 1.0, 0.0]
CONVERSION = [0.0, 0.0, 1.0, 1.0]  # the last is a view-through that must never count
LOGITS = [-1.5, 0.3, 2.0, 0.7]


def entropy(label, logit):
    p = 1 / (1 + math.exp(-logit))
    return -math.log(p) if label else -math.log(1 - p)


@pytest.fixture
def head():
    return LogProbability.from_logit(torch.tensor(LOGITS, dtype=torch.float64))


def test_click_loss(head):
    expected = [entropy(o, x) for o, x in zip(CLICK, LOGITS, strict=True)]
    assert click_loss(head, torch.tensor(CLICK)).tolist() == pytest.approx(expected)


def test_joint_loss_counts_a_conversion_only_with_its_click(head):
    expected = [entropy(o * r, x) for o, r, x in zip(CLICK, CONVERSION, LOGITS, strict=True)]
    found = joint_loss(head, torch.tensor(CLICK), torch.tensor(CONVERSION))
    assert found.tolist() == pytest.approx(expected)
    assert found[3].item() != pytest.approx(entropy(1, LOGITS[3]))


def test_clicked_conversion_loss_is_zero_off_the_clicks(head):
    expected = [o * entropy(r, x) for o, r, x in zip(CLICK, CONVERSION, LOGITS, strict=True)]
    found = clicked_conversion_loss(head, torch.tensor(CLICK), torch.tensor(CONVERSION))
    assert found.tolist() == pytest.approx(expected)
    assert found[0].item() == found[3].item() == 0.0
