"""Pairs (log p, log(1 - p)) against plain float64 formulas, finite differences, and the far ends."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from postclick.losses.probability import LogProbability, log1mexp

LOGITS = np.linspace(-6, 6, 25)
FAR = torch.tensor([-1e4, -300.0, -88.0, -1e-8, 0.0, 1e-8, 17.0, 88.0, 300.0, 1e4])


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def pair(logits, dtype=torch.float64):
    return LogProbability.from_logit(torch.tensor(logits, dtype=dtype))


def assert_is(found, probability, tolerance=1e-9):
    np.testing.assert_allclose(found.log_p.numpy(), np.log(probability), rtol=tolerance)
    np.testing.assert_allclose(found.log_not_p.numpy(), np.log(1 - probability), rtol=tolerance)


def test_from_logit():
    assert_is(pair(LOGITS), sigmoid(LOGITS))


def test_product():
    a, b = (grid.flatten() for grid in np.meshgrid(LOGITS, LOGITS))
    assert_is(pair(a) * pair(b), sigmoid(a) * sigmoid(b), 1e-8)


def test_quotient_and_its_clip():
    assert_is(
        pair([-3.0, -1.0]).quotient(pair([-1.0, 2.0])), sigmoid(np.array([-3.0, -1.0])) / sigmoid(np.array([-1.0, 2.0]))
    )
    over = pair([2.0]).quotient(pair([-2.0]))
    assert over.log_p.item() == -1e-6
    assert over.log_not_p.item() == pytest.approx(np.log(1e-6), rel=1e-6)


def test_cross_entropy_of_hard_and_soft_labels():
    label = np.linspace(0, 1, len(LOGITS))
    p = sigmoid(LOGITS)
    expected = -(label * np.log(p) + (1 - label) * np.log(1 - p))
    np.testing.assert_allclose(pair(LOGITS).cross_entropy(torch.tensor(label)).numpy(), expected, rtol=1e-9)


@given(st.floats(-700, -1e-12))
def test_log1mexp(log_p):
    found = log1mexp(torch.tensor(log_p, dtype=torch.float64)).item()
    expected = np.log(-np.expm1(log_p)) if log_p > -0.7 else np.log1p(-np.exp(log_p))
    assert found == pytest.approx(expected, rel=1e-12, abs=1e-300)


@pytest.mark.parametrize("label", [0.0, 1.0, 0.3])
def test_gradients_equal_finite_differences(label):
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(12, generator=generator, dtype=torch.float64, requires_grad=True) for _ in range(2))

    def product(x, y):
        return (LogProbability.from_logit(x) * LogProbability.from_logit(y)).cross_entropy(torch.tensor(label))

    def quotient(x, y):
        part = LogProbability.from_logit(x) * LogProbability.from_logit(y)
        return part.quotient(LogProbability.from_logit(x)).cross_entropy(torch.tensor(label))

    assert torch.autograd.gradcheck(product, (a, b))
    assert torch.autograd.gradcheck(quotient, (a, b))


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_values_and_gradients_are_finite_to_ten_thousand(label):
    x, y = (grid.flatten().requires_grad_() for grid in torch.meshgrid(FAR, FAR, indexing="ij"))
    p, q = LogProbability.from_logit(x), LogProbability.from_logit(y)
    for head in (p, p * q, p * q * q, q.quotient(p), (p * q).quotient(p)):
        loss = head.cross_entropy(torch.tensor(label))
        gradients = torch.autograd.grad(loss.sum(), (x, y), retain_graph=True, allow_unused=True)
        assert torch.isfinite(loss).all()
        assert all(torch.isfinite(gradient).all() for gradient in gradients if gradient is not None)
        assert torch.all(head.log_p <= 0)
        assert torch.all(head.log_not_p <= 2e-7)  # logaddexp rounds to one float32 step past 0


def test_the_clamped_product_of_sigmoids_would_fail_there():
    x = torch.tensor([-120.0], requires_grad=True)
    naive = torch.log(torch.clamp(torch.sigmoid(x) * torch.sigmoid(x), 1e-7, 1 - 1e-7))
    naive.sum().backward()
    assert x.grad.item() == 0.0  # the clamp swallows the gradient; the pair keeps it:
    y = torch.tensor([-120.0], requires_grad=True)
    (LogProbability.from_logit(y) * LogProbability.from_logit(y)).log_p.sum().backward()
    assert y.grad.item() == pytest.approx(2.0)


def test_a_product_never_exceeds_its_factors():
    x, y = (grid.flatten() for grid in torch.meshgrid(FAR, FAR, indexing="ij"))
    p = LogProbability.from_logit(x)
    product = p * LogProbability.from_logit(y)
    assert torch.all(product.log_p <= p.log_p)
    assert torch.all(product.log_not_p >= p.log_not_p)


def test_detach_keeps_the_numbers():
    x = torch.randn(5, requires_grad=True)
    head = LogProbability.from_logit(x)
    assert torch.equal(head.detach().log_p, head.log_p)
    assert not head.detach().log_p.requires_grad
    assert not head.detach().log_not_p.requires_grad
