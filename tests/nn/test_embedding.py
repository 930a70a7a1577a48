"""The fused table against plain loops; sparse and dense gradients agree."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from postclick.nn.embedding import FeatureEncoder, FusedEmbedding, fill_unknown_rows, use_sparse_gradients
from postclick.nn.features import Features, Sequence
from postclick.nn.interaction import Interaction
from postclick.schema import DenseFeature, EmbeddingFeature, Schema, SequenceFeature, SparseFeature

ROWS = 30


def features(lists=(), weights=(), batch=4, seed=0):
    """B rows of 2 sparse fields and the given sequences."""
    rng = np.random.default_rng(seed)
    sequences = []
    for values, weight in zip(lists, weights, strict=True):
        offsets = torch.tensor(np.r_[0, np.cumsum([len(row) for row in values])], dtype=torch.int64)
        flat = torch.tensor([value for row in values for value in row], dtype=torch.int32)
        held = None if weight is None else torch.tensor([w for row in weight for w in row], dtype=torch.float32)
        sequences.append(Sequence(flat, offsets, held))
    rows = torch.tensor(rng.integers(0, ROWS, (batch, 2)), dtype=torch.int32)
    return Features(rows, torch.zeros(batch, 0), torch.zeros(batch, 0), tuple(sequences))


def by_loop(weight, batch, pooling):
    """One row, one field, one value at a time, in float64."""
    table = weight.detach().double().numpy()
    out = np.zeros((len(batch), batch.rows.shape[1] + len(batch.sequences), table.shape[1]))
    for row in range(len(batch)):
        for field in range(batch.rows.shape[1]):
            out[row, field] = table[batch.rows[row, field]]
        for index, sequence in enumerate(batch.sequences):
            total, vector = 0.0, np.zeros(table.shape[1])
            for place in range(sequence.offsets[row], sequence.offsets[row + 1]):
                w = 1.0 if sequence.weights is None else sequence.weights[place].item()
                vector += w * table[sequence.values[place]]
                total += w
            if pooling[index] == "mean" and total != 0:
                vector = vector / total
            out[row, batch.rows.shape[1] + index] = vector
    return out


LISTS = ([[3, 4, 5], [], [7], [7, 7]], [[], [], [9, 1], [2]], [[1], [2], [3], [4]])
WEIGHTS = ([[1.0, 2.0, 0.5], [], [3.0], [0.0, 0.0]], None, None)


@pytest.mark.parametrize("pooling", [("mean", "sum", "mean"), ("sum", "mean", "sum")])
def test_forward_equals_a_plain_loop(pooling):
    table = FusedEmbedding(ROWS, 5, unknown_rows=5, pooling=pooling)
    batch = features(LISTS, WEIGHTS)
    out = table(batch)
    assert out.shape == (4, 5, 5)
    np.testing.assert_allclose(out.detach().numpy(), by_loop(table.weight, batch, pooling), atol=1e-6)
    assert torch.all(out[1, 2] == 0)  # an empty list is the zero vector


@given(
    st.lists(st.lists(st.integers(0, ROWS - 1), max_size=4), min_size=1, max_size=6), st.sampled_from(["mean", "sum"])
)
@settings(max_examples=40, deadline=None)
def test_any_list_equals_a_plain_loop(lists, pooling):
    table = FusedEmbedding(ROWS, 3, pooling=(pooling,))
    weights = [[0.5 + value for value in row] for row in lists]
    batch = features([lists], [weights], batch=len(lists))
    np.testing.assert_allclose(table(batch).detach().numpy(), by_loop(table.weight, batch, (pooling,)), atol=1e-5)


def test_without_sequences_it_is_a_gather():
    table = FusedEmbedding(ROWS, 4)
    batch = features()
    assert torch.equal(table(batch), table.weight[batch.rows.long()])


def test_sequences_without_any_value_and_no_rows_at_all():
    table = FusedEmbedding(ROWS, 4, pooling=("mean",))
    assert torch.all(table(features([[[], []]], [None], batch=2))[:, 2] == 0)
    assert table(features([[]], [None], batch=0)).shape == (0, 3, 4)


@pytest.mark.parametrize("weights", [WEIGHTS, (None, None, None)])
def test_sparse_and_dense_gradients_agree(weights):
    table = FusedEmbedding(ROWS, 5, pooling=("mean", "sum", "mean"))
    batch, pull = features(LISTS, weights), torch.randn(4, 5, 5)
    gradients = []
    for on in (True, False):
        use_sparse_gradients(nn.Sequential(table), on)
        table.weight.grad = None
        (table(batch) * pull).sum().backward()
        assert table.weight.grad.is_sparse == on
        gradients.append(table.weight.grad.to_dense() if on else table.weight.grad)
    torch.testing.assert_close(*gradients)
    seen = set(batch.rows.flatten().tolist()) | {v for rows in LISTS for row in rows for v in row}
    assert set(gradients[0].abs().sum(1).nonzero().flatten().tolist()) <= seen


def test_unknown_rows_start_at_zero_and_the_table_says_it_is_one():
    table = FusedEmbedding(ROWS, 4, unknown_rows=3)
    assert torch.all(table.weight[:3] == 0)
    assert torch.all(table.weight[3:].abs().sum(1) > 0)
    assert table.is_table
    with pytest.raises(ValueError, match="an embedding size is at least 1, got 0"):
        FusedEmbedding(ROWS, 0)


def test_fill_unknown_rows_equals_a_plain_loop():
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(12, 3, generator=generator)
    row_field = torch.tensor([0, 1, 2, 3, 0, 0, 1, 1, 2, 0, 1, 3], dtype=torch.int32)  # appended values interleave
    touched = torch.ones(12, dtype=torch.bool)
    touched[[0, 2, 3, 5, 8, 11]] = False  # fields 0, 2, 3 have an untouched unknown row; field 2 and 3 no touched value
    before = weight.clone()
    filled = fill_unknown_rows(weight, row_field, touched)
    assert torch.equal(weight, before)
    expected = weight.clone()
    for field in range(4):
        values = [row for row in range(4, 12) if row_field[row] == field and touched[row]]
        if not touched[field] and values:
            expected[field] = sum(weight[row] for row in values) / len(values)
    torch.testing.assert_close(filled, expected)
    assert not torch.equal(filled[0], weight[0])  # replaced
    assert torch.equal(filled[1], weight[1])  # trained: kept
    assert torch.equal(filled[2:], weight[2:])  # nothing to take a mean of: kept


def test_encoder_puts_everything_side_by_side():
    schema = Schema(
        (
            SparseFeature("user"),
            DenseFeature("age"),
            SequenceFeature("history", pooling="sum"),
            EmbeddingFeature("image", size=3),
            SparseFeature("item"),
        )
    )
    encoder = FeatureEncoder(schema, ROWS, 4)
    lists = features([[[3], [], [7], [7, 8]]], [None])
    batch = Features(lists.rows, torch.randn(4, 1), torch.randn(4, 3), lists.sequences)
    out = encoder(batch)
    assert out.shape == (4, encoder.width) == (4, 3 * 4 + 1 + 3)
    torch.testing.assert_close(out[:, :12].reshape(4, 3, 4), encoder.table(batch))
    assert torch.equal(out[:, 12:13], batch.dense)
    assert torch.equal(out[:, 13:], batch.embeddings)
    assert torch.all(encoder.table.weight[:3] == 0)  # three fields, three unknown rows


ATTENDING = Schema(
    (
        SparseFeature("user"),
        SparseFeature("item"),
        SequenceFeature("history", pooling="target-attention", target="item", weights="recency"),
        SequenceFeature("tags"),
        SequenceFeature("seen", pooling="target-attention", target="user"),
    )
)


def attending(size, interaction=None):
    """An encoder of `ATTENDING` whose unknown rows are not 0, far from its start."""
    torch.manual_seed(0)
    encoder = FeatureEncoder(ATTENDING, ROWS, size, interaction=interaction)
    torch.nn.init.normal_(encoder.table.weight, std=0.5)
    return encoder


def test_encoder_keeps_the_order_of_fields_around_target_attention():
    encoder, batch = attending(4), features(LISTS, WEIGHTS)
    out = encoder(batch).reshape(4, 5, 4)
    table = encoder.table.weight
    assert torch.equal(out[:, :2], table[batch.rows.long()])
    history, tags, seen = batch.sequences
    torch.testing.assert_close(
        out[:, 2], encoder.attention["0"](table[history.values.long()], table[batch.rows[:, 1].long()], history)
    )
    np.testing.assert_allclose(out[2, 3].detach(), table[[9, 1]].mean(0).detach(), atol=1e-6)
    torch.testing.assert_close(
        out[:, 4], encoder.attention["2"](table[seen.values.long()], table[batch.rows[:, 0].long()], seen)
    )
    assert tags.weights is None
    assert torch.all(out[1, 2] == 0)


def test_target_attention_has_equal_sparse_and_dense_gradients():
    encoder, batch, pull = attending(4), features(LISTS, WEIGHTS), torch.randn(4, 20)
    gradients = []
    for on in (True, False):
        use_sparse_gradients(encoder, on)
        encoder.zero_grad()
        (encoder(batch) * pull).sum().backward()
        assert encoder.table.weight.grad.is_sparse == on
        gradients.append([p.grad.to_dense() if p.grad.is_sparse else p.grad for p in encoder.parameters()])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)
        assert one.abs().sum() > 0


@pytest.mark.parametrize("interaction", [None, Interaction("fm"), Interaction("cross", 2, 3)])
def test_encoder_gradients_by_finite_differences_in_double_precision(interaction):
    encoder, batch = attending(2, interaction).double(), features(LISTS, WEIGHTS)
    use_sparse_gradients(encoder, False)

    def forward(*parameters):
        return torch.func.functional_call(encoder, dict(zip(names, parameters, strict=True)), (batch,))

    names = [name for name, _ in encoder.named_parameters()]
    assert forward(*encoder.parameters()).dtype == torch.float64
    assert torch.autograd.gradcheck(forward, tuple(encoder.parameters()))


@pytest.mark.parametrize("interaction", [None, Interaction("fm"), Interaction("cross")])
def test_rows_of_a_batch_do_not_depend_on_each_other(interaction):
    encoder, batch = attending(4, interaction), features(LISTS, WEIGHTS)
    together = encoder(batch)
    for row in range(4):
        weights = tuple(None if weight is None else [weight[row]] for weight in WEIGHTS)
        alone = dataclasses.replace(features([[rows[row]] for rows in LISTS], weights), rows=batch.rows[row : row + 1])
        alone = dataclasses.replace(alone, dense=batch.dense[:1], embeddings=batch.embeddings[:1])
        torch.testing.assert_close(encoder(alone)[0], together[row], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("interaction", [Interaction("fm"), Interaction("cross"), Interaction("cross", 1, 2)])
def test_an_encoder_of_the_meta_device_takes_the_weights_of_another(interaction):
    encoder, batch = attending(4, interaction), features(LISTS, WEIGHTS)
    with torch.device("meta"):
        other = FeatureEncoder(ATTENDING, ROWS, 4, interaction=interaction)
    other.load_state_dict(encoder.state_dict(), assign=True)
    assert torch.equal(other(batch), encoder(batch))


def test_interaction_is_appended_to_the_features():
    schema = Schema((SparseFeature("user"), SparseFeature("item"), DenseFeature("age")))
    batch = dataclasses.replace(features(), dense=torch.randn(4, 1))
    for interaction, wider in ((Interaction("fm"), 3), (Interaction("cross"), 7), (None, 0)):
        torch.manual_seed(0)
        encoder = FeatureEncoder(schema, ROWS, 3, interaction=interaction)
        out, table = encoder(batch), encoder.table.weight
        assert out.shape == (4, encoder.width) == (4, 7 + wider)
        torch.testing.assert_close(out[:, :6], table[batch.rows.long()].flatten(1))
        assert torch.equal(out[:, 6:7], batch.dense)
        if interaction == Interaction("fm"):
            torch.testing.assert_close(out[:, 7:], table[batch.rows[:, 0].long()] * table[batch.rows[:, 1].long()])
        elif interaction is not None:
            torch.testing.assert_close(out[:, 7:], encoder.cross(out[:, :7]))


def test_an_fm_interaction_of_one_field_is_refused():
    with pytest.raises(ValueError, match="an fm interaction needs two fields or more, the schema has 1"):
        FeatureEncoder(Schema((SparseFeature("user"),)), ROWS, 4, interaction=Interaction("fm"))


def test_dense_parameters_are_all_but_the_table():
    assert FeatureEncoder(Schema((SparseFeature("user"),)), ROWS, 4).dense_parameters() == ()
    encoder = FeatureEncoder(ATTENDING, ROWS, 4, interaction=Interaction("cross", 2))
    dense = {id(parameter) for parameter in encoder.dense_parameters()}
    assert dense == {id(p) for p in encoder.parameters()} - {id(encoder.table.weight)}
    assert len(dense) == 2 * 4 + 2 * 2
