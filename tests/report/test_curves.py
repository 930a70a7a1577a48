from __future__ import annotations

from pathlib import Path
from typing import Any

from postclick.report.collect import collect
from postclick.report.curves import curves_of


def test_stored_tables_are_read_bin_by_bin() -> None:
    bins = [{"rows": 10, "predicted": 0.1, "observed": 0.2, "low": 0.05, "high": 0.4}]
    (curve,) = curves_of({"reliability": {"cvr@click|shop=a": bins}})
    assert (curve.place, curve.predicted, curve.observed, curve.rows) == ("cvr@click|shop=a", (0.1,), (0.2,), (10.0,))
    assert (curve.low, curve.high) == ((0.05,), (0.4,))
    assert curves_of({}) == ()


def test_a_column_asked_for_has_the_curves_that_evaluate_gives(small_run: Any, small_log: Any) -> None:
    from postclick.run.assessment import evaluate_bundle

    (study,) = collect([Path(small_run.path)], [small_log.path], ["shop"]).studies
    run = study.contestants[0].run
    assert run is not None
    wanted = {
        curve.place: curve
        for curve in curves_of(evaluate_bundle(small_run.path, small_log.path, by=["shop"]).to_dict())
    }
    assert any("|shop=" in place for place in wanted)
    shown = {curve.place: curve for curve in run.curves}
    assert {place: shown.get(place) for place in wanted} == wanted
    assert all(
        curve.place.endswith("@world") and not curve.low for place, curve in shown.items() if place not in wanted
    )
