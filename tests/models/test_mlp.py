"""MLP's two losses against plain float64, and what is derived."""

import numpy as np
import pytest
import torch

from postclick.models.batching import to_batch
from postclick.models.mlp import MLP, Sampling
from postclick.nn.interaction import Interaction
from postclick.nn.tower import Tower


def entropy(label, f):
    return -(label * np.log(f) + (1 - label) * np.log(1 - f))


def probabilities(head):
    return np.exp(head.log_p.detach().double().numpy())


def test_the_click_loss_is_averaged_over_exposures(spec, exposures):
    torch.manual_seed(0)
    model, given = MLP(spec).eval(), exposures(50)
    batch = to_batch(given)
    outputs = model(batch)
    terms = model.loss(outputs, batch).terms
    o, r = given.labels.click, given.labels.conversion
    assert list(terms) == ["ctr", "cvr"]
    assert terms["ctr"].item() == pytest.approx(entropy(o, probabilities(outputs.ctr)).mean(), rel=1e-5)
    clicked = entropy(r, probabilities(outputs.cvr))[o == 1]
    assert terms["cvr"].item() == pytest.approx(clicked.sum() / 50, rel=1e-5)
    assert 0 < len(clicked) < 50  # so the divisor matters


def test_the_exposure_loss_takes_the_joint_label(spec, exposures):
    torch.manual_seed(0)
    model, given = MLP(spec, conversion="exposure").eval(), exposures(50)
    batch = to_batch(given)
    outputs = model(batch)
    terms = model.loss(outputs, batch).terms
    joint = given.labels.click * given.labels.conversion
    assert list(terms) == ["ctr", "ctcvr"]
    assert terms["ctcvr"].item() == pytest.approx(entropy(joint, probabilities(outputs.ctcvr)).mean(), rel=1e-5)


def test_the_derived_cvr_is_the_clipped_quotient(spec, exposures):
    torch.manual_seed(0)
    outputs = MLP(spec, conversion="exposure").eval()(to_batch(exposures(200)))
    ctr, ctcvr = probabilities(outputs.ctr), probabilities(outputs.ctcvr)
    np.testing.assert_allclose(probabilities(outputs.cvr), np.minimum(ctcvr / ctr, 1 - 1e-6), rtol=1e-5)


@pytest.mark.parametrize(
    ("conversion", "kind", "observed", "rate"),
    [("click", "head", ("cvr", "click"), 0.25), ("exposure", "derived", ("ctcvr", "exposure"), 0.05)],
)
def test_what_each_form_says_of_itself(spec, conversion, kind, observed, rate):
    model = MLP(spec, conversion=conversion)
    assert model.heads == {"ctr": "head", "cvr": kind, "ctcvr": "head"}
    assert model.observed == (("ctr", "exposure"), observed)
    assert not model.negatives_everywhere
    assert MLP(spec, click_space="aman").negatives_everywhere
    bias = model.conversion_network.heads["conversion"].linear.bias
    assert torch.sigmoid(bias).item() == pytest.approx(rate, rel=1e-5)
    assert len(list(model.tables())) == 2


def test_each_network_forms_its_own_interaction(spec, exposures):
    torch.manual_seed(0)
    model, batch = MLP(spec, interaction=Interaction("cross", layers=1)), to_batch(exposures(20))
    tower, encoder = model.ctr_network.towers["ctr"], model.ctr_network.encoder
    assert tower.steps[0].in_features == encoder.width == 2 * MLP(spec).ctr_network.encoder.width
    sum(model.loss(model(batch), batch).terms.values()).backward()
    networks = (model.ctr_network, model.conversion_network)
    ctr, conversion = (network.encoder.cross.layers[0].weight for network in networks)
    assert ctr is not conversion
    assert ctr.grad.abs().sum() > 0
    assert conversion.grad.abs().sum() > 0


def conversion_loss(spec, given, *, train=False, **arguments):
    """Return the model and the CVR term on `given`, dropout off; in training mode where rows are drawn."""
    torch.manual_seed(0)
    model, batch = MLP(spec, **arguments, tower=Tower((8,), (0.0,))), to_batch(given)
    model.train(train)
    return model, model.loss(model(batch), batch).terms["cvr"].item()


def test_unclicked_rows_are_negatives_at_their_rate(spec, exposures):
    given = exposures(50)
    model, found = conversion_loss(spec, given, click_space="aman", sampling=Sampling(negative_rate=0.3))
    o, r = given.labels.click, given.labels.conversion
    counts = np.where(o == 1, 1.0, 0.3)
    loss = entropy(o * r, probabilities(model(to_batch(given)).cvr))
    assert found == pytest.approx((counts * loss).sum() / 50, rel=1e-5)
    assert 0 < r.sum() < o.sum()


def test_a_copied_row_is_a_row_more_often(spec, exposures):
    given = exposures(50)
    o, r = given.labels.click, given.labels.conversion
    copied = given.take(np.repeat(np.arange(50), np.where(o * r == 1, 4, 1)))
    settings = {"click_space": "oversample", "sampling": Sampling(copies=4.0, undo_copies=False)}
    model, found = conversion_loss(spec, given, **settings)
    plain = MLP(spec, tower=Tower((8,), (0.0,))).eval()
    plain.load_state_dict(model.state_dict())
    batch = to_batch(copied)
    assert found * 50 == pytest.approx(plain.loss(plain(batch), batch).terms["cvr"].item() * len(copied), rel=1e-5)
    assert len(copied) > 50


def test_scores_have_the_copies_taken_out_of_their_odds(spec, exposures):
    torch.manual_seed(0)
    undone = MLP(spec, click_space="oversample", sampling=Sampling(copies=4.0)).eval()
    left = MLP(spec, click_space="oversample", sampling=Sampling(copies=4.0, undo_copies=False)).eval()
    left.load_state_dict(undone.state_dict())
    batch = to_batch(exposures(50))
    q, f = probabilities(undone(batch).cvr), probabilities(left(batch).cvr)
    np.testing.assert_allclose(f / (1 - f), 4 * q / (1 - q), rtol=1e-5)
    assert undone.loss(undone(batch), batch).terms["cvr"].item() == pytest.approx(
        left.loss(left(batch), batch).terms["cvr"].item(), rel=1e-5
    )
    assert np.median(q) == pytest.approx(spec.cvr, rel=0.2)


def test_clicks_are_accepted_by_their_propensity(spec, exposures):
    given = exposures(50)
    settings = {"click_space": "unbias", "sampling": Sampling(propensity_floor=0.5)}
    model, found = conversion_loss(spec, given, **settings)
    o, outputs = given.labels.click, model(to_batch(given))
    weights = o / np.maximum(probabilities(outputs.ctr), 0.5 * spec.ctr)  # IPS with that floor
    loss = entropy(given.labels.conversion, probabilities(outputs.cvr))
    assert found == pytest.approx((weights * loss).sum() / 50, rel=1e-5)
    sum(model.loss(outputs, to_batch(given)).terms.values()).backward()
    assert model.ctr_network.heads["ctr"].linear.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("settings", [{"negative_rate": 0.3}, {"propensity_floor": 0.5}])
def test_draws_have_the_mean_of_evaluation_and_follow_the_generator(spec, exposures, settings):
    given = exposures(400)
    arguments = {"click_space": "aman" if "negative_rate" in settings else "unbias", "sampling": Sampling(**settings)}
    model, expected = conversion_loss(spec, given, **arguments)
    batch = to_batch(given)
    model.train()
    torch.manual_seed(7)
    state = torch.get_rng_state()
    drawn = [model.loss(model(batch), batch).terms["cvr"].item() for _ in range(400)]
    assert np.std(drawn) > 0
    assert np.mean(drawn) == pytest.approx(expected, abs=4 * np.std(drawn) / 20)
    torch.set_rng_state(state)
    assert model.loss(model(batch), batch).terms["cvr"].item() == drawn[0]


def test_under_the_floor_every_click_is_accepted(spec, exposures):
    given = exposures(400)
    model, found = conversion_loss(
        spec, given, train=True, click_space="unbias", sampling=Sampling(propensity_floor=1.0)
    )
    with torch.no_grad():
        model.ctr_network.heads["ctr"].linear.weight.zero_()
        model.ctr_network.heads["ctr"].linear.bias.fill_(-5.0)  # every p is under the floor, so no draw decides
    batch, loss = to_batch(given), 0.0
    for _ in range(2):
        before, loss = loss, model.loss(model(batch), batch).terms["cvr"].item()
    assert loss == before != found
    clicked = entropy(given.labels.conversion, probabilities(model(batch).cvr))[given.labels.click == 1]
    assert loss == pytest.approx(clicked.sum() / spec.ctr / 400, rel=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"click_space": "aman", "conversion": "exposure"}, "needs conversion = 'click'"),
        ({"sampling": Sampling(copies=5.0)}, r"does not read sampling\.copies"),
        ({"click_space": "aman", "sampling": Sampling(propensity_floor=0.5)}, r"not read sampling\.propensity_floor"),
    ],
)
def test_a_rate_that_is_not_read_is_refused(spec, arguments, message):
    with pytest.raises(ValueError, match=message):
        MLP(spec, **arguments)


@pytest.mark.parametrize("settings", [{"negative_rate": 0.0}, {"copies": 0.5}, {"propensity_floor": 1.5}])
def test_rates_out_of_range_are_refused(settings):
    with pytest.raises(ValueError, match=r"lie in|at least 1"):
        Sampling(**settings)
