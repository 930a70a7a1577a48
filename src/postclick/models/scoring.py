"""From encoded exposures to log-odds: the one way, for validation while training and for the scorer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch

from postclick.data.arrays import Exposures, Ragged
from postclick.data.scores import Scores, log_odds
from postclick.errors import DataError, Finding
from postclick.losses.probability import LogProbability
from postclick.models.base import Batch, ConversionModel, Outputs
from postclick.models.batching import to_features

__all__ = ["score"]


def score(
    model: ConversionModel,
    exposures: Exposures | Iterable[Exposures],
    *,
    batch_size: int = 16_384,
    device: torch.device | str | None = None,
    observe: Callable[[Outputs], None] | None = None,
) -> Scores:
    """Return the log-odds of every head on every exposure, in order, as the network gives them.

    The model runs in evaluation mode without gradients; its mode is put back. Log-odds are float64, computed from
    float32 pairs (log p, log(1 - p)) on the side that carries the precision, so products stay ordered: ctcvr = ctr cvr
    never exceeds ctr. Derived heads are named, and `clipped` counts rows whose ctcvr exceeded their ctr where cvr is
    the quotient of the two.

    Parameters
    ----------
    model
        A system.
    exposures
        One or several pieces of a log; labels are not used.
    batch_size
        Rows at a time. It does not change a logit by more than 1e-5.
    device
        Where the batches go; None is where the model is.
    observe
        Shown the outputs of every batch, for what is in them beside the probabilities.

    Raises
    ------
    DataError
        Where there is no piece at all.
    """
    where = next(model.parameters()).device if device is None else torch.device(device)
    pieces = [exposures] if isinstance(exposures, Exposures) else exposures
    derived = frozenset(name for name, kind in model.heads.items() if kind == "derived")
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            parts = [
                _scores(_observed(model(Batch(to_features(part, where))), observe), derived)
                for piece in pieces
                for part in _slices(piece, batch_size)
            ]
    finally:
        model.train(was_training)
    if not parts:
        raise DataError(Finding("data.empty", "there is nothing to score"))
    return Scores.concatenate(parts)


def _slices(exposures: Exposures, batch_size: int) -> Iterator[Exposures]:
    """Yield consecutive rows as views; one empty slice where there are no rows, so that every head is present."""
    for start in range(0, max(len(exposures), 1), batch_size):
        part = slice(start, min(start + batch_size, len(exposures)))
        yield Exposures(
            exposures.rows[part],
            exposures.dense[part],
            exposures.embeddings[part],
            tuple(_slice_ragged(ragged, part) for ragged in exposures.sequences),
        )


def _slice_ragged(ragged: Ragged, part: slice) -> Ragged:
    offsets = ragged.offsets[part.start : part.stop + 1]
    inside = slice(int(offsets[0]), int(offsets[-1]))
    weights = None if ragged.weights is None else ragged.weights[inside]
    return Ragged(ragged.values[inside], offsets - offsets[0], weights)


def _observed(outputs: Outputs, observe: Callable[[Outputs], None] | None) -> Outputs:
    if observe is not None:
        observe(outputs)
    return outputs


def _scores(outputs: Outputs, derived: frozenset[str]) -> Scores:
    odds, raw = ({name: _odds(head) for name, head in heads.items()} for heads in (outputs.heads(), outputs.raw))
    clipped = int((outputs.ctcvr.log_p > outputs.ctr.log_p).sum()) if "cvr" in derived else 0
    return Scores(odds, raw, derived, clipped)


def _odds(head: LogProbability) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    log_p, log_not_p = (side.double().cpu().numpy() for side in (head.log_p, head.log_not_p))
    return log_odds(log_p, log_not_p)
