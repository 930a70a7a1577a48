"""From probabilities of a down-sampled log to those of the whole: what a network that saw the sample alone needs.

With keep rates s0 (unclicked), s1 (clicked, not converted) and 1 (converted) the sample's own probabilities are

    q = s1 q_s / (1 - q_s + s1 q_s),    odds(p) = s0 odds(p_s) / (q + s1 (1 - q)),    ctcvr = p q.

The clicks are kept at q + s1 (1 - q), which depends on the exposure's CVR: the textbook formula, odds(t) = s odds(t_s),
is wrong for the product (SYSTEMS, Decision 13).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from postclick.calibration.odds import log_pair, product
from postclick.data.scores import Scores
from postclick.schema import KeepRates

__all__ = ["SamplingCorrection"]


@dataclass(frozen=True)
class SamplingCorrection:
    """The correction for given keep rates.

    Parameters
    ----------
    keep
        s0 and s1.
    """

    keep: KeepRates

    def __call__(self, scores: Scores) -> Scores:
        """Return scores of the whole log: ctr, cvr and ctcvr; the caller composes what follows from them.

        A derived cvr is the quotient as it stands, at most 1: rows whose ctcvr exceeded their ctr lose the excess.
        """
        odds = dict(scores.odds)
        cvr = odds["cvr"] + np.log(self.keep.clicked)
        log_q, log_rest = log_pair(cvr)
        kept = np.logaddexp(log_q, np.log(self.keep.clicked) + log_rest)
        ctr = odds["ctr"] + np.log(self.keep.unclicked) - kept
        return replace(scores, odds=odds | {"ctr": ctr, "cvr": cvr, "ctcvr": product(ctr, cvr)})

    def to_dict(self) -> dict[str, Any]:
        """Return the plain form."""
        return {"unclicked": self.keep.unclicked, "clicked": self.keep.clicked}

    @classmethod
    def from_dict(cls, form: Mapping[str, Any]) -> SamplingCorrection:
        """Read the plain form; a wrong one raises KeyError, TypeError or ValueError."""
        return cls(KeepRates(float(form["unclicked"]), float(form["clicked"])))
