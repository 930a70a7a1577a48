from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import embedding, embedding_bag

from postclick.training.table_optimisers import (
    AdamState,
    ExactAdam,
    LazyAdam,
    LazyRMSprop,
    RowwiseAdagrad,
    TableOptimiser,
    row_gradient,
)

R, E, RATE = 12, 3, 0.01
TYPES = (torch.float32, torch.float64)


def new_table(kind: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(R, E, dtype=kind, generator=generator).requires_grad_()


def look_up(table: Tensor, rows: list[int], seed: int, *, sparse: bool = True) -> dict[int, Tensor]:
    """Leave a gradient on `table` as a lookup does; returns the plain sum a row."""
    generator = torch.Generator().manual_seed(seed)
    weights = torch.randn(len(rows), E, dtype=table.dtype, generator=generator)
    table.grad = None
    (embedding(torch.tensor(rows, dtype=torch.int32), table, sparse=sparse) * weights).sum().backward()
    sums: dict[int, Tensor] = {}
    for row, weight in zip(rows, weights, strict=True):
        sums[row] = sums[row] + weight if row in sums else weight
    return sums


def adam_row(w: Tensor, m: Tensor, v: Tensor, g: Tensor, t: int) -> tuple[Tensor, Tensor, Tensor]:
    m = 0.9 * m + 0.1 * g
    v = 0.999 * v + 0.001 * g * g
    return w - RATE * (m / (1 - 0.9**t)) / ((v / (1 - 0.999**t)).sqrt() + 1e-8), m, v


BATCHES = [[1, 4, 4, 7], [4, 0], [11, 1, 1, 1, 2], [4], [7, 0]]


@given(st.lists(st.integers(0, R - 1), min_size=1, max_size=40), st.sampled_from(TYPES))
@settings(deadline=None, max_examples=50)
def test_row_gradient_sums_repetitions(rows: list[int], kind: torch.dtype) -> None:
    table = new_table(kind)
    sums = look_up(table, rows, seed=1)
    found = row_gradient(table)
    assert found is not None
    assert found.rows is not None
    assert found.rows.tolist() == sorted(set(rows))
    for row, value in zip(found.rows.tolist(), found.values, strict=True):
        torch.testing.assert_close(value, sums[row])


def test_row_gradient_adds_l2_once_a_row() -> None:
    table = new_table(torch.float64)
    sums = look_up(table, [3, 5, 5, 5], seed=1)
    found = row_gradient(table, l2=0.5)
    assert found is not None
    torch.testing.assert_close(found.values[1], sums[5] + 0.5 * table.detach()[5])


def test_row_gradient_joins_lookups_and_pooled_lookups() -> None:
    table = new_table(torch.float64)
    pooled = embedding_bag(torch.tensor([2, 3, 3]), table, torch.tensor([0, 2]), mode="sum", sparse=True)
    (embedding(torch.tensor([3, 9]), table, sparse=True).sum() + 2 * pooled.sum()).backward()
    found = row_gradient(table)
    assert found is not None
    assert found.rows is not None
    assert found.rows.tolist() == [2, 3, 9]
    assert found.values[:, 0].tolist() == [2.0, 5.0, 1.0]


def test_row_gradient_of_nothing() -> None:
    table = new_table()
    assert row_gradient(table) is None
    embedding(torch.zeros(0, dtype=torch.int32), table, sparse=True).sum().backward()
    empty = row_gradient(table, l2=0.1)
    assert empty is not None
    assert empty.values.shape == (0, E)
    for build in (LazyRMSprop, LazyAdam, RowwiseAdagrad, ExactAdam):
        optimiser: TableOptimiser = build(table, RATE)
        before = table.detach().clone()
        optimiser.step(empty)
        assert torch.equal(before, table.detach())


@pytest.mark.parametrize("kind", TYPES)
def test_lazy_adam_equals_a_plain_loop(kind: torch.dtype) -> None:
    table = new_table(kind)
    optimiser = LazyAdam(table, RATE)
    expected = {row: (table.detach()[row].clone(), torch.zeros(E), torch.zeros(E)) for row in range(R)}
    for step, rows in enumerate(BATCHES, start=1):
        for row, gradient in look_up(table, rows, seed=step).items():
            expected[row] = adam_row(*expected[row], gradient, step)
        gradient = row_gradient(table)
        assert gradient is not None
        optimiser.step(gradient)
    for row, (value, _, _) in expected.items():
        torch.testing.assert_close(table.detach()[row], value)


@pytest.mark.parametrize("kind", TYPES)
def test_lazy_rmsprop_equals_a_plain_loop(kind: torch.dtype) -> None:
    table = new_table(kind)
    optimiser = LazyRMSprop(table, RATE)
    expected, second = table.detach().clone(), torch.zeros(R, E, dtype=kind)
    for step, rows in enumerate(BATCHES, start=1):
        for row, gradient in look_up(table, rows, seed=step).items():
            second[row] = 0.999 * second[row] + 0.001 * gradient**2
            expected[row] -= RATE * gradient / ((second[row] / (1 - 0.999**step)) ** 0.5 + 1e-8)
        gradient = row_gradient(table)
        assert gradient is not None
        optimiser.step(gradient)
    torch.testing.assert_close(table.detach(), expected)


def test_lazy_rmsprop_pays_out_at_once_what_exact_adam_pays_out_in_the_end() -> None:
    moves = {}
    for build in (LazyRMSprop, LazyAdam, ExactAdam):
        table = new_table(torch.float64)
        start = table.detach()[1].clone()
        optimiser: TableOptimiser = build(table, RATE)
        for step in range(400):
            look_up(table, [1] if step == 200 else [2], seed=step)
            gradient = row_gradient(table)
            assert gradient is not None
            optimiser.step(gradient)
        moves[build] = table.detach()[1] - start
    torch.testing.assert_close(moves[LazyRMSprop], moves[ExactAdam], rtol=0.03, atol=0.0)
    torch.testing.assert_close(moves[LazyAdam], moves[ExactAdam] / 10, rtol=0.03, atol=0.0)


@pytest.mark.parametrize("kind", TYPES)
def test_rowwise_adagrad_equals_a_plain_loop(kind: torch.dtype) -> None:
    table = new_table(kind)
    optimiser = RowwiseAdagrad(table, RATE)
    expected = table.detach().clone()
    sums = [0.0] * R
    for step, rows in enumerate(BATCHES):
        for row, gradient in look_up(table, rows, seed=step).items():
            sums[row] += float((gradient**2).mean())
            expected[row] -= RATE * gradient / (sums[row] ** 0.5 + 1e-8)
        gradient = row_gradient(table)
        assert gradient is not None
        optimiser.step(gradient)
    torch.testing.assert_close(table.detach(), expected)


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_exact_adam_equals_pytorchs(decay: float) -> None:
    table, twin = new_table(torch.float64), new_table(torch.float64)
    optimiser = ExactAdam(table, RATE, weight_decay=decay)
    reference = torch.optim.Adam([twin], lr=RATE, weight_decay=decay)
    for step, rows in enumerate(BATCHES):
        look_up(table, rows, seed=step)
        look_up(twin, rows, seed=step, sparse=False)
        gradient = row_gradient(table)
        assert gradient is not None
        optimiser.step(gradient)
        reference.step()
    torch.testing.assert_close(table.detach(), twin.detach(), rtol=1e-12, atol=1e-12)


def test_lazy_adam_is_exact_adam_where_every_row_is_touched() -> None:
    lazy, exact = new_table(), new_table()
    optimisers: list[tuple[Tensor, TableOptimiser]] = [(lazy, LazyAdam(lazy, RATE)), (exact, ExactAdam(exact, RATE))]
    rows = [*range(R), 3, 3]
    for step in range(20):
        for table, optimiser in optimisers:
            look_up(table, rows[step % R :] + rows[: step % R], seed=step)
            gradient = row_gradient(table)
            assert gradient is not None
            optimiser.step(gradient)
    assert torch.equal(lazy.detach(), exact.detach())


@pytest.mark.parametrize("build", [LazyRMSprop, LazyAdam, RowwiseAdagrad])
def test_rows_outside_the_batches_never_move(build: Callable[[Tensor, float], TableOptimiser]) -> None:
    table = new_table()
    before = table.detach().clone()
    optimiser = build(table, RATE)
    for step, rows in enumerate(BATCHES):
        look_up(table, rows, seed=step)
        gradient = row_gradient(table, l2=0.1)
        assert gradient is not None
        optimiser.step(gradient)
    moved = (table.detach() != before).all(dim=1)
    assert moved.nonzero().flatten().tolist() == sorted({row for rows in BATCHES for row in rows})


def test_coupled_l2_moves_untouched_rows() -> None:
    table = new_table()
    before = table.detach().clone()
    optimiser = ExactAdam(table, RATE, weight_decay=1e-6)
    look_up(table, [1], seed=0)
    gradient = row_gradient(table)
    assert gradient is not None
    optimiser.step(gradient)
    assert (table.detach() != before).all()


@pytest.mark.parametrize("build", [LazyRMSprop, LazyAdam, RowwiseAdagrad, ExactAdam])
def test_a_dense_gradient_moves_every_row(build: Callable[[Tensor, float], TableOptimiser]) -> None:
    dense, sparse = new_table(), new_table()
    for table, kind in ((dense, False), (sparse, True)):
        look_up(table, list(range(R)), seed=0, sparse=kind)
        gradient = row_gradient(table, l2=0.1)
        assert gradient is not None
        build(table, RATE).step(gradient)
    torch.testing.assert_close(dense.detach(), sparse.detach())


@pytest.mark.parametrize("build", [LazyRMSprop, LazyAdam, RowwiseAdagrad, ExactAdam])
def test_state_travels(build: Callable[[Tensor, float], TableOptimiser]) -> None:
    table = new_table()
    first = build(table, RATE)
    twin, second = table, first
    for step, rows in enumerate(BATCHES):
        if step == 2:
            twin = table.detach().clone().requires_grad_()
            second = build(twin, RATE)
            second.load({name: tensor.clone() for name, tensor in first.state().items()})
        for where, optimiser in {id(table): (table, first), id(twin): (twin, second)}.values():
            look_up(where, rows, seed=step)
            gradient = row_gradient(where)
            assert gradient is not None
            optimiser.step(gradient)
    assert torch.equal(table.detach(), twin.detach())


def test_adam_state_skips_parameters_without_gradient() -> None:
    moving, still = torch.ones(2), torch.ones(2)
    adam = AdamState([moving, still], RATE)
    adam.move([torch.ones(2), None])
    assert np.allclose(moving.numpy(), 1 - RATE)
    assert torch.equal(still, torch.ones(2))
    assert [float(step) for step in adam.steps] == [1.0, 0.0]
