"""Tuning: settings of a system searched on the validation rows, the best trained and held against the default."""

from postclick.tuning.search import Trial
from postclick.tuning.space import Choice, Range, space
from postclick.tuning.tuning import TuningResult, tune

__all__ = ["Choice", "Range", "Trial", "TuningResult", "space", "tune"]
