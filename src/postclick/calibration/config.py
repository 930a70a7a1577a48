"""Which calibrator each head gets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias

from postclick.binding import Argument

__all__ = ["CalibrationConfig", "Method"]

Method: TypeAlias = Literal["none", "platt", "isotonic"]


@dataclass(frozen=True)
class CalibrationConfig:
    """Calibrators by head.

    Parameters
    ----------
    ctr
        Fitted on all exposures against the click.
    cvr
        Fitted on clicked exposures against the conversion; without effect where cvr is derived.
    ctcvr
        Fitted on all exposures against click and conversion, for systems whose own head is ctcvr (their cvr is then
        derived from the calibrated pair); elsewhere ctcvr is the product of the calibrated ctr and cvr.
    """

    ctr: Annotated[Method, Argument("calibrator of the CTR, fitted on exposures")] = "platt"
    cvr: Annotated[Method, Argument("calibrator of the CVR, fitted on clicks")] = "platt"
    ctcvr: Annotated[Method, Argument("calibrator of a CTCVR head, fitted on exposures")] = "platt"
