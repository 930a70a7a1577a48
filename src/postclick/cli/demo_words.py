"""The demo's sentences: chosen from its numbers, so they say what happened and not what was hoped for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from postclick.cli.tables import interval

__all__ = ["AUC", "CLICKS", "LOGLOSS", "PCOC", "RAW_PCOC", "Results", "sentences"]

AUC, PCOC, LOGLOSS, CLICKS = "cvr/auc@world", "cvr/pcoc@world", "cvr/logloss@world", "cvr/auc@click"
RAW_PCOC = "cvr/pcoc[score=raw]@world"
_CLICK_PCOC = "cvr/pcoc@click"
_NEAR = 0.05
"""A mean within 5 % of the truth is called right even where its interval excludes 1."""

Results: TypeAlias = Mapping[str, Mapping[str, Mapping[str, Mapping[str, Any]]]]
"""World -> who scored (oracle, mlp, esmm) -> metric -> its plain form."""


def sentences(results: Results) -> list[str]:
    """Return what the numbers of the two worlds say."""
    selection, control = results["selection"], results["no-bias"]
    return [
        f"selection: {_level('mlp, trained on clicks,', selection['mlp'])}{_seen_on_clicks(selection['mlp'])}",
        f"selection: {_level('ESMM', selection['esmm'])}",
        f"selection: {_ranking(selection)}",
        f"no-bias: {_level('mlp, trained on clicks,', control['mlp'])}",
        f"no-bias: {_ranking(control)}",
    ]


def _bounds(entry: Mapping[str, Any]) -> tuple[float, float]:
    """The interval, or the value alone where there is none."""
    if entry["low"] is None:
        return entry["value"], entry["value"]
    return entry["low"], entry["high"]


def _right(entry: Mapping[str, Any]) -> bool:
    low, high = _bounds(entry)
    return low <= 1.0 <= high or abs(entry["value"] - 1.0) <= _NEAR


def _level(who: str, metrics: Mapping[str, Mapping[str, Any]]) -> str:
    entry = metrics[PCOC]
    if entry["value"] is None:
        return f"the mean of {who} cannot be judged ({entry['undefined']})."
    shown = f"(PCOC {interval(entry, 2)})"
    if _right(entry):
        return f"{who} gets the mean CVR over all exposures right {shown}."
    share = abs(entry["value"] - 1.0)
    verb = "over-states" if entry["value"] > 1.0 else "under-states"
    return f"{who} {verb} the CVR over all exposures by {share:.0%} {shown}."


def _seen_on_clicks(metrics: Mapping[str, Mapping[str, Any]]) -> str:
    """Say whether the rows a practitioner has would have shown the fault."""
    entry = metrics.get(_CLICK_PCOC)
    if entry is None or entry["value"] is None or _right(metrics[PCOC]):
        return ""
    shown = f"(PCOC {interval(entry, 2)})"
    if _right(entry):
        return f" On clicks, the only rows where conversions are observed, it looks right {shown}."
    return f" Clicks show it too {shown}."


def _ranking(scores: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
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
