"""From losses a row to one number."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["mean_over_clicks", "mean_over_exposures"]


def mean_over_exposures(per_row: Tensor, weight: Tensor | None) -> Tensor:
    """Return sum(w l) / sum(w) over the exposures of a batch (SYSTEMS, Decision 2).

    The divisor counts every exposure, also where `per_row` is 0 off a subset such as the clicks: with p the true CTR,
    the mean of e o / p over exposures has the scale of e, whatever the share of clicks in the batch.

    Parameters
    ----------
    per_row
        l, [B].
    weight
        w >= 0, [B], or None for 1.

    Returns
    -------
    Tensor
        Scalar; 0 for an empty batch and where all weights are 0.
    """
    if weight is None:
        return per_row.sum() / max(len(per_row), 1)
    total = weight.sum()
    # torch.where rather than `if`: reading the total would make the device wait for the host.
    return (weight * per_row).sum() / torch.where(total > 0, total, 1.0)


def mean_over_clicks(per_row: Tensor, click: Tensor, weight: Tensor | None) -> Tensor:
    """Return sum(w o l) / sum(w o) over the clicked rows of a batch (Tang et al. 2020, eq. 10, for the CVR's space).

    Against `mean_over_exposures` of o l it is larger by 1 / CTR, and noisier: its divisor is drawn with the batch.

    Parameters
    ----------
    per_row
        l, [B]; its unclicked rows do not count.
    click
        o, [B].
    weight
        w >= 0, [B], or None for 1.

    Returns
    -------
    Tensor
        Scalar; 0 for a batch without a click (of positive weight).
    """
    clicked = click if weight is None else click * weight
    total = clicked.sum()
    return (clicked * per_row).sum() / torch.where(total > 0, total, 1.0)
