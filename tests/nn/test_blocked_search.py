"""Blocked search on a CPU against the full table of cosines, in single and half precision."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from postclick.errors import ConfigError
from postclick.nn.blocked_search import blocked_neighbours


def vectors(count: int = 700, width: int = 12, seed: int = 0) -> Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


def table(rows: Tensor) -> Tensor:
    wide = rows.double()
    length = wide.norm(dim=1)
    cosines = (wide @ wide.T / (length[:, None] * length)).nan_to_num(-1.0)
    return cosines.fill_diagonal_(-1.0)


@pytest.mark.parametrize(("rows", "columns"), [(8192, 65536), (64, 100), (700, 7)])
def test_any_blocks_give_the_exact_neighbours(rows, columns):
    data = vectors()
    indices, cosines = blocked_neighbours(data, 8, rows=rows, columns=columns)
    full = table(data)
    best = full.topk(8, dim=1).values.float()
    torch.testing.assert_close(cosines, best.clamp(min=0), atol=2e-6, rtol=0)
    torch.testing.assert_close(full.gather(1, indices).float(), cosines, atol=2e-6, rtol=0)


def test_half_precision_is_ranked_again_in_single():
    data = vectors()
    indices, cosines = blocked_neighbours(data, 8, half=True)
    exact = blocked_neighbours(data, 8)
    assert (cosines >= exact[1][:, -1:] - 1e-5).float().mean() > 0.99
    torch.testing.assert_close(table(data).gather(1, indices).float(), cosines, atol=2e-6, rtol=0)


def test_a_short_running_list_in_half_precision_misses_some():
    data = vectors(3000, 3)
    exact = blocked_neighbours(data, 8)[1]
    short = blocked_neighbours(data, 8, half=True, running=9)[1]
    long = blocked_neighbours(data, 8, half=True, running=64)[1]
    assert (exact - short).sum() > 4 * (exact - long).sum() >= 0


def test_a_sample_is_searched_for_alone():
    data, some = vectors(), torch.tensor([5, 600, 31])
    whole, part = blocked_neighbours(data, 4), blocked_neighbours(data, 4, queries=some)
    assert torch.equal(part[0], whole[0][some])
    torch.testing.assert_close(part[1], whole[1][some])


def test_duplicates_zeros_and_few():
    crowd = torch.ones(100, 3).repeat(1, 1)
    crowd[::10] = 0
    indices, cosines = blocked_neighbours(crowd, 8, half=True)
    held = indices[1]
    assert (cosines[1] == cosines[1, 0]).all()
    assert 1 not in held.tolist()
    assert (held % 10 != 0).all()
    assert (indices[::10] == -1).all()
    few, none = blocked_neighbours(torch.ones(3, 2), 8), blocked_neighbours(torch.ones(1, 2), 8)
    assert ((few[0] >= 0).sum(dim=1) == 2).all()
    assert (none[0] == -1).all()
    assert (blocked_neighbours(torch.tensor([[1.0], [-1.0]]), 1)[0] == -1).all()


def test_a_wrong_k_is_refused():
    with pytest.raises(ConfigError, match="k is 0"):
        blocked_neighbours(vectors(), 0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_finds_what_the_cpu_finds():
    data = vectors(20_000, 45)
    exact = blocked_neighbours(data, 8)[1]
    found = blocked_neighbours(data.cuda(), 8)[1].cpu()
    assert (found >= exact[:, -1:] - 1e-5).float().mean() > 0.999
