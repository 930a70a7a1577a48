"""Numbers and names for people: how a figure is written, and what a metric means."""

from __future__ import annotations

import math
from functools import cache

from postclick.errors import ConfigError, escaped
from postclick.evaluation.names import MetricName

__all__ = [
    "HEADS",
    "METRICS",
    "POPULATIONS",
    "count",
    "gain",
    "interval",
    "lower_is_better",
    "meaning",
    "number",
    "percent",
    "place_title",
    "plain",
    "setting",
    "settled",
    "signed",
    "title",
]

LONGEST = 60
"""Characters of a name that a page shows: a category may be a page long."""

HEADS = {
    "ctr": ("CTR", "the chance that an exposure is clicked"),
    "cvr": ("CVR", "the chance that a click converts, given for every exposure"),
    "ctcvr": ("CTCVR", "the chance that an exposure is clicked and converts"),
    "action": ("action rate", "the chance that a click leads to an in-shop action"),
    "ctar": ("CTAR", "the chance that an exposure is clicked and leads to an in-shop action"),
}
POPULATIONS = {
    "exposure": ("on exposures", "every exposure, with its observed label"),
    "click": ("on clicks", "clicked rows alone, the only ones whose conversion is observed"),
    "world": ("against the truth", "every exposure, against the true probability that the simulated world knows"),
    "random": ("on random exposures", "rows whose exposure was drawn at random"),
}
METRICS = {
    "auc": (
        "AUC",
        "The chance that a positive is ranked above a negative: 0.5 is guessing, 1 is perfect. Higher is better.",
    ),
    "gauc": ("GAUC", "AUC within each user, averaged over users by their rows. Higher is better."),
    "pr_auc": ("PR-AUC", "Average precision over all cut-offs; guessing gives the base rate. Higher is better."),
    "logloss": (
        "log-loss",
        "Average surprise at what happened, in nats: it punishes bad ranking and bad level. Lower is better.",
    ),
    "ne": ("NE", "Log-loss over that of always saying the base rate: under 1 is better than that. Lower is better."),
    "brier": ("Brier score", "Mean squared distance of prediction and outcome. Lower is better."),
    "pcoc": ("PCOC", "Predicted over observed: 1 is the right level, 1.2 promises a fifth too much."),
    "ece": ("ECE", "Mean distance of predicted and observed over bins; noise alone gives some. Lower is better."),
    "field_rce": (
        "Field-RCE",
        "Mean relative distance of predicted and observed over the values of a field. Lower is better.",
    ),
    "mae": ("MAE", "Mean distance of prediction and true probability. Lower is better."),
    "ks": ("KS", "Largest gap between the score's distributions on positives and on negatives. Higher is better."),
    "recall": ("recall", "Share of the positives among the rows with the highest scores. Higher is better."),
    "f1": ("F1", "Harmonic mean of precision and recall among the rows with the highest scores. Higher is better."),
    "lift": (
        "lift",
        "Positives among the rows with the highest scores, over those of a random choice. Higher is better.",
    ),
    "mean": ("mean", "Mean prediction; in brackets, how it was estimated."),
    "ndcg": ("NDCG", "How far up a user's list the positives stand: 1 is at the top. Higher is better."),
    "value": ("value", "Value or bids of the conversions among the rows with the highest scores. Higher is better."),
}
_LOWER = ("logloss", "ne", "brier", "ece", "mae", "field_rce")
_NARROW = "\N{NARROW NO-BREAK SPACE}"
_MINUS = "\N{MINUS SIGN}"
VARIANTS = {"score=raw": "before calibration"}


def plain(value: object, limit: int = LONGEST) -> str:
    """Return text in which every character can be seen, bidirectional marks escaped, its end cut off."""
    text = escaped(str(value)[: limit + 1])
    return text if len(text) <= limit else text[: limit - 1] + "\N{HORIZONTAL ELLIPSIS}"


def number(value: float | None, digits: int = 4) -> str:
    """Return a number to `digits` significant figures; thousands apart, no exponent where it can be avoided."""
    if value is None or not math.isfinite(value):
        return "–"
    if value == 0.0:
        return "0"
    size = math.floor(math.log10(abs(value)))
    if size < -5 or size >= 12:
        return f"{value:.{max(digits - 1, 0)}e}".replace("-", _MINUS)
    text = f"{value:,.{max(digits - 1 - size, 0)}f}"
    return text.replace("-", _MINUS)


def settled(value: float) -> float:
    """Return 0 for what differs from it by rounding alone: the distance of the truth from itself."""
    return 0.0 if abs(value) < 1e-12 else value


def count(value: float | None) -> str:
    """Return a count, thousands apart."""
    return "–" if value is None else f"{value:,.0f}"


def percent(share: float | None, digits: int = 3) -> str:
    """Return a share in per cent to `digits` significant figures, at most two decimals over 1 %."""
    if share is None or not math.isfinite(share):
        return "–"
    value = 100.0 * share
    if value == 0.0:
        return f"0{_NARROW}%"
    size = math.floor(math.log10(abs(value)))
    decimals = min(max(digits - 1 - size, 0), 6)
    return f"{value:.{decimals}f}{_NARROW}%".replace("-", _MINUS)


def _decimals(low: float, high: float) -> int:
    """Decimals that show an interval's width to two figures."""
    width = abs(high - low)
    if not math.isfinite(width) or width <= 0.0:
        return 4
    return min(max(1 - math.floor(math.log10(width)), 0), 6)


def interval(value: float, low: float | None, high: float | None, *, sign: bool = False) -> str:
    """Return ``value [low, high]`` with as many decimals as the interval's width deserves, three or more."""
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return signed(value) if sign else number(value)
    decimals = max(3, _decimals(low, high))
    form = f"{'+' if sign else ''}.{decimals}f"
    return f"{value:{form}} [{low:{form}}, {high:{form}}]".replace("-", _MINUS)


def signed(value: float | None, decimals: int = 4) -> str:
    """Return a difference with its sign."""
    return "–" if value is None else f"{value:+.{decimals}f}".replace("-", _MINUS)


def gain(share: float | None) -> str:
    """Return a relative difference in per cent, with its sign and two decimals."""
    if share is None or not math.isfinite(share):
        return "–"
    return f"{100.0 * share:+.2f}{_NARROW}%".replace("-", _MINUS)


def setting(value: object) -> str:
    """Return the value of a setting as a person would write it."""
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(setting(entry) for entry in value) + "]"
    return plain("off" if value is None else value, 40)


@cache
def _parsed(name: str) -> MetricName | None:
    try:
        return MetricName.parse(name)
    except ConfigError:
        return None


def place_title(place: str) -> str:
    """Return ``HEAD@POPULATION`` in words: ``cvr@click`` is "CVR on clicks"."""
    head, _, population = place.partition("@")
    return f"{HEADS.get(head, (head, ''))[0]} {POPULATIONS[population][0]}"


def title(name: str) -> str:
    """Return a metric's name in words: ``cvr/auc@click`` is "AUC of CVR on clicks"."""
    found = _parsed(name)
    if found is None:
        return plain(name)
    variant = f" ({VARIANTS.get(found.variant, found.variant)})" if found.variant else ""
    part = f", {plain(found.slice, 40)}" if found.slice else ""
    metric = METRICS.get(found.metric, (found.metric, ""))[0]
    return f"{metric} of {place_title(f'{found.head}@{found.population}')}{variant}{part}"


def meaning(name: str) -> str:
    """Return what a metric measures, in a sentence or two."""
    found = _parsed(name)
    return "" if found is None else METRICS.get(found.metric, ("", ""))[1]


def lower_is_better(name: str) -> bool:
    """Return whether less of a metric is better."""
    found = _parsed(name)
    return found is not None and found.metric in _LOWER
