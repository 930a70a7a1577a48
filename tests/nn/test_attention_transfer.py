"""The transfer against its equations, and at the points where it is known."""

import math

import pytest
import torch

from postclick.nn.attention_transfer import AttentionTransfer


def random_transfer(width=4, bias=False):
    torch.manual_seed(0)
    transfer = AttentionTransfer(width, bias=bias)
    for parameter in transfer.parameters():
        torch.nn.init.normal_(parameter)
    return transfer


@pytest.mark.parametrize("bias", [False, True])
def test_forward_row_by_row(bias):
    transfer = random_transfer(bias=bias)
    previous, own = torch.randn(5, 4), torch.randn(5, 4)
    z, weights = transfer(previous, own)
    for row in range(5):
        scores, values = [], []
        for u in (previous[row], own[row]):
            query, key = transfer.query(u), transfer.key(u)
            scores.append(
                math.exp(sum(q * k for q, k in zip(query.tolist(), key.tolist(), strict=True)) / math.sqrt(4))
            )
            values.append(transfer.value(u))
        shares = [score / sum(scores) for score in scores]
        assert weights[row].tolist() == pytest.approx(shares, rel=1e-4)
        torch.testing.assert_close(z[row], shares[0] * values[0] + shares[1] * values[1], rtol=1e-4, atol=1e-5)


def test_equal_scores_and_the_identity_give_the_mean():
    transfer = AttentionTransfer(4)
    with torch.no_grad():
        transfer.value.weight.copy_(torch.eye(4))
        transfer.query.weight.zero_()  # every score is 0
    previous, own = torch.randn(5, 4), torch.randn(5, 4)
    z, weights = transfer(previous, own)
    torch.testing.assert_close(z, (previous + own) / 2)
    torch.testing.assert_close(weights, torch.full((5, 2), 0.5))


def test_all_attention_on_one_side_gives_that_side():
    transfer = AttentionTransfer(2)
    with torch.no_grad():
        for linear in (transfer.value, transfer.query, transfer.key):
            linear.weight.copy_(torch.eye(2))
    previous, own = torch.tensor([[9.0, 9.0]]), torch.tensor([[1.0, 0.0]])
    z, weights = transfer(previous, own)
    torch.testing.assert_close(z, previous)
    assert weights.tolist() == [[1.0, 0.0]]


def test_starts_small_and_without_bias():
    transfer = AttentionTransfer(64)
    assert [name for name, _ in transfer.named_parameters()] == ["value.weight", "query.weight", "key.weight"]
    for parameter in transfer.parameters():
        assert parameter.std().item() == pytest.approx(0.01, rel=0.1)
    assert not torch.equal(transfer.query.weight, transfer.key.weight)
    assert AttentionTransfer(4, bias=True).value.bias.tolist() == [0.0] * 4
