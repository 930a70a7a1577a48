import math

import numpy as np
import pytest
import torch

from postclick.nn.window import QuantileWindow


def filled(size, quantiles, batches, until_full=(-1.0, 2.0)):
    kept = QuantileWindow(size, quantiles, until_full)
    for batch in batches:
        kept.update(torch.from_numpy(batch.astype(np.float32)))
    return kept


def drawn(sizes, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.random(size) for size in sizes]


@pytest.mark.parametrize("sizes", [(5,) * 20, (100,), (37, 1, 64), (100, 3), (250,), (7, 300, 5)])
@pytest.mark.parametrize("quantiles", [(0.1, 0.99), (0.5, 0.5), (0.01, 0.999), (0.25, 0.75)])
def test_quantiles_are_those_of_the_last_numbers(sizes, quantiles):
    batches = drawn(sizes)
    kept = filled(100, quantiles, batches)
    last = np.concatenate(batches)[-100:].astype(np.float32)
    np.testing.assert_allclose(kept.bounds.numpy(), np.quantile(last.astype(np.float64), quantiles), rtol=1e-6)
    np.testing.assert_array_equal(np.sort(kept.values.numpy()), np.sort(last))
    assert kept.seen == sum(sizes)


def test_nothing_is_told_before_the_window_is_full():
    kept = filled(100, (0.1, 0.99), drawn((60, 39)))
    assert kept.bounds.tolist() == [-1.0, 2.0]
    kept.update(torch.tensor([0.5]))
    assert 0.0 < kept.bounds[0] < kept.bounds[1] < 1.0


def test_a_batch_joins_after_what_came_before_is_forgotten_in_order():
    kept = filled(4, (0.5,), [np.array([1.0, 2.0, 3.0])], until_full=(0.0,))
    kept.update(torch.tensor([4.0, 5.0]))
    assert kept.values.tolist() == [5.0, 2.0, 3.0, 4.0]
    assert kept.bounds.tolist() == [3.5]


def test_an_empty_batch_changes_nothing():
    kept = filled(4, (0.5,), drawn((6,)), until_full=(0.0,))
    before = {name: buffer.clone() for name, buffer in kept.state_dict().items()}
    kept.update(torch.zeros(0))
    assert all(torch.equal(buffer, before[name]) for name, buffer in kept.state_dict().items())


def test_selection_and_sorting_agree(monkeypatch):
    """What an accelerator does, on numbers of the CPU."""
    batches = drawn((80, 50))
    selected = filled(100, (0.1, 0.99), batches).bounds
    monkeypatch.setattr(QuantileWindow, "_ordered", lambda self: self.values.sort().values)
    assert torch.equal(filled(100, (0.1, 0.99), batches).bounds, selected)


def test_it_goes_on_from_its_state():
    batches = drawn((30, 30, 30, 30, 30))
    whole = filled(100, (0.1, 0.99), batches)
    other = QuantileWindow(100, (0.1, 0.99), (-1.0, 2.0))
    other.load_state_dict(filled(100, (0.1, 0.99), batches[:2]).state_dict())
    for batch in batches[2:]:
        other.update(torch.from_numpy(batch.astype(np.float32)))
    assert all(torch.equal(buffer, other.state_dict()[name]) for name, buffer in whole.state_dict().items())


def test_no_gradient_is_kept():
    numbers = torch.rand(10, requires_grad=True)
    kept = QuantileWindow(5, (0.5,), (0.0,))
    kept.update(numbers)
    assert not kept.values.requires_grad
    assert not kept.bounds.requires_grad


def test_infinite_bounds_and_other_types():
    kept = QuantileWindow(5, (0.1, 0.9), (-math.inf, math.inf)).double()
    kept.update(torch.rand(9).double())
    assert torch.isfinite(kept.bounds).all()
    assert kept.bounds.dtype == torch.float64


@pytest.mark.parametrize(("size", "quantiles"), [(1, (0.5,)), (10, (0.0,)), (10, (0.5, 1.0)), (10, (math.nan,))])
def test_what_is_no_window_is_refused(size, quantiles):
    with pytest.raises(ValueError, match="a window of 2 or more and quantiles in"):
        QuantileWindow(size, quantiles, (0.0,) * len(quantiles))


def test_the_twin_that_forgets_the_wrong_end_is_told():
    class First(QuantileWindow):
        def update(self, numbers):
            super().update(numbers[: self.size])  # the first W of a batch, not the last

    batch = np.arange(10.0)
    kept = First(4, (0.5,), (0.0,))
    kept.update(torch.from_numpy(batch))
    assert kept.bounds.item() != pytest.approx(np.quantile(batch[-4:], 0.5))
