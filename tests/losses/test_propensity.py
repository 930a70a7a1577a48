import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from postclick.losses.entire_space import clicked_conversion_loss
from postclick.losses.probability import LogProbability
from postclick.losses.propensity import (
    absolute_floor,
    clipped_inverse,
    exposure_scale,
    inverse_propensity_weights,
    ips_risk,
    self_normalised,
    weight_diagnostics,
)
from postclick.losses.reduce import mean_over_exposures

DOUBLE = torch.float64
CLICK = torch.tensor([1.0, 0.0, 1.0, 1.0, 0.0], dtype=DOUBLE)
CTR = torch.tensor([0.5, 0.2, 0.01, 0.25, 1e-9], dtype=DOUBLE)
SAMPLE = torch.tensor([1.0, 2.0, 0.5, 0.0, 3.0], dtype=DOUBLE)


def as_pair(p):
    return LogProbability(p.log(), torch.log1p(-p))


@pytest.mark.parametrize("form", [lambda p: p, as_pair], ids=["tensor", "logarithms"])
@pytest.mark.parametrize(("floor", "cap"), [(0.0, None), (0.05, None), (0.0, 3.0), (0.05, 30.0), (0.3, 2.0)])
def test_weights_equal_a_plain_loop(form, floor, cap):
    found = inverse_propensity_weights(CLICK, form(CTR), floor=floor, cap=cap)
    expected = []
    for o, p in zip(CLICK.tolist(), CTR.tolist(), strict=True):
        inverse = 1 / max(p, floor)
        expected.append(o * (inverse if cap is None else min(inverse, cap)))
    torch.testing.assert_close(found, torch.tensor(expected, dtype=DOUBLE), rtol=1e-12, atol=0)


@given(st.floats(1e-6, 1.0), st.lists(st.floats(-200.0, 200.0), min_size=1, max_size=20))
@settings(max_examples=50, deadline=None)
def test_the_largest_weight_is_one_over_the_floor(floor, logits):
    pair = LogProbability.from_logit(torch.tensor([*logits, -1e4]))
    inverse = clipped_inverse(pair, floor=floor)
    assert inverse.max().item() == pytest.approx(1 / floor, rel=1e-6)
    assert inverse.max() <= torch.tensor(1 / floor)
    assert inverse.min() >= 1.0


def test_without_a_floor_weights_and_their_gradient_stay_finite():
    logit = torch.tensor([-1e4, -50.0, 0.0, 1e4], requires_grad=True)
    weights = inverse_propensity_weights(torch.ones(4), LogProbability.from_logit(logit), floor=0.0)
    weights.sum().backward()
    assert torch.isfinite(weights).all()
    assert torch.isfinite(logit.grad).all()
    assert weights[2:].tolist() == [2.0, 1.0]


def test_the_complement_weights_the_unclicked_rows():
    found = inverse_propensity_weights(1 - CLICK, as_pair(CTR).complement(), floor=0.01)
    torch.testing.assert_close(found, (1 - CLICK) / (1 - CTR), rtol=1e-12, atol=0)


@pytest.mark.parametrize("sample", [None, SAMPLE], ids=["plain", "weighted"])
def test_self_normalised_weights_sum_to_the_rows(sample):
    weights = inverse_propensity_weights(CLICK, CTR, floor=0.1)
    found = self_normalised(weights, sample)
    own = torch.ones(5, dtype=DOUBLE) if sample is None else sample
    assert float((own * found).sum()) == pytest.approx(float(own.sum()), rel=1e-12)
    assert found[1] == found[4] == 0.0
    # the mean over exposures is the weighted mean over clicks; a constant factor of the propensity drops out
    error = torch.tensor([0.3, 9.0, 1.5, 0.2, 9.0], dtype=DOUBLE)
    mean = sum(s * w * e for s, w, e in zip(own, weights, error, strict=True)) / (own * weights).sum()
    assert float(mean_over_exposures(ips_risk(error, found), sample)) == pytest.approx(float(mean), rel=1e-12)
    torch.testing.assert_close(self_normalised(7 * weights, sample), found)


def test_a_batch_without_clicks_has_no_weights():
    weights = inverse_propensity_weights(torch.zeros(3), torch.full((3,), 0.1), floor=0.01)
    assert self_normalised(weights).tolist() == [0.0, 0.0, 0.0]
    assert self_normalised(torch.zeros(0)).shape == (0,)
    found = weight_diagnostics(torch.zeros(3), torch.full((3,), 0.1), floor=0.01)
    assert found["effective_share"] == found["effective_sample_size"] == found["largest_weight"] == 0
    assert all(
        torch.isfinite(value) for value in weight_diagnostics(torch.zeros(0), torch.zeros(0), floor=0.1).values()
    )


def test_clipping_comes_before_scaling():
    # the twin clips the scaled weight, so its bound moves with the share of clicks in the batch
    weights = inverse_propensity_weights(CLICK, CTR, floor=0.0, cap=15.0)
    assert weights.max() == 15.0
    twin = torch.clamp(inverse_propensity_weights(CLICK, CTR, floor=0.0) * 5 / CLICK.sum(), max=15.0) / (
        5 / CLICK.sum()
    )
    assert twin.max() == pytest.approx(9.0)


@pytest.mark.parametrize("sample", [None, SAMPLE], ids=["plain", "weighted"])
@pytest.mark.parametrize("form", [lambda p: p, as_pair], ids=["tensor", "logarithms"])
def test_diagnostics_equal_a_plain_loop(sample, form):
    floor, cap = 0.02, 20.0
    found = weight_diagnostics(CLICK, form(CTR), floor=floor, cap=cap, sample_weight=sample)
    own = [1.0] * 5 if sample is None else sample.tolist()
    rows = list(zip(own, CLICK.tolist(), CTR.tolist(), strict=True))
    inverse = [min(1 / max(p, floor), cap) for _, _, p in rows]
    mass = [s * o * v for (s, o, _), v in zip(rows, inverse, strict=True)]
    effective = sum(mass) ** 2 / sum(m * m for m in mass)
    clicks = sum(1 for s, o, _ in rows if o and s)
    left = sum(s * (1 - p * v) for (s, _, p), v in zip(rows, inverse, strict=True)) / sum(own)
    assert float(found["effective_sample_size"]) == pytest.approx(effective, rel=1e-12)
    assert float(found["effective_share"]) == pytest.approx(effective / clicks, rel=1e-12)
    assert float(found["clipped_mass"]) == pytest.approx(left, rel=1e-9)
    assert float(found["largest_weight"]) == 20.0


def test_diagnostics_do_not_overflow_and_carry_no_gradient():
    logit = torch.tensor([-60.0, -60.0, 0.0], requires_grad=True)
    found = weight_diagnostics(torch.ones(3), LogProbability.from_logit(logit), floor=0.0)
    assert float(found["effective_sample_size"]) == pytest.approx(2.0, rel=1e-5)
    assert not any(value.requires_grad for value in found.values())


def test_floor_is_relative_to_the_click_rate():
    assert absolute_floor(0.039) == pytest.approx(0.0039)
    assert absolute_floor(0.039, relative=0.0) == 0.0
    assert absolute_floor(0.9, relative=2.0) == 1.0
    for wrong in ((1.5, 0.1), (0.1, -1.0), (math.nan, 0.1)):
        with pytest.raises(ValueError, match="expected a CTR"):
            absolute_floor(*wrong)


@pytest.mark.parametrize(("floor", "cap"), [(-0.1, None), (1.5, None), (math.nan, None), (0.1, 0.5)])
def test_a_floor_or_cap_out_of_range_is_refused(floor, cap):
    with pytest.raises(ValueError, match="expected a floor"):
        clipped_inverse(CTR, floor=floor, cap=cap)


def test_the_propensity_learns_only_when_it_is_not_detached():
    logit = torch.tensor([-1.0, 0.5, -2.0], dtype=DOUBLE, requires_grad=True)
    cvr = torch.tensor([0.2, -0.4, 0.1], dtype=DOUBLE, requires_grad=True)
    click, conversion = torch.tensor([1.0, 0.0, 1.0], dtype=DOUBLE), torch.tensor([1.0, 0.0, 0.0], dtype=DOUBLE)
    error = clicked_conversion_loss(LogProbability.from_logit(cvr), click, conversion)
    ctr = LogProbability.from_logit(logit)
    stopped = ips_risk(error, inverse_propensity_weights(click, ctr.detach(), floor=0.0)).sum()
    assert torch.autograd.grad(stopped, logit, allow_unused=True, retain_graph=True)[0] is None
    leaking = ips_risk(error, inverse_propensity_weights(click, ctr, floor=0.0)).sum()
    (found,) = torch.autograd.grad(leaking, logit)
    p = torch.sigmoid(logit.detach())
    # d/dlogit of o e / p = -o e (1 - p) / p: on clicks it drives the CTR up
    torch.testing.assert_close(found, -click * error.detach() * (1 - p) / p)
    assert (found[click == 1] < 0).all()


def test_published_coefficients_on_our_scale():
    options = {"base_ctr": 0.039, "batch_size": 1024}
    assert exposure_scale(0.01, "clicks", **options) == pytest.approx(0.2564, rel=1e-3)
    assert exposure_scale(0.01, "exposures", **options) == 0.01
    assert exposure_scale(0.5, "sum", **options) == 512.0
    assert exposure_scale(1.0, "normalised-mean", **options) == 1 / 1024
    # checked on a batch: each published reduction times its coefficient equals ours times the converted one
    error, click = torch.rand(1000, dtype=DOUBLE), (torch.arange(1000) % 25 == 0).to(DOUBLE)
    weights = inverse_propensity_weights(click, torch.full((1000,), 0.03, dtype=DOUBLE), floor=0.0)
    options = {"base_ctr": float(click.mean()), "batch_size": 1000}
    ours, snips = (
        mean_over_exposures(weights * error, None),
        mean_over_exposures(self_normalised(weights) * error, None),
    )
    published = {
        "clicks": ((weights * error).sum() / click.sum(), ours),
        "sum": ((weights * error).sum(), ours),
        "normalised-mean": ((weights / weights.sum() * error).mean(), snips),
    }
    for scale, (theirs, own) in published.items():
        assert float(0.3 * theirs) == pytest.approx(float(exposure_scale(0.3, scale, **options) * own), rel=1e-9)
