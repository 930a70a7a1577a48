import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from postclick.losses.probability import LogProbability
from postclick.losses.reweight import LabelWeights, contradiction_weights, reweighted_shares, undo_weights

DOUBLE = torch.float64
CTR = torch.tensor([0.5, 0.2, 0.1, 0.05, 0.01, 0.0, 1.0], dtype=DOUBLE)
HIGH, LOW = torch.tensor(0.2, dtype=DOUBLE), torch.tensor(0.05, dtype=DOUBLE)
FORMS = ("power", "linear", "jump")
NEVER = {"high": torch.tensor(math.inf), "low": torch.tensor(-math.inf)}


def in_words(form, epsilon, cap, p, high, low):
    """Return (w0, w1) of one row, the formulas of the module read out."""
    grown = {
        "power": lambda ratio, excess: ratio**epsilon,
        "linear": lambda ratio, excess: 1 + epsilon * excess,
        "jump": lambda ratio, excess: epsilon * ratio,
    }[form]
    above = min(cap, grown(p / high, (p - high) / high)) if p > high else 1.0
    below = min(cap, grown(low / p if p else math.inf, (low - p) / low)) if p < low else 1.0
    return above, below


def weights(form="power", epsilon=3.0, cap=4.0, ctr=CTR):
    return contradiction_weights(ctr, high=HIGH, low=LOW, form=form, epsilon=epsilon, cap=cap)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("epsilon", "cap"), [(3.0, 4.0), (0.5, 4.0), (3.0, 1.0), (1.0, 1e9), (2.5, 10.0)])
def test_weights_equal_the_formulas_read_out(form, epsilon, cap):
    found = weights(form, epsilon, cap)
    expected = [in_words(form, epsilon, cap, p, HIGH.item(), LOW.item()) for p in CTR.tolist()]
    torch.testing.assert_close(found.negative, torch.tensor([w0 for w0, _ in expected], dtype=DOUBLE))
    bounded = torch.tensor([min(w1, 1e30**3) for _, w1 in expected], dtype=DOUBLE)
    torch.testing.assert_close(found.positive, bounded)


def test_by_hand():
    """(.5 / .2)^3 = 15.6 and (.05 / .01)^3 = 125 are capped; (.05 / .04)^3 = 1.953."""
    found = weights(ctr=torch.tensor([0.5, 0.25, 0.04, 0.01], dtype=DOUBLE))
    torch.testing.assert_close(found.negative, torch.tensor([4.0, 1.953125, 1.0, 1.0], dtype=DOUBLE))
    torch.testing.assert_close(found.positive, torch.tensor([1.0, 1.0, 1.953125, 4.0], dtype=DOUBLE))
    label = torch.tensor([0.0, 1.0, 1.0, 0.0], dtype=DOUBLE)
    torch.testing.assert_close(found.of(label), torch.tensor([4.0, 1.0, 1.953125, 1.0], dtype=DOUBLE))


@pytest.mark.parametrize("form", FORMS)
def test_epsilon_0_is_weight_1_in_the_forms_that_start_at_1(form):
    found = weights(form, epsilon=0.0)
    ones = bool((found.negative == 1).all() and (found.positive == 1).all())
    assert ones == (form != "jump")


@pytest.mark.parametrize("form", FORMS)
def test_a_cap_of_1_is_weight_1(form):
    found = weights(form, cap=1.0)
    assert torch.equal(found.negative, torch.ones_like(CTR))
    assert torch.equal(found.positive, torch.ones_like(CTR))


@pytest.mark.parametrize(("form", "at"), [("power", 1.0), ("linear", 1.0), ("jump", 3.0)])
def test_just_beyond_a_threshold(form, at):
    found = weights(form, ctr=torch.tensor([0.2 + 1e-9, 0.05 - 1e-9, 0.2, 0.05], dtype=DOUBLE))
    assert found.negative[0].item() == pytest.approx(at, rel=1e-6)
    assert found.positive[1].item() == pytest.approx(at, rel=1e-6)
    assert found.negative[2].item() == found.positive[3].item() == 1.0  # at a threshold a row is not beyond it


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("epsilon", [0.0, 2.5, 3.0])
def test_infinite_thresholds_weigh_no_row(form, epsilon):
    ctr = torch.tensor([0.0, 0.3, 1.0])
    found = contradiction_weights(ctr, **NEVER, form=form, epsilon=epsilon)
    assert torch.equal(found.negative, torch.ones(3))
    assert torch.equal(found.positive, torch.ones(3))


@given(st.lists(st.floats(0.0, 1.0, width=32), min_size=1, max_size=20), st.sampled_from(FORMS), st.floats(0.0, 5.0))
@settings(max_examples=60, deadline=None)
def test_weights_are_finite_and_bounded(ps, form, epsilon):
    found = contradiction_weights(
        torch.tensor(ps), high=torch.tensor(0.3), low=torch.tensor(0.1), form=form, epsilon=epsilon, cap=4.0
    )
    for each in (found.negative, found.positive):
        assert torch.isfinite(each).all()
        assert each.max() <= 4.0
        assert each.min() >= (1.0 if form != "jump" else min(1.0, epsilon))


def test_what_is_out_of_range_is_refused():
    for epsilon, cap in ((-1.0, 4.0), (math.inf, 4.0), (math.nan, 4.0), (3.0, 0.5), (3.0, math.nan)):
        with pytest.raises(ValueError, match="an epsilon of at least 0 and a cap of at least 1"):
            weights(epsilon=epsilon, cap=cap)
    with pytest.raises(ValueError, match="got 'cubic'"):
        weights("cubic")


def test_nothing_is_detached_here():
    ctr = CTR[:2].clone().requires_grad_()
    weights(ctr=ctr, cap=100.0).negative.sum().backward()
    assert ctr.grad[0] == pytest.approx(3 * 0.5**2 / 0.2**3)


# --- undoing ---------------------------------------------------------------------------------------------------------

ODDS = torch.tensor([-30.0, -4.0, 0.0, 3.0, 20.0], dtype=DOUBLE)


def check_undone(undo):
    """The minimiser of w1 P -log s + w0 (1 - P) -log(1 - s) over s, undone, is P."""
    truth, rest = torch.sigmoid(ODDS), torch.sigmoid(-ODDS)
    given = LabelWeights(torch.tensor([4.0, 1, 2, 1, 3]).double(), torch.tensor([1.0, 4, 1, 1, 2]).double())
    yes, no = given.positive * truth, given.negative * rest
    undone = undo(LogProbability((yes / (yes + no)).log(), (no / (yes + no)).log()), given)
    torch.testing.assert_close(undone.log_p - undone.log_not_p, ODDS, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(undone.log_p.exp() + undone.log_not_p.exp(), torch.ones_like(ODDS))


def test_undoing_gives_the_probability_back():
    check_undone(undo_weights)


@pytest.mark.parametrize(
    "bug",
    [
        lambda s, w: undo_weights(s, LabelWeights(w.positive, w.negative)),
        lambda s, w: undo_weights(s, dataclasses.replace(w, positive=torch.ones_like(w.positive))),
        lambda s, _: s,
        lambda s, w: LogProbability(s.log_p + w.negative.log() - w.positive.log(), s.log_not_p),  # of p, not of odds
    ],
    ids=["the other way round", "one side", "none", "of p"],
)
def test_wrong_undoing_is_told(bug):
    with pytest.raises(AssertionError):
        check_undone(bug)


def test_the_weighted_loss_is_least_at_the_odds_that_are_undone():
    """By descent on s itself: odds(s) = odds(P) w1 / w0."""
    truth, w = torch.tensor(0.1, dtype=DOUBLE), LabelWeights(torch.tensor(4.0).double(), torch.tensor(1.0).double())
    logit = torch.zeros((), dtype=DOUBLE, requires_grad=True)
    for _ in range(200):
        s = LogProbability.from_logit(logit)
        risk = truth * w.positive * s.cross_entropy(1.0) + (1 - truth) * w.negative * s.cross_entropy(0.0)
        (slope,) = torch.autograd.grad(risk, logit)
        logit = (logit - slope).detach().requires_grad_()
    assert logit.item() == pytest.approx(math.log(0.1 / 0.9) - math.log(4.0), abs=1e-6)


def test_rows_of_equal_weights_keep_their_bits():
    s = LogProbability.from_logit(torch.linspace(-100.0, 100.0, 51))
    same = LabelWeights(torch.full((51,), 3.0), torch.full((51,), 3.0))
    found = undo_weights(s, same)
    assert torch.equal(found.log_p, s.log_p)
    assert torch.equal(found.log_not_p, s.log_not_p)


@pytest.mark.parametrize("logit", [-1e4, -100.0, 0.0, 100.0, 1e4])
def test_undone_logits_of_ten_thousand_are_finite(logit):
    odds = torch.tensor([logit], requires_grad=True)
    found = undo_weights(LogProbability.from_logit(odds), LabelWeights(torch.tensor([4.0]), torch.tensor([1.0])))
    (found.log_p + found.log_not_p).sum().backward()
    assert torch.isfinite(odds.grad).all()
    assert (found.log_p - found.log_not_p).item() == pytest.approx(logit + math.log(4.0), rel=1e-6, abs=1e-5)


# --- the shares ------------------------------------------------------------------------------------------------------


def test_shares_count_rows_by_their_label():
    label = torch.tensor([0.0, 1.0, 0.0, 1.0, 1.0, 0.0, 0.0], dtype=DOUBLE)
    sample = torch.tensor([1.0, 1, 1, 1, 3, 1, 0], dtype=DOUBLE)
    # rows 0 and 6 are high and did not convert, row 4 is low and did; row 5 is low and did not
    for own, high, low in ((None, 2 / 7, 1 / 7), (sample, 1 / 8, 3 / 8)):
        shares = reweighted_shares(weights(), label, own)
        assert shares["reweighted/high"].item() == pytest.approx(high)
        assert shares["reweighted/low"].item() == pytest.approx(low)
