"""Terms that tie towers or predictions to one another."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from postclick.losses.probability import LogProbability

__all__ = ["expectation_calibrator", "tower_distance"]


def expectation_calibrator(ctcvr: LogProbability, ctr: LogProbability) -> Tensor:
    """Return max(s - p, 0), [B], in [0, 1): how far P(click and conversion) exceeds P(click) (Xi et al. 2021, eq. 9).

    The difference is one of probabilities: where it is positive the derivative is 1 at s and -1 at p, 0 elsewhere.
    Reduce with `reduce.mean_over_exposures`: the paper divides by N (a public port sums over the batch, which makes the
    weight a thousand times as strong).
    """
    return torch.relu(ctcvr.log_p.exp() - ctr.log_p.exp())


def tower_distance(a: nn.Module, b: nn.Module) -> Tensor:
    """Return sum over parameters of ||a - b||_F^2, scalar: 0 where the towers are equal.

    Weights and biases of all hidden layers; the gradient is 2 (a - b) on one tower and its negative on the other. The
    squared distance between the weights of two tasks is the L2-constrained baseline of Ma et al. (KDD 2018).

    Parameters
    ----------
    a, b
        Two modules of one shape.

    Raises
    ------
    ValueError
        Where one has more parameters than the other.
    """
    pairs = zip(a.parameters(), b.parameters(), strict=True)
    return sum(((one - other).square().sum() for one, other in pairs), start=torch.zeros(()))
