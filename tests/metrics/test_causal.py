import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from postclick.metrics.causal import DEBIASED, ESTIMATORS, debiased
from postclick.metrics.probability import logloss

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def sigmoid(odds):
    return 1 / (1 + np.exp(-odds))


def entropy(label, q):
    return -(label * np.log(q) + (1 - label) * np.log(1 - q))


def drawn(rows=400, seed=0, users=60):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=rows)
    p, q = sigmoid(-0.6 + x), sigmoid(-0.4 + 0.9 * x)
    click = (rng.random(rows) < p).astype(np.int8)
    conversion = (click * (rng.random(rows) < q)).astype(np.int8)
    user = np.append(np.arange(users), rng.integers(0, users, rows - users))
    return {
        "odds": -0.5 + 0.6 * x + 0.2 * rng.normal(size=rows),
        "click": click,
        "conversion": conversion,
        "propensity": p,
        "weight": rng.integers(0, 3, rows).astype(float),
        "unit": user,
        "cvr": q,
    }


DATA = drawn()


def by_hand(metric, estimator, data, floor, weighted, clustered):
    """Value and standard error by plain loops over rows and users."""
    tops, bottoms = {}, {}
    for i in range(len(data["odds"])):
        w = data["weight"][i] if weighted else 1.0
        o, r, p = int(data["click"][i]), int(data["conversion"][i]), max(data["propensity"][i], floor)
        q = sigmoid(data["odds"][i])
        z = r if metric == "mean" else entropy(r, q)
        m = q if metric == "mean" else entropy(q, q)
        top, bottom = {
            "naive": (w * o * z, w * o),
            "ips": (w * o * z / p, w),
            "snips": (w * o * z / p, w * o / p),
            "dr": (w * (m + o * (z - m) / p), w),
        }[estimator]
        u = data["unit"][i] if clustered else i
        tops[u], bottoms[u] = tops.get(u, 0.0) + top, bottoms.get(u, 0.0) + bottom
    value = sum(tops.values()) / sum(bottoms.values())
    parts = [(tops[u] - value * bottoms[u]) / sum(bottoms.values()) for u in tops]
    return value, np.sqrt(len(parts) / (len(parts) - 1) * sum(x * x for x in parts))


@pytest.mark.parametrize("clustered", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("floor", [0.0, 0.2])
def test_every_estimate_and_interval_equals_a_plain_loop(floor, weighted, clustered):
    found = debiased(
        *(DATA["odds"], DATA["click"], DATA["conversion"], DATA["propensity"]),
        floor=floor,
        weight=DATA["weight"] if weighted else None,
        unit=DATA["unit"] if clustered else None,
    )
    assert set(found) == {(metric, estimator) for metric in DEBIASED for estimator in ESTIMATORS}
    for (metric, estimator), estimate in found.items():
        value, error = by_hand(metric, estimator, DATA, floor, weighted, clustered)
        assert estimate.value == pytest.approx(value, rel=1e-10), (metric, estimator)
        reach = 1.959963984540054 * error / value
        assert estimate.low == pytest.approx(value * np.exp(-reach), rel=1e-8), (metric, estimator)
        assert estimate.high == pytest.approx(value * np.exp(reach), rel=1e-8)
        assert estimate.method == "influence function, log scale"


def test_a_case_by_hand():
    # 4 exposures, 2 clicks; q = 1/2 everywhere, so the loss is log 2 whatever happens
    found = debiased(np.zeros(4), np.array([1, 1, 0, 0]), np.array([1, 0, 0, 0]), np.array([0.5, 0.25, 0.5, 0.25]))
    assert found["mean", "naive"].value == 0.5
    assert found["mean", "ips"].value == pytest.approx(2 / 4)
    assert found["mean", "snips"].value == pytest.approx(2 / 6)
    assert found["mean", "dr"].value == pytest.approx((4 * 0.5 + 2 * 0.5 - 4 * 0.5) / 4)
    assert found["logloss", "naive"].value == pytest.approx(np.log(2))
    assert found["logloss", "ips"].value == pytest.approx(np.log(2) * 6 / 4)
    assert found["logloss", "dr"].value == pytest.approx(np.log(2))
    # one conversion: values, no intervals
    assert all(estimate.low is None and estimate.high is None for estimate in found.values())


def test_the_unclicked_conversion_is_never_read():
    args = (DATA["odds"], DATA["click"], DATA["conversion"], DATA["propensity"])
    other = np.where(DATA["click"] == 1, DATA["conversion"], 1)
    assert debiased(*args[:2], other, args[3]) == debiased(*args)


def test_naive_logloss_is_the_one_over_clicks():
    clicked = DATA["click"] == 1
    found = debiased(DATA["odds"], DATA["click"], DATA["conversion"], DATA["propensity"])
    expected = logloss(DATA["odds"][clicked], DATA["conversion"][clicked]).value
    assert found["logloss", "naive"].value == pytest.approx(expected, rel=1e-12)


def test_a_constant_factor_of_the_propensity_moves_ips_and_not_snips():
    args = (DATA["odds"], DATA["click"], DATA["conversion"])
    one, half = debiased(*args, DATA["propensity"]), debiased(*args, 0.5 * DATA["propensity"])
    assert half["mean", "ips"].value == pytest.approx(2 * one["mean", "ips"].value)
    assert half["mean", "snips"].value == pytest.approx(one["mean", "snips"].value)


def replicated(estimator, metric="mean", *, propensity=1.0, right_cvr=True, draws=600):
    """Mean over draws of clicks and conversions, its standard error, and the truth."""
    rng = np.random.default_rng(3)
    data = drawn(rows=200, users=10)
    odds = np.log(data["cvr"] / (1 - data["cvr"])) if right_cvr else np.full(200, -2.0)
    q = sigmoid(odds)
    truth = data["cvr"].mean() if metric == "mean" else entropy(data["cvr"], q).mean()
    values = []
    for _ in range(draws):
        click = (rng.random(200) < data["propensity"]).astype(np.int8)
        conversion = (click * (rng.random(200) < data["cvr"])).astype(np.int8)
        found = debiased(odds, click, conversion, np.minimum(data["propensity"] ** propensity, 1.0))
        values.append(found[metric, estimator].value)
    return np.mean(values), np.std(values) / np.sqrt(draws), truth


@pytest.mark.parametrize("metric", DEBIASED)
def test_robust_is_right_when_either_is_and_wrong_when_neither_is(metric):
    # IPS needs the propensity alone; DR the propensity or the cvr
    for estimator, options in (
        ("ips", {"right_cvr": False}),
        ("dr", {"right_cvr": False}),
        ("dr", {"propensity": 0.4}),
    ):
        mean, error, truth = replicated(estimator, metric, **options)
        assert abs(mean - truth) < 3.5 * error, (estimator, options)
    for estimator, options in (
        ("naive", {}),
        ("ips", {"propensity": 0.4}),
        ("dr", {"propensity": 0.4, "right_cvr": False}),
    ):
        mean, error, truth = replicated(estimator, metric, **options)
        assert abs(mean - truth) > 8 * error, (estimator, options)


def test_undefined_outcomes():
    odds, click, conversion, p = (DATA[name] for name in ("odds", "click", "conversion", "propensity"))

    def reasons(found):
        return {estimate.undefined for estimate in found.values()}

    empty = np.zeros(0)
    assert reasons(debiased(empty, empty.astype(np.int8), empty.astype(np.int8), empty)) == {"no rows"}
    assert reasons(debiased(odds, click, conversion, p, weight=np.zeros(400))) == {"no rows"}
    assert reasons(debiased(odds, np.zeros(400, np.int8), conversion, p)) == {"no clicks"}
    assert reasons(debiased(np.where(click == 1, np.nan, odds), click, conversion, p)) == {"scores are not numbers"}
    assert reasons(debiased(odds, click, conversion, np.where(click == 1, np.nan, p))) == {"scores are not numbers"}


def test_a_click_of_propensity_zero_is_infinite_and_the_rest_still_stands():
    odds, click, conversion, p = (DATA[name] for name in ("odds", "click", "conversion", "propensity"))
    zero = np.where(np.arange(400) == np.argmax(click), 0.0, p)
    found = debiased(odds, click, conversion, zero)
    assert {found["logloss", estimator].undefined for estimator in ("ips", "snips", "dr")} == {"infinite"}
    assert found["mean", "naive"].value is not None
    assert debiased(odds, click, conversion, zero, floor=0.01)["mean", "ips"].value is not None
    wrong = np.where(np.arange(400) == np.argmax(conversion), -np.inf, odds)
    found = debiased(wrong, click, conversion, p)
    assert {found["logloss", estimator].undefined for estimator in ESTIMATORS} == {"infinite"}
    assert all(found["mean", estimator].value is not None for estimator in ESTIMATORS)
    sure = np.where(click == 0, np.inf, odds)
    assert all(estimate.value is not None for estimate in debiased(sure, click, conversion, p).values())


def test_an_estimate_near_zero_gets_an_interval_that_may_cross_it():
    rng = np.random.default_rng(0)
    click = (np.arange(4000) % 4 == 0).astype(np.int8)
    conversion = np.zeros(4000, np.int8)
    conversion[np.flatnonzero(click)[rng.permutation(1000)[:12]]] = 1
    p = np.where(conversion == 1, rng.choice([0.0005, 0.9], 4000, p=[0.1, 0.9]), 0.25)
    found = debiased(np.full(4000, -4.4), click, conversion, p)["mean", "ips"]
    assert found.method == "influence function"
    assert found.low < 0 < found.value < found.high


def load(name):
    if str(BENCHMARKS) not in sys.path:
        sys.path.insert(0, str(BENCHMARKS))
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def judged(found):
    """Names of intervals that fail, and of naive ones that hold the exposures' value."""
    missed = {name for name, holds in found.items() if "exposures' value" in name and "no selection" not in name}
    assert len(missed) == 4
    return {name for name, holds in found.items() if not holds and name not in missed}, {
        name for name in missed if found[name]
    }


def test_intervals_cover_and_the_naive_one_misses_the_exposures_under_selection():
    found = {entry.name: entry for entry in load("causal_worlds").coverage(300, population=200_000)}
    assert len(found) == 3 * 10
    assert judged({name: entry.holds for name, entry in found.items()}) == (set(), set())
    assert all(entry.share < 0.05 for name, entry in found.items() if "exposures'" in name and "no sel" not in name)


@pytest.mark.slow
def test_two_thousand_replicas_cover():
    command = [sys.executable, str(BENCHMARKS / "causal_coverage.py"), "--replicas", "2000"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found = json.loads(done.stdout.splitlines()[-1])["coverage"]
    assert judged({name: entry["holds"] for name, entry in found.items()}) == (set(), set())
