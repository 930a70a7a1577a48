"""The graph's products and the three ways to keep entity vectors, against dense float64."""

import dataclasses

import numpy as np
import pytest
import torch

from postclick.nn import entities
from postclick.nn.entities import EntityGraph, EntityIds, EntityShift, EntityTable, mix_rows

N, M, SIZE, TABLE_ROWS, FIELDS = 9, 3, 2, 60, 5
PLACES = (2, 0, 3)
"""The id is the row's third sparse field; fields 1 and 4 are not the entity's."""
LONELY = 4


def dense_graph(seed=0, isolated=(LONELY,)):
    rng = np.random.default_rng(seed)
    g = rng.random((N, N)) * (rng.random((N, N)) < 0.4)
    np.fill_diagonal(g, 0.0)
    g[:, 0] += 0.1
    g[0, 0], g[0, 1] = 0.0, 0.3
    g[list(isolated)] = 0.0
    return g


def arrays(g, seed=1, fields=M):
    """The artefact: ids are rows 10, 12, ..; other fields have few values, shared by many."""
    rng = np.random.default_rng(seed)
    rows, columns = np.nonzero(g)
    entity = np.arange(10, 10 + 2 * len(g), 2, dtype=np.int32)
    others = rng.integers(40, 44, (len(g), fields - 1)).astype(np.int32)
    return {
        "entity": entity,
        "features": np.concatenate([entity[:, None], others], axis=1),
        "indptr": np.r_[0, np.cumsum(np.bincount(rows, minlength=len(g)))].astype(np.int64),
        "indices": columns.astype(np.int32),
        "values": g[rows, columns].astype(np.float32),
    }


@pytest.fixture
def graph():
    return EntityGraph.from_arrays(arrays(dense_graph()))


def table(seed=2):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(TABLE_ROWS, SIZE)))


def mixed(x, gamma, layers, g=None):
    """(1 - gamma) x + gamma G^L x, dense, rows without a neighbour as they were."""
    g = dense_graph().astype(np.float32).astype(np.float64) if g is None else g
    result = (1 - gamma) * x + gamma * np.linalg.matrix_power(g, layers) @ x
    lonely = ~g.any(axis=1)
    result[lonely] = x[lonely]
    return result


def concatenated(weight, features):
    return weight.numpy()[features].reshape(len(features), -1)


def kept(kind, graph, entities=N + 3):
    vectors = kind(PLACES, SIZE, *(() if kind is EntityIds else (entities, TABLE_ROWS))).double()
    vectors.attach(graph)
    return vectors


# --- the graph -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_propagation_is_a_power_of_the_dense_matrix(graph, layers):
    g, x = dense_graph(), np.random.default_rng(3).normal(size=(N, 4))
    found = graph.to(torch.zeros(0).double()).propagate(torch.from_numpy(x), layers)
    np.testing.assert_allclose(found.numpy(), np.linalg.matrix_power(g, layers) @ x, rtol=1e-6, atol=1e-7)
    assert graph.to(torch.zeros(0)).propagate(torch.from_numpy(x).float(), layers).dtype == torch.float32


def test_linked_entities_are_those_with_a_neighbour_that_counts():
    g = dense_graph(isolated=(4, 7))
    assert EntityGraph.from_arrays(arrays(g)).linked().tolist() == [index not in (4, 7) for index in range(N)]
    none = EntityGraph.from_arrays(arrays(np.zeros((N, N))))
    assert not none.linked().any()
    zeros = dataclasses.replace(EntityGraph.from_arrays(arrays(g)), values=torch.zeros(int((g != 0).sum())))
    assert not zeros.linked().any()


def check_moves(move):
    g, x = dense_graph(), np.random.default_rng(3).normal(size=(N, SIZE))
    graph = EntityGraph.from_arrays(arrays(g)).to(torch.zeros(0).double())
    found = x + move(graph, torch.from_numpy(x), graph.linked(), 0.3, 1).numpy()
    np.testing.assert_allclose(found, mixed(x, 0.3, 1), rtol=1e-6)
    np.testing.assert_array_equal(found[LONELY], x[LONELY])


def test_rows_move_towards_their_neighbours_and_lonely_ones_stay():
    check_moves(mix_rows)


def test_a_lonely_row_that_shrinks_and_gamma_the_other_way_are_told():
    with pytest.raises(AssertionError):  # D^-1/2 := 0 gives a row of 0: (1 - gamma) x
        check_moves(lambda graph, x, linked, gamma, layers: mix_rows(graph, x, torch.ones_like(linked), gamma, layers))
    with pytest.raises(AssertionError):
        check_moves(lambda graph, x, linked, gamma, layers: mix_rows(graph, x, linked, 1 - gamma, layers))


@pytest.mark.parametrize("kind", [EntityIds, EntityShift, EntityTable])
def test_a_graph_of_one_lonely_entity_moves_nothing(kind):
    graph = EntityGraph.from_arrays(arrays(np.zeros((1, 1))))
    vectors, weight = kept(kind, graph), table()
    vectors.start(graph, weight)
    before = [tensor.clone() for tensor in (weight, *vectors.state_dict().values())]
    vectors.mix(graph, weight, 0.5, 2)
    assert all(torch.equal(a, b) for a, b in zip((weight, *vectors.state_dict().values()), before, strict=True))


@pytest.mark.parametrize(
    "change", [{"indptr": np.zeros(3, np.int64)}, {"features": np.zeros((2, 2), np.int32)}, {"values": np.zeros(1)}]
)
def test_arrays_that_do_not_fit_together_are_refused(change):
    with pytest.raises(ValueError, match="not a graph over entities"):
        EntityGraph.from_arrays(arrays(dense_graph()) | change)


def test_the_artefact_is_copied(graph):
    given = arrays(dense_graph())
    for array in given.values():
        array.setflags(write=False)
    assert torch.equal(EntityGraph.from_arrays(given).values, graph.values)


# --- where the vectors live ------------------------------------------------------------------------------------------


def batch(graph, rng):
    """Rows of known ids, of the unknown row and of an id that the graph does not know, with features of their own."""
    ids = np.r_[graph.entity.numpy(), 0, 11]
    rows = rng.integers(40, 44, (len(ids), FIELDS))
    rows[:, PLACES[0]] = ids
    return torch.from_numpy(rows.astype(np.int32))


def test_shift_adds_what_the_entity_moved_by(graph):
    rng, weight, vectors = np.random.default_rng(5), table(), kept(EntityShift, graph)
    rows = batch(graph, rng)
    fields = torch.from_numpy(rng.normal(size=(len(rows), FIELDS + 1, SIZE)))  # a pooled sequence comes last
    assert torch.equal(vectors(fields, rows), fields)
    d = torch.from_numpy(rng.normal(size=(N, M * SIZE)))
    vectors.shift[1 : N + 1] = d
    expected = fields.clone()
    for row in range(N):
        for field, place in enumerate(PLACES):
            expected[row, place] += d[row, field * SIZE : (field + 1) * SIZE]
    torch.testing.assert_close(vectors(fields, rows), expected, rtol=0, atol=0)
    assert torch.equal(weight, table())


@pytest.mark.parametrize("layers", [1, 2])
def test_shift_is_the_recursion_of_reading_e(graph, layers):
    """d <- (1 - gamma)(c + d) + gamma G^L (c + d) - c, twice, the table moving in between."""
    vectors, d = kept(EntityShift, graph), np.zeros((N, M * SIZE))
    for seed in (2, 3):
        c = concatenated(table(seed), graph.features.numpy())
        d = mixed(c + d, 0.3, layers) - c
        weight = table(seed)
        vectors.mix(graph, weight, 0.3, layers)
        np.testing.assert_allclose(vectors.shift[1 : N + 1].numpy(), d, rtol=1e-6, atol=1e-7)
        assert torch.equal(weight, table(seed))
    assert not vectors.shift[1 + LONELY].any()
    assert not vectors.shift[0].any()
    assert not vectors.shift[N + 1 :].any()


def test_shift_without_gamma_stays_0_bit_for_bit(graph):
    vectors = kept(EntityShift, graph)
    for seed in (2, 3):
        vectors.mix(graph, table(seed), 0.0, 1)
    assert torch.equal(vectors.shift, torch.zeros_like(vectors.shift))
    assert not torch.signbit(vectors.shift).any()


@pytest.mark.parametrize("layers", [1, 2])
def test_table_starts_from_the_shared_rows_and_is_mixed(graph, layers):
    vectors, weight = kept(EntityTable, graph), table()
    vectors.start(graph, weight)
    c = concatenated(weight, graph.features.numpy())
    np.testing.assert_array_equal(vectors.table.weight[1 : N + 1].detach().numpy(), c)
    vectors.mix(graph, weight, 0.3, layers)
    np.testing.assert_allclose(vectors.table.weight[1 : N + 1].detach().numpy(), mixed(c, 0.3, layers), rtol=1e-6)
    assert torch.equal(weight, table())


def test_table_is_read_by_the_entities_it_knows_and_learns_from_them_alone(graph):
    rng, vectors = np.random.default_rng(5), kept(EntityTable, graph)
    vectors.table.sparse = False
    rows = batch(graph, rng)
    fields = torch.from_numpy(rng.normal(size=(len(rows), FIELDS, SIZE))).requires_grad_()
    with torch.no_grad():
        vectors.table.weight.normal_()
    found = vectors(fields, rows)
    expected = fields.detach().clone()
    own = vectors.table.weight.detach().view(-1, M, SIZE)
    for row in range(N):
        expected[row, list(PLACES)] = own[row + 1]
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    found.sum().backward()
    assert torch.equal(
        vectors.table.weight.grad.abs().sum(1) > 0, torch.tensor([0, *[1] * N, 0, 0, 0], dtype=torch.bool)
    )
    shared = torch.ones(len(rows), FIELDS, SIZE, dtype=torch.float64)
    shared[:N, list(PLACES)] = 0.0
    torch.testing.assert_close(fields.grad, shared)


@pytest.mark.parametrize("layers", [1, 2])
def test_ids_alone_are_mixed_in_the_shared_table(graph, layers):
    vectors, weight = kept(EntityIds, graph), table()
    rows = batch(graph, np.random.default_rng(5))
    fields = torch.zeros(len(rows), FIELDS, SIZE)
    assert vectors(fields, rows) is fields
    vectors.mix(graph, weight, 0.3, layers)
    expected, ids = table().numpy(), graph.entity.numpy()
    expected[ids] = mixed(expected[ids], 0.3, layers)
    np.testing.assert_allclose(weight.numpy(), expected, rtol=1e-6)
    others = np.setdiff1d(np.arange(TABLE_ROWS), ids)
    np.testing.assert_array_equal(weight.numpy()[others], table().numpy()[others])
    assert not vectors.state_dict()


@pytest.mark.parametrize("kind", [EntityIds, EntityShift, EntityTable])
def test_a_graph_of_another_log_is_refused(kind, graph):
    with pytest.raises(ValueError, match="entities have 3 fields, those of the graph 2"):
        kept(kind, EntityGraph.from_arrays(arrays(dense_graph(), fields=2)))
    if kind is not EntityIds:
        with pytest.raises(ValueError, match="at most 8 entities, the graph has 9"):
            kept(kind, graph, entities=N - 1)


@pytest.mark.parametrize("places", [(0, 1, 2, 3, 4), (2, 0, 3), (4, 3, 2), (1,), (0, 1, 3, 4), (3, 4, 0, 1)])
def test_stretches_cover_each_place_once_in_order(places):
    covered = [
        (index, place + index - first) for first, last, place in entities._runs(places) for index in range(first, last)
    ]
    assert covered == list(enumerate(places))
