"""Target attention against one value at a time, its gradients, and what it must not depend on."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

from postclick.nn.attention import TargetAttention
from postclick.nn.embedding import FeatureEncoder, use_sparse_gradients
from postclick.nn.features import Features, Sequence
from postclick.nn.tower import Head, Perceptron, Tower
from postclick.schema import Schema, SequenceFeature, SparseFeature

SIZE = 3


def ragged(lengths, weighted=False, seed=0):
    """A sequence of the given lengths; its values are not read by the module, only their embeddings are."""
    offsets = torch.tensor(np.r_[0, np.cumsum(lengths)].astype(np.int64))
    generator = torch.Generator().manual_seed(seed)
    weights = torch.rand(sum(lengths), generator=generator) * 2 if weighted else None
    return Sequence(torch.zeros(sum(lengths), dtype=torch.int32), offsets, weights)


def inputs(lengths, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(sum(lengths), SIZE, generator=generator, dtype=dtype)
    return values, torch.randn(len(lengths), SIZE, generator=generator, dtype=dtype)


def module(seed=0, hidden=5):
    """Weights far from the start, biases too."""
    attention, generator = TargetAttention(SIZE, hidden), torch.Generator().manual_seed(seed)
    for parameter in attention.parameters():
        torch.nn.init.normal_(parameter, generator=generator)
    return attention


def by_loop(attention, values, target, sequence):
    """The equation as it is written: four blocks side by side, one value at a time, in float64."""
    first, bias, last, constant = (parameter.detach().double().numpy() for parameter in attention.parameters())
    values, target = values.detach().double().numpy(), target.detach().double().numpy()
    out = np.zeros((len(target), SIZE))
    for row in range(len(target)):
        for place in range(sequence.offsets[row], sequence.offsets[row + 1]):
            own, other = values[place], target[row]
            hidden = np.maximum(first @ np.concatenate([own, other, own - other, own * other]) + bias, 0)
            weight = 1.0 if sequence.weights is None else sequence.weights[place].item()
            out[row] += weight * (last[0] @ hidden + constant[0]) * own
    return out


@given(st.lists(st.integers(0, 5), min_size=1, max_size=6), st.booleans())
@settings(max_examples=40, deadline=None)
def test_any_lengths_equal_a_plain_loop(lengths, weighted):
    attention, sequence = module(), ragged(lengths, weighted)
    values, target = inputs(lengths)
    out = attention(values, target, sequence)
    assert out.shape == (len(lengths), SIZE)
    np.testing.assert_allclose(out.detach().numpy(), by_loop(attention, values, target, sequence), atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("weighted", [False, True])
def test_gradients_by_finite_differences(weighted):
    lengths = (2, 0, 3)
    attention, sequence = module().double(), ragged(lengths, weighted)
    values, target = (tensor.requires_grad_() for tensor in inputs(lengths, dtype=torch.float64))

    def forward(values, target, *parameters):
        named = dict(zip(dict(attention.named_parameters()), parameters, strict=True))
        return torch.func.functional_call(attention, named, (values, target, sequence))

    assert torch.autograd.gradcheck(forward, (values, target, *attention.parameters()))


def test_an_empty_sequence_is_the_zero_vector_and_gives_no_gradient():
    attention, lengths = module(), (0, 2, 0)
    values, target = inputs(lengths)
    target.requires_grad_()
    out = attention(values, target, ragged(lengths))
    assert torch.all(out[[0, 2]] == 0)
    out.sum().backward()
    assert torch.all(target.grad[[0, 2]] == 0)
    assert torch.any(target.grad[1] != 0)
    assert attention(*inputs((0, 0)), ragged((0, 0))).shape == (2, SIZE)
    assert attention(*inputs(()), ragged(())).shape == (0, SIZE)


def test_the_order_of_a_row_does_not_matter_but_its_target_does():
    attention, lengths = module(), (4, 3)
    values, target = inputs(lengths)
    sequence = ragged(lengths, weighted=True)
    order = torch.tensor([2, 0, 3, 1, 6, 5, 4])
    shuffled = dataclasses.replace(sequence, weights=sequence.weights[order])
    out = attention(values, target, sequence)
    torch.testing.assert_close(attention(values[order], target, shuffled), out, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(attention(values, target.flip(0), sequence), out)


def test_a_row_does_not_depend_on_its_neighbours():
    attention, lengths = module(), (3, 0, 5, 1)
    values, target = inputs(lengths)
    together, start = attention(values, target, ragged(lengths)), 0
    for row, length in enumerate(lengths):
        alone = attention(values[start : start + length], target[row : row + 1], ragged((length,)))
        torch.testing.assert_close(alone[0], together[row], rtol=1e-5, atol=1e-5)
        start += length


def test_a_value_of_weight_zero_is_absent():
    attention = module()
    values, target = inputs((3,))
    padded = Sequence(torch.zeros(3, dtype=torch.int32), torch.tensor([0, 3]), torch.tensor([1.0, 1.0, 0.0]))
    torch.testing.assert_close(attention(values, target, padded), attention(values[:2], target, ragged((2,))))


def test_it_starts_as_sum_pooling_and_every_parameter_moves():
    torch.manual_seed(0)
    attention, lengths = TargetAttention(SIZE), (4, 2)
    values, target = (0.05 * tensor for tensor in inputs(lengths))
    out = attention(values, target, ragged(lengths))
    expected = torch.stack([values[:4].sum(0), values[4:].sum(0)])
    torch.testing.assert_close(out, expected, rtol=0.3, atol=1e-3)
    out.sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in attention.parameters())


def matching(rows, seed):
    """Rows whose label is likely where the history holds the item, each under a table row of its own."""
    random, items = np.random.default_rng(seed), 20
    lengths = random.integers(0, 6, rows)
    offsets = np.r_[0, np.cumsum(lengths)]
    history, item = random.integers(0, items, offsets[-1]), random.integers(0, items, rows)
    plant = (lengths > 0) & (random.random(rows) < 0.4)
    history[offsets[:-1][plant]] = item[plant]
    hit = np.bincount(np.repeat(np.arange(rows), lengths), weights=history == np.repeat(item, lengths), minlength=rows)
    label = random.random(rows) < np.where(hit > 0, 0.8, 0.2)
    values, item = torch.tensor(history + items + 2, dtype=torch.int32), torch.tensor(item + 2, dtype=torch.int32)
    none = torch.zeros(rows, 0)
    return Features(item[:, None], none, none, (Sequence(values, torch.tensor(offsets)),)), torch.tensor(label).float()


def learned(pooling):
    """Log-loss on fresh rows after a short training."""
    torch.manual_seed(0)
    history = SequenceFeature("history", pooling=pooling, target="item" if pooling == "target-attention" else None)
    encoder = FeatureEncoder(Schema((SparseFeature("item"), history)), 42, 8)
    use_sparse_gradients(encoder, False)
    model = nn.Sequential(encoder, Perceptron(encoder.width, Tower((16,), (0.0,))), Head(16, 0.4))
    optimiser = torch.optim.Adam(model.parameters(), lr=0.02)
    for step in range(150):
        batch, label = matching(256, step)
        optimiser.zero_grad()
        binary_cross_entropy_with_logits(model(batch), label).backward()
        optimiser.step()
    batch, label = matching(4000, 1000)
    with torch.no_grad():
        return binary_cross_entropy_with_logits(model(batch), label).item()


def test_it_learns_to_look_for_the_target_where_a_sum_does_not():
    assert learned("target-attention") < learned("sum") - 0.02
