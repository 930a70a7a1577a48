import math

import pytest

from postclick.metrics.estimate import Estimate, linked_interval, normal_quantile


def test_a_number_that_is_not_finite_is_an_undefined_outcome():
    assert Estimate.of(0.25) == Estimate(0.25)
    assert Estimate.of(math.nan).undefined == "scores are not numbers"
    assert Estimate.of(math.inf) == Estimate(None, "infinite")
    assert Estimate.none("no rows").value is None


def test_open_ends_of_an_interval_are_none():
    found = Estimate.of(1.0).within(0.5, math.inf, 0.9, "by hand")
    assert (found.low, found.high, found.level, found.method) == (0.5, None, 0.9, "by hand")


def test_normal_quantile():
    assert normal_quantile(0.95) == pytest.approx(1.959963984540054)


def test_linked_interval_on_both_scales():
    assert linked_interval(2.0, math.log(2), math.log(4), "log") == pytest.approx((1.0, 8.0))
    # odds 1, a step of log 3 either way: odds 1/3 and 3
    assert linked_interval(0.5, math.log(3), math.log(3), "logit") == pytest.approx((0.25, 0.75))


@pytest.mark.parametrize(("value", "link"), [(0.0, "log"), (0.0, "logit"), (1.0, "logit")])
def test_no_interval_on_the_border_of_the_scale(value, link):
    assert all(math.isnan(end) for end in linked_interval(value, 1.0, 1.0, link))
