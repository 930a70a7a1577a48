"""The calibrators of all heads together: fitted once, stored as JSON, applied to scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from postclick.calibration.beta import Beta, fit_beta
from postclick.calibration.config import CalibrationConfig, Method
from postclick.calibration.field_aware import Columns, FieldAware, fit_field_aware
from postclick.calibration.isotonic import Isotonic, fit_isotonic
from postclick.calibration.odds import log_pair, product
from postclick.calibration.platt import Platt, fit_platt, log_loss
from postclick.calibration.sampling import SamplingCorrection
from postclick.calibration.temperature import Temperature, fit_temperature
from postclick.calibration.weights import inverse_propensity
from postclick.data.arrays import CENSORED, Labels
from postclick.data.scores import Scores
from postclick.errors import BundleError, Finding

__all__ = ["MINIMUM", "Calibration", "HeadCalibration", "compose"]

Array = NDArray[np.float64]
Map: TypeAlias = Platt | Temperature | Beta | Isotonic | FieldAware
MAPS: Mapping[Method, type[Map]] = {
    "platt": Platt,
    "temperature": Temperature,
    "beta": Beta,
    "isotonic": Isotonic,
    "field-aware": FieldAware,
}
_FITS: Mapping[Method, Callable[[Array, Array, Array], Map]] = {
    "platt": fit_platt,
    "temperature": fit_temperature,
    "beta": fit_beta,
    "isotonic": fit_isotonic,
}
MINIMUM = 50
"""Fewer positives or negatives than this in the calibrate half (by effective number): the head stays as it is."""
MARGIN = 1e-6
"""A derived probability is clipped to at most 1 - MARGIN."""
_NO_COLUMNS: Columns = {}


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
    effective
        (sum w)^2 / sum w^2 of weighted rows: how many equal ones they are worth; None where they all count alike.
    """

    method: Method
    map: Map | None = None
    reason: str = ""
    rows: int = 0
    positives: int = 0
    effective: float | None = None

    def __call__(self, odds: Array, columns: Columns = _NO_COLUMNS) -> Array:
        """Return calibrated log-odds, [B]."""
        if self.map is None:
            return odds
        return self.map(odds, columns) if isinstance(self.map, FieldAware) else self.map(odds)

    def to_dict(self) -> dict[str, Any]:
        """Return the plain form."""
        form: dict[str, Any] = {"method": self.method, "rows": self.rows, "positives": self.positives}
        if self.reason:
            form["reason"] = self.reason
        if self.effective is not None:
            form["effective"] = self.effective
        return form | (self.map.to_dict() if self.map is not None else {})

    @classmethod
    def from_dict(cls, form: Mapping[str, Any]) -> HeadCalibration:
        """Read the plain form; a wrong one raises KeyError, TypeError or ValueError."""
        rows, positives = int(form["rows"]), int(form["positives"])
        effective = float(form["effective"]) if "effective" in form else None
        method = form["method"]
        if method == "none":
            return cls("none", None, str(form.get("reason", "")), rows, positives, effective)
        if method not in MAPS:
            raise ValueError(f"no method {method!r}")
        return cls(method, MAPS[method].from_dict(form), "", rows, positives, effective)


@dataclass(frozen=True)
class Calibration:
    """Calibrators by head: ctr and cvr for product systems, ctr and ctcvr where cvr is derived.

    Parameters
    ----------
    heads
        Head -> its calibrator.
    sampling
        What a network that learned a down-sampled log without weights needs first; None otherwise.
    """

    heads: Mapping[str, HeadCalibration]
    sampling: SamplingCorrection | None = None

    @classmethod
    def fit(
        cls,
        scores: Scores,
        labels: Labels,
        config: CalibrationConfig,
        *,
        constant: frozenset[str] = frozenset(),
        columns: Columns = _NO_COLUMNS,
        sampling: SamplingCorrection | None = None,
    ) -> Calibration:
        """Fit each head on the rows where its label is observed.

        Parameters
        ----------
        scores
            Scores of the `calibrate` half of ``valid``, as the network gave them.
        labels
            Their labels; the sample weights of a down-sampled log hold 1 / keep rate.
        config
            The method of each head.
        constant
            Heads that are a constant prior; they stay as they are.
        columns
            Table rows of the fields in `config`, one array a field.
        sampling
            Corrects the scores before anything is fitted.

        Raises
        ------
        DataError
            ``data.label_missing``: logged propensities are asked for and there are none.
        """
        if sampling is not None:
            scores = compose(sampling(scores))
        own = "ctcvr" if "cvr" in scores.derived else "cvr"
        fitted: dict[str, HeadCalibration] = {}
        for head in ("ctr", own):
            method: Method = getattr(config, head)
            if head in constant:
                fitted[head] = HeadCalibration("none", reason="the head is a constant prior")
                continue
            rows, label, weight = _observed(head, labels)
            if head == "cvr" and config.weights == "ips":
                served = fitted["ctr"](scores.odds["ctr"], columns)
                weight = weight * inverse_propensity(served, labels, logged=config.propensity == "logged")
            fitted[head] = _fit_head(method, scores.odds[head], (rows, label, weight), columns)
        return cls(fitted, sampling)

    @classmethod
    def none(cls, reason: str, *heads: str, sampling: SamplingCorrection | None = None) -> Calibration:
        """Return the calibration that leaves `heads` as they are, for `reason`."""
        return cls({head: HeadCalibration("none", reason=reason) for head in heads}, sampling)

    @property
    def fields(self) -> tuple[str, ...]:
        """The sparse features that `apply` needs the table rows of."""
        aware = (entry.map for entry in self.heads.values() if isinstance(entry.map, FieldAware))
        return tuple(dict.fromkeys(part.field for each in aware for part in each.fields))

    def apply(self, scores: Scores, columns: Columns = _NO_COLUMNS) -> Scores:
        """Return calibrated scores; the log-odds before go to `Scores.raw`.

        Parameters
        ----------
        scores
            As the network gave them.
        columns
            Table rows of `fields`, one array a field.
        """
        maps = {head: entry for head, entry in self.heads.items() if entry.map is not None}
        if not maps and self.sampling is None:
            return scores
        before = scores if self.sampling is None else compose(self.sampling(scores))
        odds = dict(before.odds) | {head: entry(before.odds[head], columns) for head, entry in maps.items()}
        return replace(compose(replace(before, odds=odds)), raw={**scores.odds, **scores.raw})

    def to_dict(self) -> dict[str, Any]:
        """Return the plain form, as `calibration.json` holds it."""
        form: dict[str, Any] = {"format": 1, "heads": {head: entry.to_dict() for head, entry in self.heads.items()}}
        return form | ({"sampling": self.sampling.to_dict()} if self.sampling is not None else {})

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
            heads = {str(head): HeadCalibration.from_dict(entry) for head, entry in form["heads"].items()}
            return cls(heads, SamplingCorrection.from_dict(form["sampling"]) if "sampling" in form else None)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            finding = Finding("bundle.malformed", f"not a calibration ({error!r})", "calibration.json")
            raise BundleError(finding) from error


def _observed(head: str, labels: Labels) -> tuple[NDArray[np.bool_], NDArray[np.int8], Array]:
    """Return the rows where the label of `head` is observed, the label and the sample weight of all rows."""
    weight = np.ones(len(labels)) if labels.sample_weight is None else labels.sample_weight
    if head == "ctr":
        return labels.click != CENSORED, labels.click, weight
    known = labels.conversion_known
    return (known & (labels.click == 1) if head == "cvr" else known), labels.conversion, weight


def _fit_head(
    method: Method, odds: Array, observed: tuple[NDArray[np.bool_], NDArray[np.int8], Array], columns: Columns
) -> HeadCalibration:
    known, label, weight = observed
    use = known & (weight > 0.0)
    rows, positives = int(use.sum()), int((label[use] == 1).sum())
    odds, truth, weight = odds[use], label[use].astype(np.float64), weight[use]
    alike = not rows or bool(np.all(weight == weight[0]))
    left = HeadCalibration("none", None, "", rows, positives, None if alike else _effective(weight))
    if method == "none":
        return left
    if min(positives, rows - positives) < MINIMUM:
        reason = f"{positives} positives and {rows - positives} negatives, fewer than {MINIMUM}"
        return replace(left, reason=reason)
    worth = [_effective(weight[truth == value]) for value in (1.0, 0.0)]
    if min(worth) < MINIMUM:
        reason = "weighted, {:.0f} effective positives and {:.0f} negatives, fewer than {}".format(*worth, MINIMUM)
        return replace(left, reason=reason)
    chosen = {name: column[use] for name, column in columns.items()}
    fitted: Map = (
        fit_field_aware(odds, truth, weight, chosen) if method == "field-aware" else _FITS[method](odds, truth, weight)
    )
    found = replace(left, method=method, map=fitted)
    if log_loss(found(odds, chosen), truth, weight) > log_loss(odds, truth, weight):
        return replace(left, reason=f"{method} did not lower the log-loss of its own rows")
    return found


def _effective(weight: Array) -> float:
    """Return (sum w)^2 / sum w^2 (Kish 1965)."""
    return float(weight.sum() ** 2 / (weight @ weight))


def compose(scores: Scores) -> Scores:
    """Recompute what follows from the other heads: ctcvr = ctr * cvr, or the derived cvr = ctcvr / ctr, clipped.

    Where the system has them, so does ctar = ctr * action, or the derived action = ctar / ctr. `Scores.clipped` counts
    the cvr alone.
    """
    odds, clipped = dict(scores.odds), scores.clipped
    if "cvr" in scores.derived:
        odds["cvr"], clipped = _quotient(odds["ctcvr"], odds["ctr"])
    else:
        odds["ctcvr"] = product(odds["ctr"], odds["cvr"])
    if "action" in odds and "ctar" in odds:
        if "action" in scores.derived:
            odds["action"], _ = _quotient(odds["ctar"], odds["ctr"])
        else:
            odds["ctar"] = product(odds["ctr"], odds["action"])
    return replace(scores, odds=odds, clipped=clipped)


def _quotient(joint: Array, whole: Array) -> tuple[Array, int]:
    """Return the log-odds of joint / whole, clipped to at most 1 - MARGIN, and how many left [0, 1]."""
    quotient = log_pair(joint)[0] - log_pair(whole)[0]
    log_q = np.minimum(quotient, np.log1p(-MARGIN))
    return np.asarray(log_q - np.log(-np.expm1(log_q))), int((quotient > 0.0).sum())
