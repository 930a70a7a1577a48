"""Encoded exposures as arrays: what a log holds, what a batch is made of, what a scorer encodes a request to.

Shapes: B rows, F sparse fields, S sequence fields, N dense features, V width of all embedding features together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["CENSORED", "Exposures", "Labels", "Ragged", "concatenate"]

Array: TypeAlias = NDArray[Any]
CENSORED = -1
"""A label whose window has not closed yet: neither 0 nor 1."""


@dataclass(frozen=True)
class Ragged:
    """Lists of different lengths: row i holds ``values[offsets[i]:offsets[i + 1]]``.

    Parameters
    ----------
    values
        Global table rows, int32.
    offsets
        int64 of length B + 1, starting at 0.
    weights
        float32 beside `values`, or None for weight 1.
    """

    values: NDArray[np.int32]
    offsets: NDArray[np.int64]
    weights: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def take(self, index: NDArray[np.int64]) -> Ragged:
        """Return the rows at `index`, in that order."""
        lengths = np.diff(self.offsets)[index]
        offsets = np.zeros(len(index) + 1, np.int64)
        np.cumsum(lengths, out=offsets[1:])
        within = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)
        places = np.repeat(self.offsets[:-1][index], lengths) + within
        return Ragged(self.values[places], offsets, None if self.weights is None else self.weights[places])


@dataclass(frozen=True)
class Labels:
    """What was observed and who it was, B each; the optional ones are None where the log has no such column.

    Parameters
    ----------
    click, conversion, action
        int8, 0 or 1, or `CENSORED`. `conversion` is 1 only where `click` is 1.
    view_through
        int8: a conversion without click that was kept and counted; never a label.
    immature
        int8: 1 where the attribution window was still open at `observed_until`, whatever has been seen by then, clicked
        or not; 2 where it was and the schema takes the label as it stands (``immature = "negative"``); else 0. None
        where the log has no `observed_until` or lets no open window in.
    exposure_id, user_id, item_id, campaign
        int64 or text as logged.
    time, click_time, conversion_time, observed_until
        int64, microseconds since 1970-01-01 UTC.
    sample_weight, propensity, value, bid
        float64.
    randomised
        int8.
    """

    click: NDArray[np.int8]
    conversion: NDArray[np.int8]
    action: NDArray[np.int8] | None = None
    view_through: NDArray[np.int8] | None = None
    immature: NDArray[np.int8] | None = None
    exposure_id: Array | None = None
    user_id: Array | None = None
    item_id: Array | None = None
    time: NDArray[np.int64] | None = None
    click_time: NDArray[np.int64] | None = None
    conversion_time: NDArray[np.int64] | None = None
    observed_until: NDArray[np.int64] | None = None
    sample_weight: NDArray[np.float64] | None = None
    propensity: NDArray[np.float64] | None = None
    randomised: NDArray[np.int8] | None = None
    value: NDArray[np.float64] | None = None
    bid: NDArray[np.float64] | None = None
    campaign: Array | None = None

    def __len__(self) -> int:
        return len(self.click)

    @property
    def conversion_known(self) -> NDArray[np.bool_]:
        """Rows whose conversion is final, bool [B].

        A conversion seen in an open window is certain, and yet not among them: kept without the clicks beside it whose
        conversions have not come yet, it would make every recent click a conversion.
        """
        known: NDArray[np.bool_] = self.conversion != CENSORED
        return known if self.immature is None else known & (self.immature != 1)

    def take(self, index: Any) -> Labels:
        """Return the rows at `index` (positions, a slice or a mask)."""
        pairs = ((entry.name, getattr(self, entry.name)) for entry in fields(self))
        return Labels(**{name: value[index] for name, value in pairs if value is not None})


@dataclass(frozen=True)
class Exposures:
    """Encoded features of B exposures, and their labels where they are known.

    Parameters
    ----------
    rows
        int32 [B, F]: global table rows; field f's unknown row is f.
    dense
        float32 [B, N], transformed.
    embeddings
        float32 [B, V], in the order of the schema's embedding features.
    sequences
        One `Ragged` a sequence field, S in all.
    labels
        None when scoring.
    """

    rows: NDArray[np.int32]
    dense: NDArray[np.float32]
    embeddings: NDArray[np.float32]
    sequences: tuple[Ragged, ...] = ()
    labels: Labels | None = field(default=None)

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, index: NDArray[np.int64]) -> Exposures:
        """Return the rows at `index`, in that order: one gather a column, no Python a row."""
        return Exposures(
            np.take(self.rows, index, axis=0),
            np.take(self.dense, index, axis=0),
            np.take(self.embeddings, index, axis=0),
            tuple(sequence.take(index) for sequence in self.sequences),
            None if self.labels is None else self.labels.take(index),
        )

    def without_labels(self) -> Exposures:
        """Return the same features without labels."""
        return replace(self, labels=None)


def concatenate(parts: Sequence[Exposures]) -> Exposures:
    """Join parts of one log, in order."""
    if len(parts) == 1:
        return parts[0]
    labels = None
    if all(part.labels is not None for part in parts):
        names = [entry.name for entry in fields(Labels) if getattr(parts[0].labels, entry.name) is not None]
        labels = Labels(**{name: np.concatenate([getattr(part.labels, name) for part in parts]) for name in names})
    return Exposures(
        np.concatenate([part.rows for part in parts]),
        np.concatenate([part.dense for part in parts]),
        np.concatenate([part.embeddings for part in parts]),
        tuple(_join([part.sequences[index] for part in parts]) for index in range(len(parts[0].sequences))),
        labels,
    )


def _join(parts: Sequence[Ragged]) -> Ragged:
    lengths = np.concatenate([np.diff(part.offsets) for part in parts])
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    weights = [part.weights for part in parts if part.weights is not None]
    joined = np.concatenate(weights) if len(weights) == len(parts) else None
    return Ragged(np.concatenate([part.values for part in parts]), offsets, joined)
