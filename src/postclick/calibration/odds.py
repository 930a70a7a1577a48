"""Arithmetic of probabilities on their log-odds, exact in both tails."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["log_pair", "product"]

Array = NDArray[np.float64]


def log_pair(odds: Array) -> tuple[Array, Array]:
    """Return log p and log(1 - p) of log-odds, [B] each."""
    return -np.logaddexp(0.0, -odds), -np.logaddexp(0.0, odds)


def product(one: Array, other: Array) -> Array:
    """Return the log-odds of the product of two probabilities: log p q - log(1 - p + p (1 - q)), [B]."""
    (log_p, log_not_p), (log_q, log_not_q) = log_pair(one), log_pair(other)
    return np.asarray(log_p + log_q - np.logaddexp(log_not_p, log_p + log_not_q))
