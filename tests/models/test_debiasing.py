"""What the weighted systems share: sources of propensities, bounds, the guard of label imputation, phases."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from postclick.data.log import LogSpec
from postclick.errors import ConfigError, DataError
from postclick.losses.doubly_robust import doubly_robust_risk, label_error
from postclick.losses.probability import LogProbability
from postclick.models.base import Batch
from postclick.models.batching import to_batch
from postclick.models.catalog import build
from postclick.models.debiasing import (
    ImputedRisk,
    RobustRisk,
    WeightedRisk,
    imputation_rate,
    propensities,
    robust_rows,
)
from postclick.models.multi_ipw import MultiDR, MultiDRRisk, MultiIPW
from postclick.nn.embedding import use_sparse_gradients
from postclick.nn.features import Features
from postclick.nn.tower import Tower
from postclick.schema import Schema, SparseFeature

WEIGHTED = ["multi-ipw", "multi-dr", "escm2-ips", "escm2-dr", "dr-jl", "mrdr"]
ROBUST = ["multi-dr", "escm2-dr", "dr-jl", "mrdr"]


def empty(rows):
    return Features(torch.zeros(rows, 0, dtype=torch.int32), torch.zeros(rows, 0), torch.zeros(rows, 0), ())


def pair(values):
    p = torch.tensor(values, dtype=torch.float64)
    return LogProbability(torch.log(p), torch.log1p(-p))


# --- sources of propensities -----------------------------------------------------------------------------------------


def test_each_source_is_what_it_says():
    ctr, logged = pair([0.04, 0.25, 0.9]), torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64)
    batch = Batch(empty(3), propensity=logged)
    assert propensities("ctr", ctr, batch, 0.16) is ctr
    assert torch.equal(propensities("logged", ctr, batch, 0.16), logged)
    assert propensities("constant", ctr, batch, 0.16).tolist() == [0.16] * 3
    assert propensities("one", ctr, batch, 0.16).tolist() == [1.0] * 3
    heuristic = propensities("heuristic", ctr, batch, 0.16)
    np.testing.assert_allclose(heuristic.log_p.exp(), [0.08, 0.2, np.sqrt(0.9 * 0.16)], rtol=1e-12)
    np.testing.assert_allclose(heuristic.log_p.exp() + heuristic.log_not_p.exp(), 1.0, rtol=1e-12)


def test_the_heuristic_stays_finite_at_a_click_rate_of_one_and_of_none():
    ctr = LogProbability.from_logit(torch.tensor([1e4, -1e4], requires_grad=True))
    for base in (1.0, 0.0):
        found = propensities("heuristic", ctr, Batch(empty(2)), base)
        assert torch.isfinite(found.log_p).all()
        assert torch.isfinite(found.log_not_p).all()


@pytest.mark.parametrize("key", WEIGHTED)
def test_logged_propensities_are_asked_for_where_there_are_none(key, tiny):
    spec, exposures = tiny
    with pytest.raises(ConfigError, match=r"needs the log's propensities.*propensity = \.\.\."):
        build(key, spec, {"propensity": "logged"})
    model, labels = build(key, with_propensity(spec), {"propensity": "logged"}), exposures.labels
    batch = to_batch(exposures)
    with pytest.raises(DataError, match="a loss needs logged propensities") as caught:
        model.loss(model(batch), batch)
    assert caught.value.findings[0].code == "data.label_missing"
    logged = dataclasses.replace(labels, propensity=np.linspace(0.1, 1.0, len(exposures)))
    batch = to_batch(dataclasses.replace(exposures, labels=logged))
    found = model.loss(model(batch), batch).diagnostics["largest_weight"]
    assert float(found) == pytest.approx(1 / logged.propensity[labels.click == 1].min(), rel=1e-5)


def with_propensity(spec):
    columns = dataclasses.replace(spec.schema.columns, propensity="propensity")
    return dataclasses.replace(spec, schema=dataclasses.replace(spec.schema, columns=columns))


# --- settings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("risk", "message"),
    [
        (lambda: WeightedRisk(propensity_floor=-0.1), "a propensity_floor of at least 0"),
        (lambda: WeightedRisk(cap=0.5), "a cap of at least 1"),
        (lambda: RobustRisk(reach=0.0), "reach is above 0, or off"),
        (lambda: ImputedRisk(constant_label=1.5), r"constant_label lies in \[0, 1\]"),
        (lambda: ImputedRisk(cap=float("nan")), "a cap of at least 1"),
    ],
)
def test_settings_out_of_range_are_refused(risk, message):
    with pytest.raises(ValueError, match=message):
        risk()


@pytest.mark.parametrize("key", ["multi-dr", "escm2-dr"])
def test_a_constant_has_nothing_to_alternate_with(key, tiny):
    with pytest.raises(ConfigError, match="a constant imputation has no tower"):
        build(key, tiny[0], {"imputation": "constant", "risk": {"updates": "alternating"}})


@pytest.mark.parametrize("cvr", [0.5, 0.005, 1e-4])
def test_an_imputation_starts_at_the_base_rate_or_at_its_entropy(cvr):
    assert imputation_rate("label", cvr) == cvr
    rate = imputation_rate("error", cvr)
    start = np.log(rate) - np.log1p(-rate)
    assert np.log1p(np.exp(start)) == pytest.approx(-cvr * np.log(cvr) - (1 - cvr) * np.log(1 - cvr), rel=1e-6)
    assert imputation_rate("error", 0.0) == 0.0


# --- the guard of label imputation -----------------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**31), st.floats(0.2, 5.0))
def test_within_reach_the_risk_is_the_doubly_robust_one_and_beyond_only_the_label_pulls(seed, reach):
    rng = np.random.default_rng(seed)
    logit = torch.tensor(rng.normal(size=30) * 3, requires_grad=True)
    imputed, click = torch.tensor(rng.normal(size=30) * 3), torch.tensor(rng.integers(0, 2, 30).astype(float))
    bought, weights = click * torch.tensor(rng.integers(0, 2, 30).astype(float)), click * (1 + 20 * rng.random())
    cvr = LogProbability.from_logit(logit)
    guard = RobustRisk(reach=reach)
    rows = robust_rows(("label", imputed), cvr, click, bought, weights, guard=guard, sample_weight=None)
    (slope,) = torch.autograd.grad(rows.risk.sum(), logit, retain_graph=True)
    label = torch.sigmoid(imputed)
    free = doubly_robust_risk(cvr.cross_entropy(bought), label_error(cvr, label), weights)
    (free_slope,) = torch.autograd.grad(free.sum(), logit, retain_graph=True)
    inside = (logit.detach() - imputed).abs() < reach
    torch.testing.assert_close(rows.risk[inside], free[inside], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(slope[inside], free_slope[inside], rtol=1e-9, atol=1e-9)
    back = torch.sigmoid(logit.detach()) - label  # towards the label
    torch.testing.assert_close(slope[~inside], back[~inside], rtol=1e-9, atol=1e-9)
    bound = weights * (imputed.abs() + reach)
    assert (rows.risk >= -bound - 1e-9).all()


ROWS = 60


def memorised(key, risk, steps, imputation=-1.0):
    """The largest logit after training a table with a row an exposure against an imputation that does not learn."""
    base = Schema((SparseFeature("row"),))
    columns = dataclasses.replace(base.columns, propensity="p")
    rng = np.random.default_rng(0)
    p, draws = rng.uniform(0.02, 0.4, ROWS), rng.random((2, ROWS))
    click = draws[0] < np.maximum(p, 0.3)
    bought = click & (draws[1] < 0.4)
    counts = (float(ROWS), float(click.sum()), float(bought.sum()))
    spec = LogSpec(dataclasses.replace(base, columns=columns), ROWS + 1, *counts)
    features = Features(torch.arange(1, ROWS + 1, dtype=torch.int32)[:, None], *(torch.zeros(ROWS, 0),) * 2, ())
    labels = (torch.tensor(values.astype(np.float32)) for values in (click, bought))
    batch = Batch(features, *labels, propensity=torch.tensor(p.astype(np.float32)))
    torch.manual_seed(0)
    arguments = {"propensity": "logged", "embedding_size": 4, "trunk": "shared"}
    risk = {"propensity_floor": 0.0, **({"lambda_c": 1.0} if key == "escm2-dr" else {}), **risk}
    model = build(key, spec, {**arguments, "risk": risk, "tower": {"hidden": [8], "dropout": [0.0]}})
    use_sparse_gradients(model, False)
    optimiser = torch.optim.Adam(model.parameters(), lr=0.03)
    for _ in range(steps):
        outputs = model(batch)
        held = {**outputs.extras, "imputation": torch.full((ROWS,), imputation)}
        terms = model.loss(dataclasses.replace(outputs, extras=held), batch).terms
        optimiser.zero_grad()
        terms["cvr"].backward()
        optimiser.step()
    with torch.no_grad():
        cvr = model(batch).cvr
    return float((cvr.log_p - cvr.log_not_p).abs().max()), terms["cvr"].item()


@pytest.mark.parametrize(
    ("key", "guard"), [*((key, {}) for key in ROBUST), ("multi-dr", {"reach": 1.0}), ("multi-dr", {"targeted": True})]
)
def test_an_imputed_label_does_not_run_away_with_a_table_that_memorises(key, guard):
    """The default guard holds |logit| within reach of the imputed -1; rows beyond are pulled back."""
    logit, loss = memorised(key, guard, 200)
    assert logit < 1.0 + guard.get("reach", 3.0) + 1.0
    assert loss > -60.0


@pytest.mark.parametrize("guard", [{}, {"cap": 10.0}, {"self_normalise": True}], ids=str)
def test_without_the_guard_it_does_and_a_cap_or_a_scale_only_slow_it(guard):
    half, whole = (memorised("multi-dr", {"reach": None, **guard}, steps) for steps in (100, 200))
    assert whole[0] > 1.5 * half[0] > 10.0
    assert whole[1] < half[1] < 0.0


# --- phases ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("trunk", ["shared", "mmoe", "ple"])
@pytest.mark.parametrize("key", ["multi-dr", "escm2-dr"])
def test_the_imputations_phase_holds_what_its_loss_alone_reaches(key, trunk, tiny):
    spec, exposures = tiny
    model = build(key, spec, {"trunk": trunk, "risk": {"updates": "alternating"}}).train()
    use_sparse_gradients(model, False)
    batch = to_batch(exposures)
    terms = model.loss(model(batch), batch).terms
    alone = reached(model, terms["imputation"])
    alone -= set().union(*(reached(model, term) for name, term in terms.items() if name != "imputation"))
    imputation, prediction = model.phases()
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert {names[id(parameter)] for parameter in imputation.parameters} == alone
    assert {names[id(parameter)] for parameter in prediction.parameters} == set(names.values()) - alone
    assert imputation.terms == ("imputation",)
    assert {*imputation.terms, *prediction.terms} == set(terms)


def reached(model, term):
    """The parameters that a term has a path to."""
    names, parameters = zip(*model.named_parameters(), strict=True)
    found = torch.autograd.grad(term, parameters, retain_graph=True, allow_unused=True)
    return {name for name, gradient in zip(names, found, strict=True) if gradient is not None}


def test_one_step_a_batch_is_the_default(tiny):
    assert [phase.name for phase in build("multi-dr", tiny[0], {}).phases()] == ["all"]
    assert [phase.name for phase in build("multi-ipw", tiny[0], {}).phases()] == ["all"]


# --- what the weights are beside ------------------------------------------------------------------------------------


def loss_of(system, spec, exposures, **arguments):
    torch.manual_seed(0)
    model = system(spec, tower=Tower((6,), (0.0,)), embedding_size=4, **arguments).double().eval()
    batch = to_batch(exposures)
    return model, batch, model.loss(model(batch), batch).terms


def test_a_constant_propensity_is_the_naive_fit_by_a_constant(tiny):
    spec, exposures = tiny
    model, batch, terms = loss_of(MultiIPW, spec, exposures, propensity="constant")
    error = model(batch).cvr.cross_entropy(batch.conversion)
    naive = (batch.weight * batch.click * error).sum() / batch.weight.sum()
    assert float(terms["cvr"].detach()) == pytest.approx(float(naive.detach()) / spec.ctr, rel=1e-6)


def test_naive_imputation_takes_unclicked_rows_for_negatives(tiny):
    spec, exposures = tiny
    arguments = {"propensity": "one", "imputation": "constant", "risk": MultiDRRisk(constant_label=0.0)}
    model, batch, terms = loss_of(MultiDR, spec, exposures, **arguments)
    joint = model(batch).cvr.cross_entropy(batch.click * batch.conversion)
    expected = (batch.weight * joint).sum() / batch.weight.sum()
    assert float(terms["cvr"].detach()) == pytest.approx(float(expected.detach()), rel=1e-6)
    assert set(terms) == {"ctr", "cvr"}


@pytest.mark.parametrize(
    ("label", "propensity", "rate"),
    [
        (0.0, "one", 0.06),  # unclicked rows are negatives: CTR * CVR
        (0.0, "ctr", 0.3),  # weighted clicks stand for all exposures
        (None, "one", 0.3),  # the log's CVR everywhere
        (0.5, "one", 0.5 + 0.2 * (0.3 - 0.5)),
    ],
)
def test_under_a_constant_label_the_head_starts_at_the_mean_it_fits(label, propensity, rate, tiny):
    spec = dataclasses.replace(tiny[0], rows=100.0, clicks=20.0, conversions=6.0)
    assert ImputedRisk(constant_label=label).constant_rate(propensity, spec) == pytest.approx(rate)
    everywhere = dataclasses.replace(spec, conversions=20.0)
    assert ImputedRisk(constant_label=0.0).constant_rate("logged", everywhere) == pytest.approx(0.2)


def test_negatives_are_everywhere_under_a_constant_label_below_one(tiny):
    def says(**arguments):
        return build("multi-dr", tiny[0], arguments).negatives_everywhere

    assert says(imputation="constant", risk={"constant_label": 0.0})
    assert not says(imputation="constant")
    assert not says(imputation="constant", risk={"constant_label": 1.0})
    assert not says()
