import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from postclick.losses.doubly_robust import (
    doubly_robust_risk,
    effective_target,
    imputation_loss,
    imputed_error,
    label_error,
    mrdr_weights,
    share_outside,
    targeted_label,
)
from postclick.losses.probability import LogProbability
from postclick.losses.propensity import inverse_propensity_weights, ips_risk, self_normalised
from postclick.losses.reduce import mean_over_exposures

DOUBLE = torch.float64
CLICK = torch.tensor([1.0, 0.0, 1.0, 1.0, 0.0], dtype=DOUBLE)
CONVERSION = torch.tensor([1.0, 0.0, 0.0, 1.0, 0.0], dtype=DOUBLE)
CTR = torch.tensor([0.5, 0.2, 0.1, 0.8, 0.3], dtype=DOUBLE)
LOGIT = torch.tensor([0.3, -1.0, -2.0, 1.0, 0.0], dtype=DOUBLE)
IMPUTED = torch.tensor([0.1, 0.9, 0.4, 0.3, 0.7], dtype=DOUBLE)
WEIGHTS = inverse_propensity_weights(CLICK, CTR, floor=0.0)


def pair(p):
    return LogProbability(torch.log(p), torch.log1p(-p))


def logloss(r, q):
    return -(r * np.log(q) + (1 - r) * np.log1p(-q))


def test_risk_and_imputation_losses_equal_a_plain_loop():
    cvr = LogProbability.from_logit(LOGIT)
    error = cvr.cross_entropy(CONVERSION)
    risk = doubly_robust_risk(error, IMPUTED, WEIGHTS)
    jl = imputation_loss(error, IMPUTED, WEIGHTS)
    mrdr = imputation_loss(error, IMPUTED, mrdr_weights(WEIGHTS))
    for i in range(5):
        o, p, r, e_hat = (float(column[i]) for column in (CLICK, CTR, CONVERSION, IMPUTED))
        e = logloss(r, 1 / (1 + np.exp(-float(LOGIT[i]))))
        assert float(risk[i]) == pytest.approx(e_hat + (o * (e - e_hat) / p if o else 0.0), rel=1e-12)
        assert float(jl[i]) == pytest.approx(o / p * (e - e_hat) ** 2, rel=1e-12)
        assert float(mrdr[i]) == pytest.approx(o * (1 - p) / p**2 * (e - e_hat) ** 2, rel=1e-12)


def test_the_imputed_error_is_not_confined_to_one():
    one_conversion = float(logloss(1.0, 0.01))
    assert one_conversion == pytest.approx(4.605, abs=1e-3)
    found = imputed_error(torch.tensor([-50.0, 0.0, 4.595], dtype=DOUBLE))
    np.testing.assert_allclose(found, [np.exp(-50.0), np.log(2.0), one_conversion], rtol=1e-4)
    # the twin, a probability, leaves at least 3.6 nats unexplained however it is fitted
    assert one_conversion - torch.sigmoid(torch.tensor(1e4)) > 3.6


def test_label_imputation_is_one_cross_entropy_with_an_effective_target():
    cvr = LogProbability.from_logit(LOGIT)
    risk = doubly_robust_risk(cvr.cross_entropy(CONVERSION), label_error(cvr, IMPUTED), WEIGHTS)
    target = effective_target(CONVERSION, IMPUTED, WEIGHTS)
    torch.testing.assert_close(cvr.cross_entropy(target), risk, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(label_error(cvr, pair(IMPUTED)), label_error(cvr, IMPUTED))
    expected = [1 + (2 - 1) * 0.9, 0.9, (1 - 10) * 0.4, 1 + 0.25 * 0.7, 0.7]
    np.testing.assert_allclose(target, expected, rtol=1e-12)
    assert float(share_outside(target, CLICK)) == 1.0
    assert float(share_outside(IMPUTED, CLICK)) == 0.0
    assert float(share_outside(target, torch.zeros(5))) == 0.0


def test_a_detached_error_tower_gives_exactly_the_ips_gradient():
    logit, tower = LOGIT.clone().requires_grad_(), torch.linspace(-1, 1, 5, dtype=DOUBLE).requires_grad_()
    error = CLICK * LogProbability.from_logit(logit).cross_entropy(CONVERSION)
    imputed = imputed_error(tower).detach()
    robust = mean_over_exposures(doubly_robust_risk(error, imputed, WEIGHTS), None)
    (found,) = torch.autograd.grad(robust, logit, retain_graph=True)
    (expected,) = torch.autograd.grad(mean_over_exposures(ips_risk(error, WEIGHTS), None), logit, retain_graph=True)
    assert torch.equal(found, expected)
    # the label form reaches unclicked rows
    cvr = LogProbability.from_logit(logit)
    label = doubly_robust_risk(cvr.cross_entropy(CONVERSION), label_error(cvr, IMPUTED), WEIGHTS)
    (other,) = torch.autograd.grad(mean_over_exposures(label, None), logit)
    assert (other[CLICK == 0] != 0).all()
    assert (found[CLICK == 0] == 0).all()


def test_the_imputation_learns_from_its_own_loss_and_leaves_the_cvr_alone():
    logit, tower = LOGIT.clone().requires_grad_(), torch.zeros(5, dtype=DOUBLE).requires_grad_()
    error = CLICK * LogProbability.from_logit(logit).cross_entropy(CONVERSION)
    loss = imputation_loss(error.detach(), imputed_error(tower), WEIGHTS).sum()
    assert torch.autograd.grad(loss, logit, allow_unused=True, retain_graph=True)[0] is None
    (found,) = torch.autograd.grad(loss, tower)
    gap = imputed_error(tower.detach()) - error.detach()
    torch.testing.assert_close(found, 2 * WEIGHTS * gap * 0.5)  # d softplus(0) = 1/2
    # the twin does not detach, and pulls the CVR towards its imputed error
    twin = imputation_loss(error, imputed_error(tower), WEIGHTS).sum()
    (pulled,) = torch.autograd.grad(twin, logit)
    assert (pulled[CLICK == 1] != 0).all()


# Unbiasedness by simulation: [R, B] replicates redraw clicks and potential conversions, floor 0.
REPLICATES, ROWS = 2000, 60


class World:
    def __init__(self, *, p_hat=None, label=None):
        rng = np.random.default_rng(5)
        x = rng.normal(size=ROWS)
        self.p = torch.from_numpy(1 / (1 + np.exp(-(-0.5 + 0.9 * x))))
        self.r = torch.from_numpy(1 / (1 + np.exp(-(-0.3 + 1.1 * x))))
        self.q = LogProbability.from_logit(torch.from_numpy(0.4 - 0.5 * x))
        generator = torch.Generator().manual_seed(7)
        draws = torch.rand(2, REPLICATES, ROWS, generator=generator, dtype=DOUBLE)
        self.click = (draws[0] < self.p).to(DOUBLE)
        self.potential = (draws[1] < self.r).to(DOUBLE)
        self.ideal = float(self.q.cross_entropy(self.r).mean())
        self.weights = inverse_propensity_weights(self.click, self.p if p_hat is None else p_hat, floor=0.0)
        self.error = self.click * self.q.cross_entropy(self.potential)  # what an unclicked row would do is not seen
        self.imputed = label_error(self.q, self.r if label is None else label)

    def ips(self):
        return ips_risk(self.error, self.weights).mean(dim=1)

    def robust(self):
        return doubly_robust_risk(self.error, self.imputed, self.weights).mean(dim=1)

    def errors_away(self, risk):
        """How many standard errors the mean over replicates lies from the expected ideal risk."""
        return abs(float(risk.mean()) - self.ideal) / float(risk.std() / REPLICATES**0.5)


WRONG_LABEL = torch.full((ROWS,), 0.1, dtype=DOUBLE)


def test_ips_and_robust_risks_are_unbiased_with_the_right_propensity():
    world = World(label=WRONG_LABEL)
    assert world.errors_away(world.ips()) < 3
    assert world.errors_away(world.robust()) < 3
    naive = (world.error.sum(dim=1) / world.click.sum(dim=1).clamp(min=1)).nan_to_num()
    assert world.errors_away(naive) > 10


def test_robust_is_right_when_either_nuisance_is_and_wrong_when_both_are_not():
    wrong = World().p.pow(0.5) * 0.6
    right_label = World(p_hat=wrong)
    assert right_label.errors_away(right_label.ips()) > 10
    assert right_label.errors_away(right_label.robust()) < 3
    both_wrong = World(p_hat=wrong, label=WRONG_LABEL)
    assert both_wrong.errors_away(both_wrong.robust()) > 10
    # and wrong by the formula: mean((p^ - p) / p^ (e^ - e)) with e the expected error
    error = both_wrong.q.cross_entropy(both_wrong.r)
    bias = float(((wrong - both_wrong.p) / wrong * (both_wrong.imputed - error)).mean())
    risk = both_wrong.robust()
    assert float(risk.mean()) - both_wrong.ideal == pytest.approx(bias, abs=4 * float(risk.std() / REPLICATES**0.5))


def test_with_fixed_conversions_and_the_exact_error_the_robust_risk_is_the_ideal_one():
    world = World(p_hat=World().p * 0.4)
    fixed = world.q.cross_entropy(world.potential[0])
    risk = doubly_robust_risk(world.click * fixed, fixed, world.weights).mean(dim=1)
    torch.testing.assert_close(risk, fixed.mean().expand(REPLICATES), rtol=1e-12, atol=1e-12)
    # IPS needs the propensity: right, it is unbiased for these conversions; at 0.4 of it, 2.5 times too high
    right = ips_risk(fixed, inverse_propensity_weights(world.click, world.p, floor=0.0)).mean(dim=1)
    assert abs(float(right.mean() - fixed.mean())) < 3 * float(right.std() / REPLICATES**0.5)
    assert float(ips_risk(fixed, world.weights).mean()) == pytest.approx(2.5 * float(right.mean()), rel=1e-9)


def test_variances_follow_their_formulas_and_robust_is_below_ips():
    world = World()
    fixed = world.q.cross_entropy(world.potential[0])
    imputed = 0.8 * fixed + 0.1
    ips = ips_risk(fixed, world.weights).mean(dim=1)
    robust = doubly_robust_risk(fixed, imputed, world.weights).mean(dim=1)
    spread = (1 - world.p) / world.p
    for risk, residual in ((ips, fixed), (robust, fixed - imputed)):
        expected = float((spread * residual**2).sum()) / ROWS**2
        assert float(risk.var()) == pytest.approx(expected, rel=0.15)
    assert float(robust.var()) < 0.2 * float(ips.var())
    # also where conversions are drawn anew and the imputation knows only their rate
    assert float(world.robust().var()) < 0.9 * float(world.ips().var())


@given(st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_targeted_labels_have_no_weighted_residual(seed):
    generator = torch.Generator().manual_seed(seed)
    odds = torch.randn(200, generator=generator, dtype=DOUBLE)
    click = (torch.rand(200, generator=generator, dtype=DOUBLE) < 0.4).to(DOUBLE)
    conversion = click * (torch.rand(200, generator=generator, dtype=DOUBLE) < torch.sigmoid(0.3 - odds)).to(DOUBLE)
    weights = inverse_propensity_weights(
        click, 0.1 + 0.8 * torch.rand(200, generator=generator, dtype=DOUBLE), floor=0.0
    )
    sample = torch.rand(200, generator=generator, dtype=DOUBLE) + 0.1
    label = targeted_label(LogProbability.from_logit(odds), conversion, weights, sample_weight=sample)
    chance = label.log_p.exp()
    residual = (sample * weights * (conversion - chance)).sum() / (sample * weights).sum()
    assert abs(float(residual)) < 1e-6
    shift = label.log_p - label.log_not_p - odds
    assert float(shift.max() - shift.min()) < 1e-9
    # along a common shift of the CVR's logits its gradient is that of the robust risk
    logit = odds.flip(0).requires_grad_()
    cvr = LogProbability.from_logit(logit)
    robust = doubly_robust_risk(cvr.cross_entropy(conversion), label_error(cvr, chance), weights)
    plain = label_error(cvr, chance)
    grads = [torch.autograd.grad((sample * risk).sum(), logit, retain_graph=True)[0].sum() for risk in (robust, plain)]
    assert float(grads[0]) == pytest.approx(float(grads[1]), abs=1e-3)


def test_targeting_is_bounded_and_needs_weight():
    label = LogProbability.from_logit(torch.tensor([0.0, 1.0]))
    assert torch.equal(targeted_label(label, torch.zeros(2), torch.zeros(2)).log_p, label.log_p)
    none = targeted_label(label, torch.zeros(2), torch.tensor([10.0, 0.0]), largest_shift=2.0)
    shift = none.log_p - none.log_not_p - torch.tensor([0.0, 1.0])
    assert (shift >= -2.0).all()
    assert (shift < -1.9).all()


@pytest.mark.parametrize("guard", ["none", "capped", "normalised", "targeted"])
def test_memorising_rows_diverges_only_without_a_guard(guard):
    # one free logit a row: 3 clicked of 40, p^ = 0.05, so a clicked row without conversion has the target 1 - 20 < 0
    click, conversion = torch.zeros(40), torch.zeros(40)
    click[:3], conversion[0] = 1.0, 1.0
    imputed = LogProbability.from_logit(torch.full((40,), -0.5))
    cap = 1.0 if guard == "capped" else None
    weights = inverse_propensity_weights(click, torch.full((40,), 0.05), floor=0.0, cap=cap)
    weights = self_normalised(weights) if guard == "normalised" else weights
    logit = torch.zeros(40, requires_grad=True)
    optimiser = torch.optim.Adam([logit], lr=0.5)
    for _ in range(400):
        cvr = LogProbability.from_logit(logit)
        if guard == "targeted":
            risk = label_error(cvr, targeted_label(imputed, conversion, weights))
        else:
            risk = doubly_robust_risk(cvr.cross_entropy(conversion), label_error(cvr, imputed), weights)
        loss = mean_over_exposures(risk, None)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    bounded = {"none": False, "capped": True, "normalised": False, "targeted": True}[guard]
    assert bool(loss > 0.0) is bounded
    if guard == "none":
        assert loss < -20.0
        assert share_outside(effective_target(conversion, imputed.log_p.exp(), weights), click) == 1.0
