"""The demo says what its numbers say, whatever they are."""

from __future__ import annotations

from typing import Any

import pytest

from postclick.cli.demo_words import AUC, PCOC, sentences


def metric(value: float | None, low: float | None = None, high: float | None = None) -> dict[str, Any]:
    undefined = "no positives" if value is None else None
    return {"value": value, "low": low, "high": high, "undefined": undefined}


def scores(auc: Any, pcoc: Any, clicks: Any = None) -> dict[str, Any]:
    found = {AUC: auc, PCOC: pcoc}
    return found | ({"cvr/pcoc@click": clicks} if clicks else {})


FINE = scores(metric(0.70, 0.69, 0.71), metric(1.01, 0.97, 1.05))
ORACLE = scores(metric(0.77), metric(1.0))


def said(mlp: Any, esmm: Any = FINE, world: str = "selection") -> str:
    chosen = {"oracle": ORACLE, "mlp": mlp, "esmm": esmm}
    fine = {"oracle": ORACLE, "mlp": FINE, "esmm": FINE}
    results = {"selection": fine, "no-bias": fine} | {world: chosen}
    return "\n".join(line for line in sentences(results) if line.startswith(world))


def test_a_mean_too_high_is_over_stated() -> None:
    text = said(scores(metric(0.7, 0.69, 0.71), metric(1.27, 1.2, 1.34), metric(1.0, 0.95, 1.05)))
    assert "mlp, trained on clicks, over-states the CVR over all exposures by 27% (PCOC 1.27 [1.20, 1.34])" in text
    assert "On clicks, the only rows where conversions are observed, it looks right (PCOC 1.00 [0.95, 1.05])" in text


def test_a_mean_too_low_is_under_stated() -> None:
    assert "under-states the CVR over all exposures by 20%" in said(scores(metric(0.7), metric(0.8, 0.75, 0.85)))


def test_a_fault_that_clicks_show_is_not_called_hidden() -> None:
    text = said(scores(metric(0.7), metric(1.3, 1.2, 1.4), metric(1.2, 1.15, 1.25)))
    assert "Clicks show it too" in text
    assert "looks right" not in text


def test_a_mean_that_is_nearly_right_says_how_nearly() -> None:
    text = said(scores(metric(0.7), metric(1.07, 1.04, 1.10), metric(1.0)))
    assert "gets the mean CVR over all exposures right to 7% (PCOC 1.07 [1.04, 1.10])" in text


@pytest.mark.parametrize("pcoc", [metric(1.2, 0.9, 1.5), metric(0.97, 0.93, 1.01), metric(1.0)])
def test_a_mean_that_is_right_is_called_right(pcoc: Any) -> None:
    text = said(scores(metric(0.7), pcoc, metric(1.0)))
    assert "gets the mean CVR over all exposures right (PCOC" in text
    assert "states" not in text


def test_a_ranking_that_differs_is_named() -> None:
    worse = said(scores(metric(0.60, 0.59, 0.61), metric(1.0)))
    assert "mlp ranks exposures worse than ESMM (cvr/auc@world 0.600 [0.590, 0.610] against 0.700" in worse
    assert "the oracle's 0.770" in worse
    assert "mlp ranks exposures better than ESMM" in said(
        scores(metric(0.75, 0.74, 0.76), metric(1.0)), world="no-bias"
    )


def test_intervals_that_overlap_cannot_tell() -> None:
    assert "cannot tell" in said(scores(metric(0.695, 0.685, 0.705), metric(1.0)))


@pytest.mark.parametrize(
    ("mlp", "verdict"),
    [
        (scores(metric(0.7), metric(1.05, 1.02, 1.08)), "training on clicks is fine here."),
        (scores(metric(0.8, 0.79, 0.81), metric(1.0)), "training on clicks is fine here."),
        (scores(metric(0.7), metric(1.5, 1.4, 1.6)), "training on clicks goes wrong over exposures here, in its mean."),
        (scores(metric(0.6), metric(1.0)), "training on clicks goes wrong over exposures here, in its ranking."),
        (scores(metric(0.6), metric(0.5)), "goes wrong over exposures here, in its mean and in its ranking."),
        (scores(metric(None), metric(1.0)), "whether training on clicks is fine here cannot be judged."),
    ],
)
@pytest.mark.parametrize("world", ["selection", "no-bias"])
def test_the_verdict_follows_the_numbers_in_either_world(mlp: Any, verdict: str, world: str) -> None:
    assert verdict in said(mlp, world=world)


def test_what_is_undefined_is_not_judged() -> None:
    text = said(scores(metric(None), metric(None)))
    assert "cannot be judged (no positives)" in text
    assert "the ranking cannot be judged" in text
