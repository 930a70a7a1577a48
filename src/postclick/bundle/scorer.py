"""The Scorer: the one path from exposures to probabilities, offline, online and in evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from postclick.bundle.header import Constant
from postclick.calibration import Calibration
from postclick.calibration.calibration import compose
from postclick.data.arrays import Exposures
from postclick.data.encode import EncodeCounts
from postclick.data.scores import Scores
from postclick.models.base import ConversionModel
from postclick.models.scoring import score

if TYPE_CHECKING:
    import pyarrow as pa

    from postclick.bundle.bundle import Bundle

__all__ = ["ScoredTable", "Scorer", "apply_constants", "served_scores"]


@dataclass(frozen=True)
class ScoredTable:
    """Scores of raw rows, and what encoding them met.

    Parameters
    ----------
    scores
        In row order.
    counts
        Values read, missing and unseen, a feature.
    """

    scores: Scores
    counts: EncodeCounts


def apply_constants(scores: Scores, constants: Mapping[str, Constant]) -> Scores:
    """Put the constant priors in place of their heads and recompute what follows from them."""
    present = {head: constant.odds for head, constant in constants.items() if head in scores.odds}
    if not present:
        return scores
    odds = dict(scores.odds) | {head: np.full(len(scores), value) for head, value in present.items()}
    return compose(replace(scores, odds=odds))


def served_scores(
    model: ConversionModel,
    exposures: Exposures,
    constants: Mapping[str, Constant],
    calibration: Calibration,
    *,
    batch_size: int,
) -> Scores:
    """Return scores as served: the network's, constant priors in place, calibrated."""
    raw = score(model, exposures, batch_size=batch_size)
    return calibration.apply(apply_constants(raw, constants))


class Scorer:
    """A bundle that scores.

    Parameters
    ----------
    bundle
        What was trained.
    device
        Where the network runs.
    batch_size
        Rows at a time; logits agree to 1e-5 across sizes.
    """

    def __init__(self, bundle: Bundle, device: str = "cpu", *, batch_size: int = 16_384) -> None:
        self.bundle = bundle
        self.batch_size = batch_size
        self._model = bundle.model.to(device)

    def score(self, exposures: Exposures) -> Scores:
        """Return the scores of encoded exposures, in order."""
        bundle = self.bundle
        constants, calibration = bundle.header.constants, bundle.calibration
        return served_scores(self._model, exposures, constants, calibration, batch_size=self.batch_size)

    def score_table(self, table: pa.Table | pa.RecordBatch) -> ScoredTable:
        """Return the scores of raw rows: values unseen in training go to the unknown row and are counted.

        Parameters
        ----------
        table
            The schema's feature columns, raw; others are ignored.
        """
        exposures, counts = self.bundle.encoder.encode(table, serving=True)
        return ScoredTable(self.score(exposures), counts)
