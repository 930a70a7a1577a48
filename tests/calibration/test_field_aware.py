"""Field-aware calibration."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.optimize import check_grad, minimize

from postclick.calibration import field_aware
from postclick.calibration.field_aware import BEND, FieldAware, FieldShifts, fit_field_aware
from postclick.calibration.platt import fit_platt, log_loss
from postclick.data.scores import probability

VALUES = 30


def drawn(rows: int, spread: float, seed: int = 0):
    rng = np.random.default_rng(seed)
    shift = rng.normal(0.0, spread, VALUES)
    odds, value = rng.normal(-1.5, 1.2, rows), rng.integers(5, 5 + VALUES, rows).astype(np.int32)
    label = (rng.random(rows) < probability(0.7 * odds - 0.3 + shift[value - 5])).astype(float)
    return odds, label, np.ones(rows), {"shop": value}, shift


def test_by_hand():
    shifts = FieldShifts("shop", 1.0, (3, 7), (0.5, -1.0))
    fitted = FieldAware((0.0, 1.0, 3.0), (0.0, 2.0, 3.0), (shifts,))
    odds = np.array([-1.0, 0.5, 2.0, 5.0, 0.0])
    column = np.array([3, 7, 9, 3, 7], np.int32)
    # the line has slope 2, then 1/2; both go on outside; value 9 has no shift
    assert fitted(odds, {"shop": column}) == pytest.approx([-2.0 + 0.5, 1.0 - 1.0, 2.5, 4.0 + 0.5, -1.0])


def test_gradient_is_that_of_the_objective():
    odds, label, weight, columns, _ = drawn(800, 0.5)
    other = np.random.default_rng(2).integers(50, 54, 800).astype(np.int32)
    problem = field_aware._Problem.of(odds, label, weight, columns | {"slot": other})
    rng = np.random.default_rng(0)
    point, spreads = problem.start(), np.array([0.2, 0.05])
    point = point + rng.normal(0.0, 0.2, len(point))
    error = check_grad(lambda x: problem.objective(x, spreads)[0], lambda x: problem.objective(x, spreads)[1], point)
    assert error < 1e-6


def test_is_the_minimum_of_a_plain_objective_that_scipy_finds():
    odds, label, weight, columns, _ = drawn(3_000, 0.5)
    problem = field_aware._Problem.of(odds, label, weight, columns)
    spread, knots = 0.2, problem.knots
    assert len(knots) > 2
    places = columns["shop"] - 5

    def plain(point):
        levels, shifts = point[: len(knots)], point[len(knots) :]
        slopes = np.diff(levels) / np.diff(knots)
        line = np.interp(odds, knots, levels)
        line = line + np.minimum(odds - knots[0], 0) * slopes[0] + np.maximum(odds - knots[-1], 0) * slopes[-1]
        fitted = line + shifts[places]
        loss = np.sum(np.logaddexp(0.0, fitted) - label * fitted)
        penalty = BEND * np.sum(np.diff(slopes) ** 2) + np.sum(shifts**2) / spread
        return (loss + penalty / 2) / len(odds)

    peer = minimize(plain, np.concatenate([knots, np.zeros(VALUES)]), method="BFGS", options={"gtol": 1e-7})
    found = problem.result(problem.minimum(problem.start(), np.array([spread])), np.array([spread]))
    assert found.levels == pytest.approx(peer.x[: len(knots)], abs=2e-3)
    assert found.fields[0].shifts == pytest.approx(peer.x[len(knots) :], abs=2e-3)


def test_recovers_the_shifts_and_their_spread():
    odds, label, weight, columns, shift = drawn(60_000, 0.5)
    fitted = fit_field_aware(odds, label, weight, columns)
    assert np.corrcoef(fitted.fields[0].shifts, shift)[0, 1] > 0.98
    assert fitted.fields[0].spread == pytest.approx(shift.std(), rel=0.1)
    served = fitted(odds, columns)
    assert log_loss(served, label, weight) < log_loss(fit_platt(odds, label, weight)(odds), label, weight)
    # and on rows it has not seen, every shop has the right mean
    fresh_odds, fresh, _, fresh_columns, _ = drawn(60_000, 0.5, seed=0)
    predicted = np.bincount(fresh_columns["shop"], probability(fitted(fresh_odds, fresh_columns)))[5:]
    assert predicted / np.bincount(fresh_columns["shop"], fresh)[5:] == pytest.approx(np.ones(VALUES), abs=0.1)


def test_values_that_do_not_matter_are_shrunk_away_and_platt_is_left():
    odds, label, weight, columns, _ = drawn(20_000, 0.0)
    fitted = fit_field_aware(odds, label, weight, columns)
    assert np.abs(fitted.fields[0].shifts).max() < 0.06
    platt = fit_platt(odds, label, weight)
    assert np.abs(fitted(odds, columns) - platt(odds)).mean() < 0.06


def test_without_shrinkage_rare_values_would_be_believed():
    """The planted twin: a spread that is not estimated but huge puts noise where there is none."""
    odds, label, weight, columns, _ = drawn(1_500, 0.0)
    problem = field_aware._Problem.of(odds, label, weight, columns)
    believed = problem.result(problem.minimum(problem.start(), np.array([100.0])), np.array([100.0]))
    shrunk = fit_field_aware(odds, label, weight, columns)
    assert np.std(believed.fields[0].shifts) > 4 * np.std(shrunk.fields[0].shifts)


def test_a_value_that_was_not_there_gets_no_shift_and_order_is_kept_within_a_value():
    odds, label, weight, columns, _ = drawn(5_000, 0.5)
    fitted = fit_field_aware(odds, label, weight, columns)
    grid = np.linspace(-20.0, 20.0, 401)
    for value in (0, 7, 10**6):
        served = fitted(grid, {"shop": np.full(401, value, np.int32)})
        assert (np.diff(served) > 0.0).all()
    line = fitted(grid, {"shop": np.full(401, 10**6, np.int32)})
    assert fitted(grid, {"shop": np.full(401, 7, np.int32)}) - line == pytest.approx(fitted.fields[0].shifts[2])


def test_calibrated_scores_stay_as_they_are():
    odds, label, weight, columns, _ = drawn(20_000, 0.5)
    once = fit_field_aware(odds, label, weight, columns)(odds, columns)
    twice = fit_field_aware(once, label, weight, columns)(once, columns)
    assert np.abs(twice - once).mean() < 0.05


def test_equal_weights_of_any_size_and_unequal_ones_by_their_effective_number():
    odds, label, weight, columns, _ = drawn(4_000, 0.5)
    one, tenth = (fit_field_aware(odds, label, size * weight, columns) for size in (1.0, 0.1))
    assert one.fields[0].shifts == pytest.approx(tenth.fields[0].shifts, abs=1e-5)
    # a few rows that carry all the weight are not believed as many
    heavy = np.where(np.arange(4_000) % 100 == 0, 100.0, 0.01)
    alone = fit_field_aware(odds, label, heavy, columns)
    assert alone.fields[0].spread < one.fields[0].spread * 3


def test_the_most_informative_values_are_kept(monkeypatch):
    monkeypatch.setattr(field_aware, "MOST_VALUES", 5)
    odds, label, weight, columns, _ = drawn(2_000, 0.5)
    column = np.where(np.arange(2_000) < 1_000, 7, columns["shop"]).astype(np.int32)
    fitted = fit_field_aware(odds, label, weight, {"shop": column})
    assert len(fitted.fields[0].rows) == 5
    assert 7 in fitted.fields[0].rows


@pytest.mark.parametrize("kind", ["constant", "reversed", "separated", "three", "one value each"])
def test_degenerate_rows_leave_a_finite_map(kind):
    rng = np.random.default_rng(1)
    odds = {"constant": np.full(200, -1.0), "three": np.array([-1.0, 0.5, 2.0])}.get(kind, rng.normal(0, 1, 200))
    label = (odds < 0.0 if kind == "reversed" else odds > 0.0).astype(float)
    label[:2] = (0.0, 1.0)
    column = np.arange(len(odds), dtype=np.int32) if kind == "one value each" else np.zeros(len(odds), np.int32)
    fitted = fit_field_aware(odds, label, np.ones(len(odds)), {"shop": column})
    served = fitted(odds, {"shop": column})
    assert np.isfinite(served).all()
    assert (np.diff(fitted.levels) > 0.0).all()


@pytest.mark.parametrize("seed", [14, 16, 27])
def test_a_line_that_ranks_backwards_is_not_trusted(seed):
    """Seeds where rounding put a slope beside the border, and the flattened line was kept."""
    rng = np.random.default_rng(seed)
    odds = rng.normal(0, 1, 400)
    label = (rng.random(400) < probability(-2 * odds)).astype(float)
    fitted = fit_field_aware(odds, label, np.ones(400), {"shop": np.zeros(400, np.int32)})
    assert np.diff(fitted.levels) / np.diff(fitted.knots) == pytest.approx(np.ones(len(fitted.knots) - 1))
    assert probability(fitted(odds, {"shop": np.zeros(400, np.int32)})).mean() == pytest.approx(label.mean(), rel=1e-4)


def test_plain_form_and_back():
    odds, label, weight, columns, _ = drawn(2_000, 0.5)
    fitted = fit_field_aware(odds, label, weight, columns)
    again = FieldAware.from_dict(json.loads(json.dumps(fitted.to_dict())))
    assert again == fitted
    assert np.array_equal(again(odds, columns), fitted(odds, columns))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("rows", [3, 2]),
        ("rows", [1.5, 2.5]),
        ("rows", [1]),
        ("rows", [-1, 2]),
        ("shifts", [0.0, float("nan")]),
        ("spread", -1.0),
        ("field", 7),
    ],
)
def test_a_malformed_form_is_refused(name, value):
    shifts = {"field": "shop", "spread": 1.0, "rows": [1, 2], "shifts": [0.0, 1.0]} | {name: value}
    with pytest.raises((TypeError, ValueError)):
        FieldAware.from_dict({"knots": [0.0, 1.0], "levels": [0.0, 1.0], "fields": [shifts]})


def test_a_line_of_one_knot_is_refused():
    with pytest.raises(ValueError, match="increase"):
        FieldAware.from_dict({"knots": [0.0], "levels": [0.0], "fields": []})
