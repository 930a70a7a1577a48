"""From a network's scores to scores as served: constant priors put in, calibrated."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from postclick.bundle.header import Constant
from postclick.calibration import Calibration
from postclick.calibration.calibration import compose
from postclick.data.arrays import Exposures
from postclick.data.scores import Scores
from postclick.models.base import ConversionModel, Outputs
from postclick.models.scoring import score
from postclick.schema import Schema

__all__ = ["apply_constants", "field_columns", "served_scores"]


def apply_constants(scores: Scores, constants: Mapping[str, Constant]) -> Scores:
    """Put the constant priors in place of their heads and recompute what follows from them."""
    present = {head: constant.odds for head, constant in constants.items() if head in scores.odds}
    if not present:
        return scores
    odds = dict(scores.odds) | {head: np.full(len(scores), value) for head, value in present.items()}
    raw = {head: values for head, values in scores.raw.items() if head not in present and head not in scores.derived}
    return compose(replace(scores, odds=odds, raw=raw))


def served_scores(
    model: ConversionModel,
    exposures: Exposures,
    constants: Mapping[str, Constant],
    calibration: Calibration,
    *,
    batch_size: int,
    observe: Callable[[Outputs], None] | None = None,
) -> Scores:
    """Return scores as served: the network's, constant priors in place, calibrated; `observe` as for `score`."""
    raw = score(model, exposures, batch_size=batch_size, observe=observe)
    columns = field_columns(exposures, model.spec.schema, calibration.fields)
    return calibration.apply(apply_constants(raw, constants), columns)


def field_columns(exposures: Exposures, schema: Schema, names: Sequence[str]) -> dict[str, NDArray[np.int32]]:
    """Return field -> table row of its value, [B], of the sparse features in `names`."""
    places = {feature.name: place for place, feature in enumerate(schema.sparse)}
    return {name: exposures.rows[:, places[name]] for name in names}
