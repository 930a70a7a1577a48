"""Calibration: monotone maps of log-odds to log-odds, one a head, fitted on the `calibrate` half of ``valid`` only."""

from postclick.calibration.calibration import Calibration, HeadCalibration
from postclick.calibration.config import CalibrationConfig, Method
from postclick.calibration.isotonic import Isotonic, fit_isotonic
from postclick.calibration.platt import Platt, fit_platt

__all__ = [
    "Calibration",
    "CalibrationConfig",
    "HeadCalibration",
    "Isotonic",
    "Method",
    "Platt",
    "fit_isotonic",
    "fit_platt",
]
