"""The root of a rising function, for intercepts that hit a rate."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["rising_root"]


def rising_root(excess: Callable[[float], float], low: float = -60.0, high: float = 60.0) -> float:
    """Return the root of a rising function."""
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if excess(middle) < 0 else (low, middle)
    return 0.5 * (low + high)
