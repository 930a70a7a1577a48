"""Encoded arrays to tensors."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from postclick.data.arrays import CENSORED, Exposures, Labels, Ragged
from postclick.errors import DataError, Finding
from postclick.models.base import Batch
from postclick.nn.features import Features, Sequence

__all__ = ["batch_action", "batch_labels", "to_batch", "to_features"]


def to_batch(exposures: Exposures, device: torch.device | str = "cpu") -> Batch:
    """Return a batch on `device`; on the CPU features share the memory of writable arrays.

    Labels become float32. A row with a censored label gets weight 0 (and its censored label 0), so it leaves every
    sum and mean.

    Parameters
    ----------
    exposures
        Features, and labels where there are any.
    device
        Where the tensors go.
    """
    features = to_features(exposures, device)
    labels = exposures.labels
    if labels is None:
        return Batch(features)
    return Batch(
        features,
        click=_label(labels.click, device),
        conversion=_label(labels.conversion, device),
        action=None if labels.action is None else _label(labels.action, device),
        weight=_weight(labels, device),
        propensity=None if labels.propensity is None else _tensor(labels.propensity.astype(np.float32), device),
    )


def to_features(exposures: Exposures, device: torch.device | str = "cpu") -> Features:
    """Return the features alone, on `device`."""
    return Features(
        _tensor(exposures.rows, device),
        _tensor(exposures.dense, device),
        _tensor(exposures.embeddings, device),
        tuple(_sequence(ragged, device) for ragged in exposures.sequences),
    )


def batch_labels(batch: Batch) -> tuple[Tensor, Tensor]:
    """Return click and conversion, [B] each, of a batch to learn from.

    Raises
    ------
    DataError
        Where the batch has no labels.
    """
    if batch.click is None or batch.conversion is None:
        what = "a loss needs the labels click and conversion"
        raise DataError(Finding("data.label_missing", what, fix="train on a LOG, not on exposures to score"))
    return batch.click, batch.conversion


def batch_action(batch: Batch) -> Tensor:
    """Return the action, [B], of a batch to learn from; it counts after a click only: multiply by the click.

    Raises
    ------
    DataError
        Where the batch has no action label.
    """
    if batch.action is None:
        fix = "name the column in the schema (action = ...) and prepare the log again"
        raise DataError(Finding("data.label_missing", "a loss needs the label action", fix=fix))
    return batch.action


def _sequence(ragged: Ragged, device: torch.device | str) -> Sequence:
    weights = None if ragged.weights is None else _tensor(ragged.weights, device)
    return Sequence(_tensor(ragged.values, device), _tensor(ragged.offsets, device), weights)


def _tensor(array: NDArray[Any], device: torch.device | str) -> Tensor:
    # PyTorch has no read-only tensors: a view of a memory-mapped file is copied.
    owned = array if array.flags.writeable else array.copy()
    return torch.from_numpy(np.ascontiguousarray(owned)).to(device, non_blocking=True)


def _label(label: NDArray[np.int8], device: torch.device | str) -> Tensor:
    return _tensor((label == 1).astype(np.float32), device)


def _weight(labels: Labels, device: torch.device | str) -> Tensor | None:
    known = (labels.click != CENSORED) & (labels.conversion != CENSORED)
    if labels.action is not None:
        known &= labels.action != CENSORED
    if labels.sample_weight is None:
        return None if known.all() else _tensor(known.astype(np.float32), device)
    return _tensor((labels.sample_weight * known).astype(np.float32), device)
