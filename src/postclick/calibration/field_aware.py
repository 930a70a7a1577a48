"""Field-aware calibration: a monotone line of the log-odds and a shrunken shift for each value of chosen fields.

    log-odds' = eta(l) + sum_f s_f[z_f],    s_f[v] ~ N(0, tau_f^2)

after Pan et al. (2020), "Field-aware calibration": eta is their isotonic line-plot, the shifts stand in for their
auxiliary network, additive and shrunken so that a few hundred conversions can carry them. Where this departs from the
paper, and why: docs/decisions/0030-calibrators.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from postclick.calibration.isotonic import increasing
from postclick.calibration.platt import SLOPES
from postclick.data.scores import probability

__all__ = ["Columns", "FieldAware", "FieldShifts", "fit_field_aware"]

Array = NDArray[np.float64]
Columns = Mapping[str, NDArray[np.int32]]
"""Field -> table row of its value, [B]."""
MOST_SEGMENTS = 20
ROWS_A_SEGMENT = 100
"""Positives (or negatives, where they are fewer) that a segment of the line asks for."""
MOST_VALUES = 20_000
"""Values of a field that get a shift, those that carry most information first; keeps calibration.json small."""
BEND = 25.0
"""Precision of the prior on the difference of neighbouring slopes: a standard deviation of 1/5. A common slope is free,
so strong shrinkage leads to Platt scaling and not to the identity."""
_ROUNDS = 12
_CLOSE = 0.02
_LEAST_SPREAD = 1e-6
_MOST_SPREAD = 100.0
_FIRST_SPREAD = 0.1
_HOLD = 1e-6


@dataclass(frozen=True)
class FieldShifts:
    """Shifts of the values of one field.

    Parameters
    ----------
    field
        Name of a sparse feature.
    spread
        tau, the estimated standard deviation of the shifts over values.
    rows
        Table rows of the values, increasing, [V]; values that are not here shift by 0.
    shifts
        Log-odds, [V].
    """

    field: str
    spread: float
    rows: tuple[int, ...]
    shifts: tuple[float, ...]

    @cached_property
    def _arrays(self) -> tuple[NDArray[np.int64], Array]:
        return np.array(self.rows, np.int64), np.array(self.shifts, np.float64)

    def __call__(self, column: NDArray[np.int32]) -> Array:
        """Return the shift of each row, [B]."""
        rows, shifts = self._arrays
        if not len(rows):
            return np.zeros(len(column))
        place = np.minimum(np.searchsorted(rows, column), len(rows) - 1)
        found: Array = np.where(rows[place] == column, shifts[place], 0.0)
        return found

    def to_dict(self) -> dict[str, Any]:
        """Return the plain form."""
        return {"field": self.field, "spread": self.spread, "rows": list(self.rows), "shifts": list(self.shifts)}

    @classmethod
    def from_dict(cls, form: Mapping[str, Any]) -> FieldShifts:
        """Read the plain form; a wrong one raises KeyError, TypeError or ValueError."""
        rows, shifts = form["rows"], tuple(map(float, form["shifts"]))
        spread = float(form["spread"])
        whole = all(type(row) is int and 0 <= row < 2**31 for row in rows)
        if not whole or len(rows) != len(shifts) or (rows and not increasing(rows)):
            raise ValueError("rows must be increasing whole numbers, one a shift")
        if not (isinstance(form["field"], str) and np.isfinite([*shifts, spread]).all() and spread >= 0.0):
            raise ValueError("a shift is not a number")
        return cls(form["field"], spread, tuple(rows), shifts)


@dataclass(frozen=True)
class FieldAware:
    """The line through (knots, levels), its end segments going on, plus the shifts of the row's values.

    Given the values of the fields it is strictly increasing; across them the order may change, which is what it is for.

    Parameters
    ----------
    knots, levels
        Log-odds in and out, both strictly increasing, [K], K at least 2.
    fields
        One a field.
    """

    knots: tuple[float, ...]
    levels: tuple[float, ...]
    fields: tuple[FieldShifts, ...]

    def __call__(self, odds: Array, columns: Columns) -> Array:
        """Return calibrated log-odds, [B]; `columns` must hold every field."""
        line = _Line.through(np.array(self.knots), odds)
        calibrated = line(np.array(self.levels))
        for entry in self.fields:
            calibrated += entry(columns[entry.field])
        return calibrated

    def to_dict(self) -> dict[str, Any]:
        """Return the plain form."""
        shifts = [entry.to_dict() for entry in self.fields]
        return {"knots": list(self.knots), "levels": list(self.levels), "fields": shifts}

    @classmethod
    def from_dict(cls, form: Mapping[str, Any]) -> FieldAware:
        """Read the plain form; a wrong one raises KeyError, TypeError or ValueError."""
        knots, levels = (tuple(map(float, form[name])) for name in ("knots", "levels"))
        if len(knots) != len(levels) or len(knots) < 2 or not increasing(knots) or not increasing(levels):
            raise ValueError("knots and levels must increase together")
        return cls(knots, levels, tuple(FieldShifts.from_dict(entry) for entry in form["fields"]))


@dataclass(frozen=True)
class _Line:
    """Where each row lies between the knots.

    Parameters
    ----------
    segment
        [B] 0 to K - 2.
    share
        [B] how far along the segment; below 0 and above 1 outside the knots.
    width
        [K - 1] of the segments.
    """

    segment: NDArray[np.int64]
    share: Array
    width: Array

    @classmethod
    def through(cls, knots: Array, odds: Array) -> _Line:
        segment = np.clip(np.searchsorted(knots, odds, side="right") - 1, 0, len(knots) - 2)
        width = np.diff(knots)
        return cls(segment, (odds - knots[segment]) / width[segment], width)

    def __call__(self, levels: Array) -> Array:
        """Return the line at the rows, [B]."""
        line: Array = levels[self.segment] + self.share * np.diff(levels)[self.segment]
        return line

    def levels(self, middle: float, slopes: Array) -> Array:
        """Return the levels of the knots from the level of the middle one and the slopes, [K]."""
        rise = np.concatenate([[0.0], np.cumsum(slopes * self.width)])
        return np.asarray(middle + rise - rise[len(rise) // 2])

    def pull(self, residual: Array) -> Array:
        """Return the derivative of sum(residual x line) by the middle level and the slopes, [K]."""
        knots = len(self.width) + 1
        by_knot = np.bincount(self.segment, residual * (1.0 - self.share), knots)
        by_knot += np.bincount(self.segment + 1, residual * self.share, knots)
        above = np.cumsum(by_knot[::-1])[::-1]
        total = above[0]
        before = np.arange(knots - 1) < knots // 2
        return np.concatenate([[total], self.width * (above[1:] - np.where(before, total, 0.0))])

    def weight(self, information: Array) -> Array:
        """Return the diagonal of the curvature by the middle level and the slopes, [K]."""
        knots = len(self.width) + 1
        middle = knots // 2
        diagonal = [float(information.sum())]
        for segment, width in enumerate(self.width):
            past = np.clip(self.segment - segment + self.share, 0.0, 1.0)
            past = np.where(self.segment == segment, self.share, past) - (1.0 if segment < middle else 0.0)
            diagonal.append(float(width**2 * (information @ past**2)))
        return np.array(diagonal)


def fit_field_aware(odds: Array, label: Array, weight: Array, columns: Columns) -> FieldAware:
    """Minimise log-loss plus priors over the line and the shifts; the spreads by empirical Bayes.

    Given the spreads the problem is convex with slopes in `SLOPES` and L-BFGS-B finds its minimum. The spread of a
    field is then the tau^2 under which the shifts, freed of the prior, are likeliest: N(0, tau^2 + 1 / h), h the
    value's information (a diagonal Laplace step), again until no tau^2 moves by more than 2 %. A field without an
    effect of its own so ends at tau = 0. Weights are scaled to their effective number: unequal ones (IPS) count as the
    rows they are worth. Where every slope ends on the border of `SLOPES` the line is not to be trusted: the slopes stay
    1, and the middle level and the shifts alone are fitted.

    Parameters
    ----------
    odds
        Log-odds, [B].
    label
        0 or 1, [B]; both must occur.
    weight
        Sample weights > 0, [B].
    columns
        The fields, [B] each.
    """
    own = weight * (weight.sum() / (weight @ weight))
    problem = _Problem.of(odds, label, own, columns)
    point, spreads, slopes = problem.start(), np.full(len(columns), _FIRST_SPREAD), SLOPES
    for _ in range(_ROUNDS):
        point = problem.minimum(point, spreads, slopes)
        if slopes == SLOPES and problem.on_border(point):
            slopes = (1.0, 1.0)
            point = problem.minimum(problem.start(), spreads, slopes)
        before, spreads = spreads, problem.spreads(point, spreads)
        if np.all(np.abs(np.log(spreads / before)) < _CLOSE):
            break
    return problem.result(point, spreads)


@dataclass(frozen=True)
class _Problem:
    """Rows, the line's knots, and which shift each row reads.

    Parameters
    ----------
    label, weight
        [B].
    knots, line
        [K] knots, and the rows between them.
    names, values
        A field's name and the table rows of its values that get a shift.
    slots
        One a field: [B] place of the row's shift among all P shifts; P itself for those that get none.
    owner
        [P] field of each shift.
    """

    label: Array
    weight: Array
    knots: Array
    line: _Line
    names: tuple[str, ...]
    values: tuple[NDArray[np.int64], ...]
    slots: tuple[NDArray[np.int64], ...]
    owner: NDArray[np.int64]

    @classmethod
    def of(cls, odds: Array, label: Array, weight: Array, columns: Columns) -> _Problem:
        chance = probability(odds)
        information = weight * chance * (1.0 - chance)
        knots = _knots(odds, information, min(float(weight @ label), float(weight @ (1.0 - label))))
        found = [_kept(column, information) for column in columns.values()]
        sizes = [len(values) for values, _ in found]
        starts, total = np.cumsum([0, *sizes]), sum(sizes)
        slots = [np.where(place < 0, total, place + start) for (_, place), start in zip(found, starts, strict=False)]
        owner = np.repeat(np.arange(len(sizes)), sizes)
        values = tuple(values for values, _ in found)
        return cls(label, weight, knots, _Line.through(knots, odds), tuple(columns), values, tuple(slots), owner)

    @property
    def segments(self) -> int:
        """Segments of the line."""
        return len(self.knots) - 1

    def start(self) -> Array:
        """Return the identity: middle level, slopes 1, shifts 0."""
        middle = self.knots[len(self.knots) // 2]
        return np.concatenate([[middle], np.ones(self.segments), np.zeros(len(self.owner))])

    def fitted(self, point: Array) -> Array:
        """Return log-odds, [B]."""
        line = self.line(self.line.levels(point[0], point[1 : 1 + self.segments]))
        shifts = np.append(point[1 + self.segments :], 0.0)
        for slot in self.slots:
            line = line + shifts[slot]
        return line

    def objective(self, point: Array, spreads: Array) -> tuple[float, Array]:
        """Return the penalised log-loss and its gradient, both over all weight."""
        odds, slopes = self.fitted(point), point[1 : 1 + self.segments]
        bends, precision = np.diff(slopes), 1.0 / spreads[self.owner]
        shifts = point[1 + self.segments :]
        loss = float(self.weight @ (np.logaddexp(0.0, odds) - self.label * odds))
        loss += 0.5 * (BEND * float(bends @ bends) + float(precision @ shifts**2))
        loss += 0.5 * _HOLD * float(np.sum((slopes - 1.0) ** 2))
        residual = self.weight * (probability(odds) - self.label)
        steep = np.concatenate([[0.0], bends]) - np.concatenate([bends, [0.0]])
        gradient = np.concatenate([self.line.pull(residual), self._by_shift(residual) + precision * shifts])
        gradient[1 : 1 + self.segments] += BEND * steep + _HOLD * (slopes - 1.0)
        total = float(self.weight.sum())
        return loss / total, gradient / total

    def on_border(self, point: Array) -> bool:
        """Return whether every slope is on a border of `SLOPES`, but for the rounding of the scale it was found on."""
        slopes = point[1 : 1 + self.segments]
        return bool(np.all((slopes <= SLOPES[0] * (1.0 + 1e-9)) | (slopes >= SLOPES[1] * (1.0 - 1e-9))))

    def minimum(self, start: Array, spreads: Array, slopes: tuple[float, float] = SLOPES) -> Array:
        """Return the minimum with each slope within `slopes`, from a first point."""
        from scipy.optimize import minimize

        information = self._information(start)
        diagonal = np.concatenate([self.line.weight(information), self._by_shift(information)])
        diagonal[1 + self.segments :] += 1.0 / spreads[self.owner]
        scale = 1.0 / np.sqrt(np.maximum(diagonal, 1e-8))
        bounds: list[tuple[float | None, float | None]] = [(None, None)] * len(start)
        for place in range(1, 1 + self.segments):
            bounds[place] = (slopes[0] / scale[place], slopes[1] / scale[place])

        def scaled(point: Array) -> tuple[float, Array]:
            loss, gradient = self.objective(point * scale, spreads)
            return loss, gradient * scale

        options = {"maxiter": 300, "maxcor": 20, "ftol": 1e-13, "gtol": 1e-9}
        # the stubs do not know that a function may return its gradient as well
        found = minimize(  # type: ignore[call-overload]
            scaled, start / scale, jac=True, method="L-BFGS-B", bounds=bounds, options=options
        )
        return np.asarray(found.x * scale, np.float64)

    def _information(self, point: Array) -> Array:
        chance = probability(self.fitted(point))
        return self.weight * chance * (1.0 - chance)

    def _by_shift(self, column: Array) -> Array:
        """Return the sum over the rows of each shift, [P]."""
        sums = np.zeros(len(self.owner) + 1)
        for slot in self.slots:
            sums += np.bincount(slot, column, len(sums))
        return sums[:-1]

    def spreads(self, point: Array, spreads: Array) -> Array:
        """Return the next tau^2 of each field."""
        information = np.maximum(self._by_shift(self._information(point)), 1e-12)
        # at the minimum the data pull by s / tau^2, so free of the prior the shift were s (1 + 1 / (h tau^2))
        free = point[1 + self.segments :] * (1.0 + 1.0 / (information * spreads[self.owner]))
        places = [self.owner == field for field in range(len(spreads))]
        return np.array([_spread(free[place], 1.0 / information[place]) for place in places])

    def result(self, point: Array, spreads: Array) -> FieldAware:
        """Return the map."""
        levels = self.line.levels(point[0], point[1 : 1 + self.segments])
        shifts = point[1 + self.segments :]
        fields = tuple(
            FieldShifts(name, float(np.sqrt(spread)), tuple(rows.tolist()), tuple(shifts[self.owner == place].tolist()))
            for place, (name, rows, spread) in enumerate(zip(self.names, self.values, spreads, strict=True))
        )
        return FieldAware(tuple(self.knots.tolist()), tuple(levels.tolist()), fields)


def _spread(shifts: Array, noise: Array) -> float:
    """Return the tau^2 that maximises the likelihood of shifts ~ N(0, tau^2 + noise), [V] each."""
    from scipy.optimize import minimize_scalar

    def surprise(log_spread: float) -> float:
        variance = np.exp(log_spread) + noise
        return float(np.sum(np.log(variance) + shifts**2 / variance))

    ends = np.log(_LEAST_SPREAD), np.log(_MOST_SPREAD)
    return float(np.exp(minimize_scalar(surprise, bounds=ends, method="bounded", options={"xatol": 1e-4}).x))


def _knots(odds: Array, information: Array, fewer: float) -> Array:
    """Return knots at quantiles of the information, as many as the rarer class can carry; at least two."""
    segments = int(np.clip(fewer // ROWS_A_SEGMENT, 1, MOST_SEGMENTS))
    order = np.argsort(odds, kind="stable")
    mass = np.cumsum(information[order])
    ends = np.searchsorted(mass, mass[-1] * np.linspace(0.0, 1.0, segments + 1))
    knots = np.unique(odds[order][np.minimum(ends, len(odds) - 1)])
    return knots if len(knots) > 1 else np.array([knots[0], knots[0] + 1.0])


def _kept(column: NDArray[np.int32], information: Array) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the values that get a shift, increasing, and each row's place among them, -1 for the others."""
    values, place = np.unique(column.astype(np.int64), return_inverse=True)
    if len(values) <= MOST_VALUES:
        return values, place.astype(np.int64)
    mass = np.bincount(place, information)
    kept = np.sort(np.argsort(-mass, kind="stable")[:MOST_VALUES])
    renamed = np.full(len(values), -1, np.int64)
    renamed[kept] = np.arange(MOST_VALUES)
    return values[kept], renamed[place]
