"""Calibration: maps of log-odds to log-odds, one a head, fitted on the `calibrate` half of ``valid`` only."""

from postclick.calibration.beta import Beta, fit_beta
from postclick.calibration.calibration import Calibration, HeadCalibration
from postclick.calibration.config import CalibrationConfig, Method
from postclick.calibration.field_aware import FieldAware, FieldShifts, fit_field_aware
from postclick.calibration.isotonic import Isotonic, fit_isotonic
from postclick.calibration.platt import Platt, fit_platt
from postclick.calibration.sampling import SamplingCorrection
from postclick.calibration.temperature import Temperature, fit_temperature

__all__ = [
    "Beta",
    "Calibration",
    "CalibrationConfig",
    "FieldAware",
    "FieldShifts",
    "HeadCalibration",
    "Isotonic",
    "Method",
    "Platt",
    "SamplingCorrection",
    "Temperature",
    "fit_beta",
    "fit_field_aware",
    "fit_isotonic",
    "fit_platt",
    "fit_temperature",
]
