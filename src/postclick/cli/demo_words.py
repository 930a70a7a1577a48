"""The demo's sentences: chosen from its numbers, so they say what happened and not what was hoped for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from postclick.cli.tables import interval
from postclick.report.verdicts import inside, near

__all__ = ["AUC", "CLICKS", "LOGLOSS", "PCOC", "RAW_PCOC", "Results", "sentences"]

AUC, PCOC, LOGLOSS, CLICKS = "cvr/auc@world", "cvr/pcoc@world", "cvr/logloss@world", "cvr/auc@click"
RAW_PCOC = "cvr/pcoc[score=raw]@world"
_CLICK_PCOC = "cvr/pcoc@click"

Scores: TypeAlias = Mapping[str, Mapping[str, Mapping[str, Any]]]
"""Who scored (oracle, mlp, esmm) -> metric -> its plain form."""
Results: TypeAlias = Mapping[str, Scores]
"""World -> its scores."""


def sentences(results: Results) -> list[str]:
    """Return what the numbers of the two worlds say."""
    selection, control = results["selection"], results["no-bias"]
    return [
        f"selection: {_summary(selection)}",
        f"selection: {_level('mlp, trained on clicks,', selection['mlp'])}{_seen_on_clicks(selection['mlp'])}",
        f"selection: {_level('ESMM', selection['esmm'])}",
        f"selection: {_ranking(selection)}",
        f"no-bias: {_summary(control)}",
        f"no-bias: {_level('mlp, trained on clicks,', control['mlp'])}",
        f"no-bias: {_ranking(control)}",
    ]


def _bounds(entry: Mapping[str, Any]) -> tuple[float, float]:
    """The interval, or the value alone where there is none."""
    if entry["low"] is None:
        return entry["value"], entry["value"]
    return entry["low"], entry["high"]


def _summary(scores: Scores) -> str:
    """Say whether training on clicks is fine in this world: near in its mean, and not ranking visibly worse."""
    mlp, esmm = scores["mlp"], scores["esmm"]
    if None in (mlp[PCOC]["value"], mlp[AUC]["value"], esmm[AUC]["value"]):
        return "whether training on clicks is fine here cannot be judged."
    faults = [] if near(mlp[PCOC]) else ["in its mean"]
    faults += ["in its ranking"] if _bounds(mlp[AUC])[1] < _bounds(esmm[AUC])[0] else []
    if faults:
        return f"training on clicks goes wrong over exposures here, {' and '.join(faults)}."
    return "training on clicks is fine here."


def _level(who: str, metrics: Mapping[str, Mapping[str, Any]]) -> str:
    entry = metrics[PCOC]
    if entry["value"] is None:
        return f"the mean of {who} cannot be judged ({entry['undefined']})."
    shown = f"(PCOC {interval(entry, 2)})"
    if inside(entry):
        return f"{who} gets the mean CVR over all exposures right {shown}."
    share = abs(entry["value"] - 1.0)
    if near(entry):
        return f"{who} gets the mean CVR over all exposures right to {share:.0%} {shown}."
    verb = "over-states" if entry["value"] > 1.0 else "under-states"
    return f"{who} {verb} the CVR over all exposures by {share:.0%} {shown}."


def _seen_on_clicks(metrics: Mapping[str, Mapping[str, Any]]) -> str:
    """Say whether the rows a practitioner has would have shown the fault."""
    entry = metrics.get(_CLICK_PCOC)
    if entry is None or entry["value"] is None or near(metrics[PCOC]):
        return ""
    shown = f"(PCOC {interval(entry, 2)})"
    if near(entry):
        return f" On clicks, the only rows where conversions are observed, it looks right {shown}."
    return f" Clicks show it too {shown}."


def _ranking(scores: Scores) -> str:
    mlp, esmm, oracle = (scores[who][AUC] for who in ("mlp", "esmm", "oracle"))
    if mlp["value"] is None or esmm["value"] is None:
        return "the ranking cannot be judged."
    figures = f"{interval(mlp, 3)} against {interval(esmm, 3)}, the oracle's {oracle['value']:.3f}"
    (mlp_low, mlp_high), (esmm_low, esmm_high) = _bounds(mlp), _bounds(esmm)
    if mlp_high < esmm_low:
        return f"mlp ranks exposures worse than ESMM ({AUC} {figures})."
    if mlp_low > esmm_high:
        return f"mlp ranks exposures better than ESMM ({AUC} {figures})."
    return f"the intervals cannot tell whether mlp or ESMM ranks exposures better ({AUC} {figures})."
