"""Where training stops for a NaN: the step, its exposures, and what was measured until then."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from postclick import files
from postclick.data.arrays import Exposures
from postclick.errors import Finding, TrainingError

__all__ = ["NON_FINITE", "not_finite"]

NON_FINITE = "non_finite.json"
"""Left in the RUN folder."""

Means = tuple[Mapping[str, float], Mapping[str, float | None]]


def not_finite(
    what: str, epoch: int, step: int, exposures: Exposures, means: Means, folder: Path | None
) -> TrainingError:
    """Return the error for a step whose loss or gradient is not finite; the same is left in `folder`.

    Parameters
    ----------
    what
        What was not finite; the place is added.
    epoch, step
        Both from 0.
    exposures
        The step's batch.
    means
        Means of terms and diagnostics over the finite steps since the last check.
    folder
        The RUN folder; None leaves nothing.
    """
    labels = exposures.labels
    # ids that are text are not carried through the batches; epoch, step and seed still name the rows
    ids = [] if labels is None or labels.exposure_id is None else labels.exposure_id.tolist()
    terms, diagnostics = means
    if folder is not None:
        body = {
            "epoch": epoch,
            "step": step,
            "exposure_ids": ids,
            "batch": _statistics(exposures),
            "terms": {name: value if math.isfinite(value) else None for name, value in terms.items()},
            "diagnostics": diagnostics,
        }
        files.write_json(folder / NON_FINITE, body)
    examples = tuple(str(identifier) for identifier in ids[:5])
    fix = "look at these exposures; lower training.learning_rate; resume goes on from the last finite checkpoint"
    where = f"{what} epoch {epoch}, step {step} (both from 0)"
    return TrainingError(Finding("train.non_finite", where, "exposure_id", len(exposures), examples, fix))


def _statistics(exposures: Exposures) -> dict[str, Any]:
    """Return what a batch is made of: counts of rows and labels, and what its numbers look like."""
    labels = exposures.labels
    counts: dict[str, Any] = {"rows": len(exposures)}
    if labels is not None:
        counts["clicks"] = int((labels.click == 1).sum())
        counts["conversions"] = int((labels.conversion == 1).sum())
    for name, values in (("dense", exposures.dense), ("embeddings", exposures.embeddings)):
        finite = np.isfinite(values)
        counts[f"{name}_not_finite"] = int(values.size - finite.sum())
        counts[f"{name}_largest"] = float(np.abs(values[finite]).max(initial=0.0))
    return counts
