"""Late conversions: the delay's law, what is seen by the end, and that all else is the world without delays."""

from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest

from postclick.errors import ConfigError, InputMissingError
from postclick.simulation import World, simulate
from postclick.simulation.chunks import draw, draw_outcomes, plan, solve
from postclick.simulation.delay import _quantile, mean_delay
from postclick.simulation.presets import PRESETS, Knobs

BASE = Knobs(ctr=0.3, cvr=0.3)
LATE = replace(BASE, delay=2.0)


def drawn(knobs, exposures=40_000, seed=1):
    story = plan(knobs, exposures, seed)
    return draw_outcomes(story, solve(story), draw(story, 0))


def test_the_world_is_the_one_without_delays_but_for_what_is_seen_of_it():
    without, late = drawn(BASE), drawn(LATE)
    for name in ("ctr", "cvr_do", "cvr_click", "click"):
        np.testing.assert_array_equal(getattr(late, name), getattr(without, name))
    seen = late.conversion == 1
    assert not (seen & (without.conversion == 0)).any()
    assert late.times.late == without.conversion.sum() - seen.sum() > 300
    waited = drawn(replace(LATE, observed_days=LATE.attribution_days))
    np.testing.assert_array_equal(waited.conversion, without.conversion)


def test_times_are_in_order_and_the_end_decides():
    found = drawn(LATE)
    times, seen = found.times, found.conversion == 1
    assert (times.conversion[seen] <= times.until).all()
    days = (times.conversion - times.click) / 86_400
    assert days.min() >= 0
    assert days.max() <= LATE.attribution_days + 1e-4
    # within the first days every conversion has come, at the end next to none
    bought = drawn(replace(LATE, observed_days=LATE.attribution_days)).conversion == 1
    age = (times.until - times.click) / 86_400
    assert (seen == bought)[age > LATE.attribution_days + 0.01].all()
    assert seen[bought & (age < 0.5)].mean() < 0.3


@pytest.mark.parametrize("shape", [0.5, 1.0, 2.0])
def test_delays_follow_the_cut_weibull(shape):
    knobs, scale = replace(LATE, delay_shape=shape), np.array([0.3, 1.0, 5.0])
    window = knobs.attribution_days
    u = np.random.default_rng(0).random((3, 200_000))
    days = _quantile(knobs, scale[:, None], u)
    for at in (0.1, 1.0, 3.0):
        expected = -np.expm1(-((at / scale) ** shape)) / -np.expm1(-((window / scale) ** shape))
        np.testing.assert_allclose((days <= at).mean(axis=1), expected, atol=0.006)
    np.testing.assert_allclose(days.mean(axis=1), mean_delay(knobs, scale), atol=0.02)


@pytest.mark.parametrize("shape", [0.3, 0.5, 1.0, 5.0])
@pytest.mark.parametrize("window", [4.0, 30.0])
def test_the_mean_delay_is_the_integral_of_the_survival_to_a_share_of_the_window(shape, window):
    knobs, grid = replace(LATE, delay_shape=shape, attribution_days=window), window * np.linspace(0, 1, 100_001) ** 4
    scale = window * np.geomspace(1e-3, 10, 9)
    rising = ((grid / scale[:, None]) ** shape, (window / scale) ** shape)
    survival = 1 - np.expm1(-rising[0]) / np.expm1(-rising[1])[:, None]
    error = mean_delay(knobs, scale) - np.trapezoid(survival, grid)
    assert abs(error).max() < 1.2e-4 * window


def test_a_world_with_delays_says_when_and_how_long(tmp_path):
    world = simulate(tmp_path / "w", world="delayed", knobs={"ctr": 0.3, "cvr": 0.3}, exposures=5_000, seed=3)
    table = pq.read_table(sorted((world.path / "exposures").glob("*.parquet"))[0])
    click, seen = (np.asarray(table[name]) == 1 for name in ("click", "conversion"))
    assert table["click_time"].null_count == (~click).sum()
    assert table["conversion_time"].null_count == (~seen).sum()
    columns = world.schema.columns
    assert (columns.attribution_window, columns.immature) == (86_400.0 * 4, "censor")
    assert world.counts["conversions"] == seen.sum()
    again = World.open(world.path)
    assert again.counts["late_conversions"] == world.counts["late_conversions"] > 50
    truth, delay = again.truth(), again.mean_delay()
    assert world.rates["mean_delay"] == pytest.approx(float(truth.ctcvr @ delay / truth.ctcvr.sum()))
    price = np.asarray(table["price"])
    assert delay[price > np.quantile(price, 0.9)].mean() > 1.3 * delay[price < np.quantile(price, 0.1)].mean()


def test_worlds_without_delays_do_not_mention_them(tmp_path):
    world = simulate(tmp_path / "w", exposures=500)
    assert not {name for name in world.knobs.to_dict() if "delay" in name or "days" in name} - {"days"}
    assert "late_conversions" not in world.counts
    with pytest.raises(InputMissingError, match="simulate the world delayed"):
        world.mean_delay()


def test_knobs_that_do_not_go_together_are_refused(tmp_path):
    for knobs in ({"delay_shape": 0.5}, {"attribution_days": 1.0}, {"delay": 1.0, "action_rate": 0.4}):
        with pytest.raises(ConfigError):
            replace(PRESETS["selection"], **knobs)
    with pytest.raises(ConfigError, match="no column for times of conversions"):
        simulate(tmp_path / "w", world="delayed", exposures=500, layout="ali-ccp")
