"""Inverse propensity weights of the clicks that a CVR is calibrated on."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from postclick.data.arrays import Labels
from postclick.data.scores import probability
from postclick.errors import DataError, Finding
from postclick.metrics.overlap import RELATIVE_FLOOR

__all__ = ["inverse_propensity"]

Array = NDArray[np.float64]


def inverse_propensity(ctr: Array, labels: Labels, *, logged: bool = False) -> Array:
    """Return 1 / max(p, floor) of every exposure; it weighs clicks so that they stand for all exposures.

    A calibrator fitted on clicks puts the mean over *clicks* right, and so brings back the bias that a weighted loss
    took out; fitted with these weights it puts the mean over *exposures* right, where p is right and the overlap holds.
    The floor is `RELATIVE_FLOOR` times these rows' click rate (SYSTEMS, Decision 4).

    Parameters
    ----------
    ctr
        Log-odds of the calibrated CTR, [B]; of the population, also where the log is down-sampled.
    labels
        Of the same rows.
    logged
        Take the logged propensity in place of the CTR.

    Raises
    ------
    DataError
        ``data.label_missing`` where a logged one is asked for and there is none.
    """
    if logged and labels.propensity is None:
        fix = "name the column in the schema (propensity = ...) and prepare the log again"
        raise DataError(Finding("data.label_missing", "calibration needs logged propensities", fix=fix))
    propensity = labels.propensity if logged and labels.propensity is not None else probability(ctr)
    weight = np.ones(len(labels)) if labels.sample_weight is None else labels.sample_weight
    total = float(weight.sum())
    rate = float(weight @ (labels.click == 1)) / total if total > 0.0 else 0.0
    return np.asarray(1.0 / np.maximum(propensity, max(RELATIVE_FLOOR * rate, 1e-12)))
