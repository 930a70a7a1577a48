"""Scores of exposures as arrays: the one form that scoring gives and evaluation takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["HEADS", "Scores", "log_odds", "probability"]

HEADS = ("ctr", "cvr", "ctcvr", "action", "ctar")


def probability(odds: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return sigmoid(odds) in float64 without overflow."""
    small = np.exp(-np.abs(odds))
    result: NDArray[np.float64] = np.where(odds >= 0, 1.0, small) / (1.0 + small)
    return result


def log_odds(log_p: NDArray[np.float64], log_not_p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return log p - log(1 - p) from the pair, from the side that carries the precision.

    float32 pairs know log p well where p is small and log(1 - p) well where p is near 1; the other side is recomputed.
    """
    half = -np.log(2.0)
    low = np.minimum(log_p, half)
    high = np.minimum(log_not_p, half)
    with np.errstate(divide="ignore"):
        odds: NDArray[np.float64] = np.where(log_p < half, low - np.log1p(-np.exp(low)), np.log1p(-np.exp(high)) - high)
    return odds


@dataclass(frozen=True)
class Scores:
    """Log-odds per head, float64 [B] each: ranking uses these, not rounded probabilities.

    Parameters
    ----------
    odds
        Head (one of `HEADS`) -> log-odds as served: calibrated, weights undone.
    raw
        Head -> log-odds as the network gave them; empty where they do not differ.
    derived
        Heads that the system has no output for and that were derived (a cvr from ctcvr / ctr).
    clipped
        How many derived values left [0, 1] and were clipped.
    """

    odds: Mapping[str, NDArray[np.float64]]
    raw: Mapping[str, NDArray[np.float64]]
    derived: frozenset[str] = frozenset()
    clipped: int = 0

    def __len__(self) -> int:
        return len(next(iter(self.odds.values())))

    @property
    def heads(self) -> tuple[str, ...]:
        """The heads present, in the order of `HEADS`."""
        return tuple(head for head in HEADS if head in self.odds)

    def probability(self, head: str) -> NDArray[np.float64]:
        """Return the probabilities of `head` in float64."""
        return probability(self.odds[head])

    @classmethod
    def concatenate(cls, parts: list[Scores]) -> Scores:
        """Join the scores of consecutive slices."""
        odds = {head: np.concatenate([part.odds[head] for part in parts]) for head in parts[0].odds}
        raw = {head: np.concatenate([part.raw[head] for part in parts]) for head in parts[0].raw}
        return cls(odds, raw, parts[0].derived, sum(part.clipped for part in parts))
