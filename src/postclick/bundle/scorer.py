"""The Scorer: the one path from exposures to probabilities, offline, online and in evaluation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from postclick.bundle.bundle import Bundle
from postclick.bundle.serving import served_scores
from postclick.data.arrays import Exposures
from postclick.data.encode import EncodeCounts
from postclick.data.scores import Scores
from postclick.models.base import Outputs

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["ScoredTable", "Scorer"]


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

    def score(self, exposures: Exposures, *, observe: Callable[[Outputs], None] | None = None) -> Scores:
        """Return the scores of encoded exposures, in order.

        Parameters
        ----------
        exposures
            Rows of a log, or of the encoder.
        observe
            Shown what the network gives for each batch, for instance ``GateSums().add``.
        """
        bundle = self.bundle
        constants, calibration = bundle.header.constants, bundle.calibration
        return served_scores(
            self._model, exposures, constants, calibration, batch_size=self.batch_size, observe=observe
        )

    def score_table(self, table: pa.Table | pa.RecordBatch) -> ScoredTable:
        """Return the scores of raw rows: values unseen in training go to the unknown row and are counted.

        Parameters
        ----------
        table
            The schema's feature columns, raw; others are ignored.
        """
        exposures, counts = self.bundle.encoder.encode(table, serving=True)
        return ScoredTable(self.score(exposures), counts)
