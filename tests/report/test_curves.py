from __future__ import annotations

import numpy as np
import pytest

from postclick.report.curves import curves_of, wilson


def test_wilson_by_hand() -> None:
    # 10 of 100, z = 1.96: centre (0.1 + 0.0192) / 1.0384, half width by the formula
    low, high = wilson(10.0, 100.0)
    assert (low, high) == pytest.approx((0.05523, 0.17437), abs=1e-5)
    assert wilson(0.0, 0.0) == (0.0, 1.0)
    assert wilson(0.0, 50.0)[0] == 0.0


def test_wilson_covers() -> None:
    rng = np.random.default_rng(0)
    hits = [low <= 0.1 <= high for low, high in (wilson(float(k), 200.0) for k in rng.binomial(200, 0.1, 2000))]
    assert 0.93 < np.mean(hits) < 0.97


def test_stored_tables_are_read_bin_by_bin() -> None:
    bins = [{"rows": 10, "predicted": 0.1, "observed": 0.2, "low": 0.05, "high": 0.4}]
    (curve,) = curves_of({"reliability": {"cvr@click|shop=a": bins}})
    assert (curve.place, curve.predicted, curve.observed, curve.rows) == ("cvr@click|shop=a", (0.1,), (0.2,), (10.0,))
    assert (curve.low, curve.high) == ((0.05,), (0.4,))
    assert curves_of({}) == ()
