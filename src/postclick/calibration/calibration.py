"""The calibrators of all heads together: fitted once, stored as JSON, applied to scores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from postclick.calibration.config import CalibrationConfig, Method
from postclick.calibration.isotonic import Isotonic, fit_isotonic
from postclick.calibration.platt import Platt, fit_platt, log_loss
from postclick.data.arrays import CENSORED, Labels
from postclick.data.scores import Scores
from postclick.errors import BundleError, Finding

__all__ = ["MINIMUM", "Calibration", "HeadCalibration", "compose"]

Array = NDArray[np.float64]
MINIMUM = 50
"""Fewer positives or negatives than this in the calibrate half: the head stays as it is."""
MARGIN = 1e-6
"""A derived probability is clipped to at most 1 - MARGIN."""


@dataclass(frozen=True)
class HeadCalibration:
    """The calibrator of one head and what it was fitted on.

    Parameters
    ----------
    method
        What runs.
    map
        The map, or None for ``none``.
    reason
        Why nothing runs although something was asked for; empty otherwise.
    rows, positives
        Fitting rows and positives among them.
    """

    method: Method
    map: Platt | Isotonic | None = None
    reason: str = ""
    rows: int = 0
    positives: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return the plain form."""
        form: dict[str, Any] = {"method": self.method, "rows": self.rows, "positives": self.positives}
        if self.reason:
            form["reason"] = self.reason
        if isinstance(self.map, Platt):
            form |= {"slope": self.map.slope, "offset": self.map.offset}
        elif isinstance(self.map, Isotonic):
            form |= {"knots": list(self.map.knots), "levels": list(self.map.levels)}
        return form

    @classmethod
    def from_dict(cls, form: Mapping[str, Any]) -> HeadCalibration:
        """Read the plain form; a wrong one raises KeyError, TypeError or ValueError."""
        rows, positives = int(form["rows"]), int(form["positives"])
        if form["method"] == "platt":
            slope, offset = float(form["slope"]), float(form["offset"])
            if not (slope > 0.0 and np.isfinite([slope, offset]).all()):
                raise ValueError(f"slope {slope}, offset {offset}")
            return cls("platt", Platt(slope, offset), "", rows, positives)
        if form["method"] == "isotonic":
            knots, levels = (tuple(map(float, form[name])) for name in ("knots", "levels"))
            if len(knots) != len(levels) or not knots or not _increasing(knots) or not _increasing(levels):
                raise ValueError("knots and levels must increase together")
            return cls("isotonic", Isotonic(knots, levels), "", rows, positives)
        if form["method"] == "none":
            return cls("none", None, str(form.get("reason", "")), rows, positives)
        raise ValueError(f"no method {form['method']!r}")


def _increasing(values: tuple[float, ...]) -> bool:
    return bool(np.isfinite(values).all() and (np.diff(values) > 0).all())


@dataclass(frozen=True)
class Calibration:
    """Calibrators by head: ctr and cvr for product systems, ctr and ctcvr where cvr is derived."""

    heads: Mapping[str, HeadCalibration]

    @classmethod
    def fit(
        cls, scores: Scores, labels: Labels, config: CalibrationConfig, *, constant: frozenset[str] = frozenset()
    ) -> Calibration:
        """Fit each head on the rows where its label is observed.

        Parameters
        ----------
        scores
            Uncalibrated scores of the `calibrate` half of ``valid``.
        labels
            Their labels.
        config
            The method of each head.
        constant
            Heads that are a constant prior; they stay as they are.
        """
        own = "ctcvr" if "cvr" in scores.derived else "cvr"
        fitted = {}
        for head in ("ctr", own):
            method: Method = getattr(config, head)
            if head in constant:
                fitted[head] = HeadCalibration("none", reason="the head is a constant prior")
            else:
                fitted[head] = _fit_head(method, scores.odds[head], *_observed(head, labels))
        return cls(fitted)

    @classmethod
    def none(cls, reason: str, *heads: str) -> Calibration:
        """Return the calibration that leaves `heads` as they are, for `reason`."""
        return cls({head: HeadCalibration("none", reason=reason) for head in heads})

    def apply(self, scores: Scores) -> Scores:
        """Return calibrated scores; the log-odds before go to `Scores.raw`."""
        maps = {head: entry.map for head, entry in self.heads.items() if entry.map is not None}
        if not maps:
            return scores
        odds = dict(scores.odds) | {head: transform(scores.odds[head]) for head, transform in maps.items()}
        return replace(compose(replace(scores, odds=odds)), raw=dict(scores.odds))

    def to_dict(self) -> dict[str, Any]:
        """Return the plain form, as `calibration.json` holds it."""
        return {"format": 1, "heads": {head: entry.to_dict() for head, entry in self.heads.items()}}

    @classmethod
    def from_dict(cls, form: Any) -> Calibration:
        """Read the plain form.

        Raises
        ------
        BundleError
            When it is not one.
        """
        try:
            if form["format"] != 1:
                raise ValueError(f"format {form['format']!r} is not 1")
            return cls({str(head): HeadCalibration.from_dict(entry) for head, entry in form["heads"].items()})
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            finding = Finding("bundle.malformed", f"not a calibration ({error!r})", "calibration.json")
            raise BundleError(finding) from error


def _observed(head: str, labels: Labels) -> tuple[NDArray[np.bool_], NDArray[np.int8], Array]:
    """Return the rows where the label of `head` is observed, the label and the sample weight of all rows."""
    weight = np.ones(len(labels)) if labels.sample_weight is None else labels.sample_weight
    if head == "ctr":
        return labels.click != CENSORED, labels.click, weight
    known = labels.conversion != CENSORED
    return (known & (labels.click == 1) if head == "cvr" else known), labels.conversion, weight


def _fit_head(
    method: Method, odds: Array, observed: NDArray[np.bool_], label: NDArray[np.int8], weight: Array
) -> HeadCalibration:
    use = observed & (weight > 0.0)
    rows, positives = int(use.sum()), int((label[use] == 1).sum())
    if method == "none":
        return HeadCalibration("none", rows=rows, positives=positives)
    if min(positives, rows - positives) < MINIMUM:
        reason = f"{positives} positives and {rows - positives} negatives, fewer than {MINIMUM}"
        return HeadCalibration("none", None, reason, rows, positives)
    odds, truth, weight = odds[use], label[use].astype(np.float64), weight[use]
    fitted = fit_platt(odds, truth, weight) if method == "platt" else fit_isotonic(odds, truth, weight)
    if log_loss(fitted(odds), truth, weight) > log_loss(odds, truth, weight):
        return HeadCalibration("none", None, f"{method} did not lower the log-loss of its own rows", rows, positives)
    return HeadCalibration(method, fitted, "", rows, positives)


def compose(scores: Scores) -> Scores:
    """Recompute what follows from the other heads: ctcvr = ctr * cvr, or the derived cvr = ctcvr / ctr, clipped.

    Where the system has them, so does ctar = ctr * action, or the derived action = ctar / ctr. `Scores.clipped` counts
    the cvr alone.
    """
    odds, clipped = dict(scores.odds), scores.clipped
    if "cvr" in scores.derived:
        odds["cvr"], clipped = _quotient(odds["ctcvr"], odds["ctr"])
    else:
        odds["ctcvr"] = _product(odds["ctr"], odds["cvr"])
    if "action" in odds and "ctar" in odds:
        if "action" in scores.derived:
            odds["action"], _ = _quotient(odds["ctar"], odds["ctr"])
        else:
            odds["ctar"] = _product(odds["ctr"], odds["action"])
    return replace(scores, odds=odds, clipped=clipped)


def _product(one: Array, other: Array) -> Array:
    """Return the log-odds of the product of two probabilities."""
    first, second = _pair(one), _pair(other)
    return np.asarray(first[0] + second[0] - np.logaddexp(first[1], first[0] + second[1]))


def _quotient(joint: Array, whole: Array) -> tuple[Array, int]:
    """Return the log-odds of joint / whole, clipped to at most 1 - MARGIN, and how many left [0, 1]."""
    quotient = _pair(joint)[0] - _pair(whole)[0]
    log_q = np.minimum(quotient, np.log1p(-MARGIN))
    return np.asarray(log_q - np.log(-np.expm1(log_q))), int((quotient > 0.0).sum())


def _pair(odds: Array) -> tuple[Array, Array]:
    """Return log p and log(1 - p)."""
    return -np.logaddexp(0.0, -odds), -np.logaddexp(0.0, odds)
