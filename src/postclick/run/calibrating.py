"""Which rows and weights a run trains on where the log is down-sampled, and how its calibrators are fitted."""

from __future__ import annotations

from collections.abc import Mapping

from postclick.bundle.header import Constant
from postclick.bundle.serving import apply_constants, field_columns
from postclick.calibration import Calibration, SamplingCorrection
from postclick.data.arrays import Exposures
from postclick.data.log import ExposureLog
from postclick.errors import ConfigError, Finding
from postclick.models.base import ConversionModel
from postclick.models.scoring import score
from postclick.run.config import RunConfig

__all__ = ["corrected", "fit_calibration", "require_calibration", "trained_log"]


def corrected(log: ExposureLog, config: RunConfig) -> bool:
    """Return whether the network learns the sample as it is, so that its scores must be corrected."""
    return config.training.sampling == "correct" and not log.schema.keep_rates.whole


def trained_log(log: ExposureLog, config: RunConfig) -> ExposureLog:
    """Return the log as training reads it: weighed by 1 / keep rate, or not where scores are corrected afterwards."""
    return ExposureLog(log.path, weigh=False) if corrected(log, config) else log


def require_calibration(log: ExposureLog, config: RunConfig, model: ConversionModel) -> None:
    """Refuse a calibration that the log or the system does not allow.

    Raises
    ------
    ConfigError
        Unknown fields, a logged propensity that is not there, a correction that nothing is known for.
    """
    problems: list[Finding] = []
    try:
        config.calibration.require(log.schema)
    except ConfigError as error:
        problems += error.findings
    if corrected(log, config):
        fix = "use training.sampling = weights"
        where = "training.sampling"
        if "action" in model.heads or "ctar" in model.heads:
            what = "how sampling by conversion moves the action rate is not known from the keep rates"
            problems.append(Finding("config.combination", what, where, fix=fix))
        if config.arguments.get("propensity") == "logged":
            what = "the logged propensity is of the whole log, the rows are of the sample: one does not weigh the other"
            problems.append(Finding("config.combination", what, where, fix=fix))
    if problems:
        raise ConfigError(*problems)


def fit_calibration(
    model: ConversionModel, log: ExposureLog, config: RunConfig, constants: Mapping[str, Constant]
) -> tuple[Calibration, Exposures]:
    """Fit the calibrators on their half of ``valid``; returns them and rows for the bundle's reference.

    Parameters
    ----------
    model
        Trained.
    log
        The log, weighed.
    config
        Of the run.
    constants
        Heads that are a constant prior.
    """
    sampling = SamplingCorrection(log.schema.keep_rates) if corrected(log, config) else None
    valid = log.split("valid")
    rows = valid.read("calibrate") if len(valid) else None
    if rows is None or not len(rows) or rows.labels is None:
        own = "cvr" if model.heads.get("cvr") == "head" else "ctcvr"
        none = Calibration.none("no rows to calibrate on", "ctr", own, sampling=sampling)
        return none, log.split("train").block(0)
    fitted = Calibration.fit(
        apply_constants(score(model, rows), constants),
        rows.labels,
        config.calibration,
        constant=frozenset(constants),
        columns=field_columns(rows, log.schema, config.calibration.fields),
        sampling=sampling,
    )
    return fitted, rows
