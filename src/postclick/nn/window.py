"""Quantiles of the last numbers seen, kept on the device and part of a system's state."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["QuantileWindow"]


class QuantileWindow(nn.Module):
    """A ring buffer of the last W numbers, and quantiles of them that are set once it is full.

    Quantiles are those of the W numbers, exactly, linear between two order statistics (type 7 of Hyndman and Fan 1996,
    NumPy's default). Nothing is read back from the device.

    Parameters
    ----------
    size
        W.
    quantiles
        In (0, 1).
    until_full
        What stands for each quantile before W numbers have come.

    Attributes
    ----------
    values
        Buffer [W].
    seen
        Buffer int64, numbers taken in so far; the next one goes to place ``seen % W``.
    bounds
        Buffer, one a quantile.

    Raises
    ------
    ValueError
        On a size below 2 or a quantile outside (0, 1).
    """

    values: Tensor
    seen: Tensor
    bounds: Tensor

    def __init__(self, size: int, quantiles: tuple[float, ...], until_full: tuple[float, ...]) -> None:
        super().__init__()
        if size < 2 or not all(0.0 < quantile < 1.0 for quantile in quantiles):
            raise ValueError(f"expected a window of 2 or more and quantiles in (0, 1), got {size} and {quantiles}")
        self.size = size
        self.ranks = tuple(quantile * (size - 1) for quantile in quantiles)
        self.register_buffer("values", torch.zeros(size))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))
        self.register_buffer("bounds", torch.tensor(until_full))

    @torch.no_grad()
    def update(self, numbers: Tensor) -> None:
        """Take in `numbers` [B], the last W of them where there are more, and set the quantiles anew."""
        count = len(numbers)
        kept = numbers.detach()[-self.size :].to(self.values.dtype)
        places = torch.arange(count - len(kept), count, device=self.values.device) + self.seen
        self.values.index_copy_(0, places % self.size, kept)
        self.seen += count
        self.bounds.copy_(torch.where(self.seen >= self.size, self._quantiles(), self.bounds))

    def _quantiles(self) -> Tensor:
        """Return the quantiles of what is in the buffer."""
        ordered = self._ordered()
        found = []
        for rank in self.ranks:
            below = math.floor(rank)
            low, high = ordered[below], ordered[min(below + 1, self.size - 1)]
            found.append(low + (high - low) * (rank - below))
        return torch.stack(found)

    def _ordered(self) -> Tensor:
        """Return the numbers with those that the quantiles need in their place, as sorting would put them."""
        if self.values.device.type != "cpu":
            return self.values.sort().values
        # NumPy's selection takes 0.15 ms for 10,000 numbers, PyTorch's sort 3.6 ms
        needed = sorted({min(math.floor(rank) + shift, self.size - 1) for rank in self.ranks for shift in (0, 1)})
        return torch.from_numpy(np.partition(self.values.numpy(), needed))
