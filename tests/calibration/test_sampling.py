"""From the sample's probabilities to those of the whole log."""

from __future__ import annotations

import numpy as np
import pytest

from postclick.calibration.calibration import compose
from postclick.calibration.sampling import SamplingCorrection
from postclick.data.scores import Scores, log_odds, probability
from postclick.schema import KeepRates

KEEP = KeepRates(0.1, 0.4)


def sampled(p, q, keep):
    """Return P(click) and P(conversion | click) among the kept rows, by counting masses."""
    converted, clicked, unclicked = p * q, p * (1 - q) * keep.clicked, (1 - p) * keep.unclicked
    return (converted + clicked) / (converted + clicked + unclicked), converted / (converted + clicked)


def odds(share):
    return log_odds(np.log(share), np.log1p(-share))


@pytest.mark.parametrize("keep", [KEEP, KeepRates(0.01, 1.0), KeepRates(1.0, 0.2), KeepRates()])
def test_undoes_the_draw_exactly(keep):
    rng = np.random.default_rng(0)
    p, q = rng.uniform(0.001, 0.9, 200), rng.uniform(0.001, 0.9, 200)
    p_s, q_s = sampled(p, q, keep)
    scores = compose(Scores({"ctr": odds(p_s), "cvr": odds(q_s), "ctcvr": np.zeros(200)}, {}))
    served = SamplingCorrection(keep)(scores)
    assert served.probability("ctr") == pytest.approx(p, rel=1e-10)
    assert served.probability("cvr") == pytest.approx(q, rel=1e-10)
    assert served.probability("ctcvr") == pytest.approx(p * q, rel=1e-10)


def test_as_decision_13_writes_it():
    p_s, q_s = np.array([0.3]), np.array([0.2])
    served = SamplingCorrection(KEEP)(compose(Scores({"ctr": odds(p_s), "cvr": odds(q_s), "ctcvr": np.zeros(1)}, {})))
    q = 0.4 * q_s / (1 - q_s + 0.4 * q_s)
    ratio = 0.1 * p_s / (1 - p_s) / (q + 0.4 * (1 - q))
    assert served.probability("cvr") == pytest.approx(q)
    assert served.probability("ctr") == pytest.approx(ratio / (1 + ratio))


def test_the_textbook_formula_on_the_product_is_wrong():
    """The planted twin: odds(t) = s0 odds(t_s)."""
    p, q, keep = np.array([0.3]), np.array([0.3]), KeepRates(0.05)
    p_s, q_s = sampled(p, q, keep)
    textbook = probability(odds(p_s * q_s) + np.log(keep.unclicked))
    assert abs(textbook / (p * q) - 1.0) > 0.3


def test_the_action_is_left_and_extremes_are_finite():
    wild = np.array([-1e4, -40.0, 40.0, 1e4])
    heads = {"ctr": wild, "cvr": wild, "ctcvr": wild, "action": wild}
    served = SamplingCorrection(KEEP)(Scores(heads, {}))
    assert all(np.isfinite(values).all() for values in served.odds.values())
    assert np.array_equal(served.odds["action"], wild)


def test_plain_form_and_back():
    correction = SamplingCorrection(KEEP)
    assert SamplingCorrection.from_dict(correction.to_dict()) == correction
    with pytest.raises(ValueError, match="keep rate"):
        SamplingCorrection.from_dict({"unclicked": 0.0, "clicked": 1.0})
