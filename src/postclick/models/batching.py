"""Encoded arrays to tensors."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from postclick.data.arrays import CENSORED, Exposures, Labels, Ragged
from postclick.data.clock import NO_TIME, window_start
from postclick.errors import DataError, Finding
from postclick.models.base import Batch, Delays
from postclick.nn.features import Features, Sequence
from postclick.schema import Schema

__all__ = ["attribution_days", "batch_action", "batch_labels", "to_batch", "to_features"]

_DAY = 86_400_000_000  # microseconds


def to_batch(exposures: Exposures, device: torch.device | str = "cpu") -> Batch:
    """Return a batch on `device`; on the CPU features share the memory of writable arrays.

    Labels become float32. A row with a censored label, or one whose window was still open, gets weight 0 (and its
    censored label 0), so it leaves every sum and mean; where the log says which windows were open, the click, which is
    certain, keeps its weight (`Batch.click_weight`).

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
        weight=_weight(labels, labels.conversion_known, device),
        propensity=None if labels.propensity is None else _tensor(labels.propensity.astype(np.float32), device),
        delays=None if labels.immature is None else _delays(labels, labels.immature, device),
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


def attribution_days(schema: Schema) -> float:
    """Return the attribution window of a system that models delays, in days; 1 where the log has no such times.

    Raises
    ------
    ValueError
        Where conversions were still coming in at the end of the observation and the log does not say when they came.
    """
    columns = schema.columns
    if columns.observed_until is not None and columns.conversion_time is None:
        how = "name its column in the schema (conversion_time = ...) and prepare the log again"
        raise ValueError(f"the system needs the time of a conversion, which the log does not have: {how}")
    seconds = None if columns.observed_until is None else columns.attribution_window
    return 1.0 if seconds is None else seconds / 86_400.0


def _sequence(ragged: Ragged, device: torch.device | str) -> Sequence:
    weights = None if ragged.weights is None else _tensor(ragged.weights, device)
    return Sequence(_tensor(ragged.values, device), _tensor(ragged.offsets, device), weights)


def _tensor(array: NDArray[Any], device: torch.device | str) -> Tensor:
    # PyTorch has no read-only tensors: a view of a memory-mapped file is copied.
    owned = array if array.flags.writeable else array.copy()
    return torch.from_numpy(np.ascontiguousarray(owned)).to(device, non_blocking=True)


def _label(label: NDArray[np.int8], device: torch.device | str) -> Tensor:
    return _tensor((label == 1).astype(np.float32), device)


def _weight(labels: Labels, known: NDArray[np.bool_], device: torch.device | str) -> Tensor | None:
    known = known & (labels.click != CENSORED)
    if labels.action is not None:
        known &= labels.action != CENSORED
    if labels.sample_weight is None:
        return None if known.all() else _tensor(known.astype(np.float32), device)
    return _tensor((labels.sample_weight * known).astype(np.float32), device)


def _delays(labels: Labels, immature: NDArray[np.int8], device: torch.device | str) -> Delays:
    """Return what is known of the times of a batch; a click without a time of its own happened at its exposure."""
    clicked, nothing = labels.click == 1, np.full(len(labels), NO_TIME)
    start = window_start(clicked, labels.time, labels.click_time)
    until = nothing if labels.observed_until is None else labels.observed_until
    bought = nothing if labels.conversion_time is None else labels.conversion_time
    return Delays(
        elapsed=_tensor(_days(start, until, clicked), device),
        delay=_tensor(_days(start, bought, clicked & (labels.conversion == 1)), device),
        immature=_tensor((immature == 1).astype(np.float32), device),
        weight=_weight(labels, np.ones(len(labels), np.bool_), device),
    )


def _days(start: NDArray[np.int64], end: NDArray[np.int64], there: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return how long it took, float32 [B], at least 0; 0 where it is not there or a time is missing."""
    known = there & (start != NO_TIME) & (end != NO_TIME)
    return np.where(known, np.maximum(np.where(known, end - start, 0), 0) / _DAY, 0.0).astype(np.float32)
