"""CSTWA beside its equations (tests/transcription): what it asks for, epochs, resuming, the window, undone weights."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from postclick.bundle.header import Constant
from postclick.bundle.serving import apply_constants
from postclick.calibration import Calibration
from postclick.calibration.config import CalibrationConfig
from postclick.data.arrays import Exposures, Labels
from postclick.data.entities import entities
from postclick.data.log import LogSpec
from postclick.data.scores import probability
from postclick.errors import ConfigError, TrainingError
from postclick.models.base import NeighbourGraph, Pretraining
from postclick.models.batching import to_batch
from postclick.models.catalog import build
from postclick.models.cstwa import CSTWA, ClickPerceptron, Escaper, Migrator
from postclick.models.scoring import score
from postclick.nn.embedding import use_sparse_gradients
from postclick.nn.tower import Tower
from postclick.schema import Columns, Schema, SparseFeature
from postclick.training.config import TrainingConfig
from postclick.training.loop import train
from postclick.training.seeding import seed_torch

USERS, ITEMS, SHOPS = 40, 20, 4
SCHEMA = Schema(
    (SparseFeature("user", "user"), SparseFeature("item", "item"), SparseFeature("shop", "item")),
    Columns(user_id="user", item_id="item"),
)
SIZES = (USERS, ITEMS, SHOPS)
SMALL = {"embedding_size": 4, "tower": {"hidden": [8], "dropout": [0.1]}}
OFF = {"migrator": None, "perceptron": None, "escaper": None, "calibrator": None}


def drawn(rows, seed):
    """Rows whose click and conversion depend on user and item, and their true probabilities."""
    world, rng = np.random.default_rng(7), np.random.default_rng(seed)
    user, item = rng.integers(0, USERS, rows), rng.integers(0, ITEMS, rows)
    ctr, cvr = (
        1 / (1 + np.exp(-(world.normal(0, 1.2, USERS)[user] + world.normal(0, 1.2, ITEMS)[item] + shift)))
        for shift in (-1.0, 0.2)
    )
    click = rng.random(rows) < ctr
    conversion = click & (rng.random(rows) < cvr)
    matrix = np.stack([3 + user, 3 + USERS + item, 3 + USERS + ITEMS + item % SHOPS], 1).astype(np.int32)
    empty = np.zeros((rows, 0), np.float32)
    labels = Labels(click.astype(np.int8), conversion.astype(np.int8))
    return Exposures(matrix, empty, empty, (), labels), ctr, ctr * cvr


@pytest.fixture(scope="module")
def rows():
    return drawn(4_000, 0)


def spec_of(given):
    labels = given.labels
    counts = (float(count) for count in (len(labels), labels.click.sum(), labels.conversion.sum()))
    return LogSpec(SCHEMA, 3 + sum(SIZES), *counts, field_rows=SIZES)


@pytest.fixture(scope="module")
def spec(rows):
    return spec_of(rows[0])


def ring(side):
    """A side in a ring whose first entity has no neighbour."""
    first, count = (3, USERS) if side == "user" else (3 + USERS, ITEMS)
    entity = np.arange(first, first + count, dtype=np.int32)
    linked = np.arange(1, count)
    features = entity[:, None]
    if side == "item":
        features = np.stack([entity, 3 + USERS + ITEMS + np.arange(count, dtype=np.int32) % SHOPS], 1)
    return {
        "entity": entity,
        "features": features,
        "indptr": np.r_[0, np.arange(count)].astype(np.int64),
        "indices": np.roll(linked, 1).astype(np.int32),
        "values": np.ones(len(linked), np.float32),
    }


def built(spec, arguments, *, seed=0, graphs=True):
    torch.manual_seed(seed)
    model = build("cstwa", spec, {**SMALL, **arguments})
    if graphs:
        for requirement in model.requires():
            if isinstance(requirement, NeighbourGraph):
                model.provide(requirement, ring(requirement.side))
    return model


def equal(one, other, names=None):
    return all(torch.equal(one[name], other[name]) for name in (one if names is None else names))


# --- what it asks for ------------------------------------------------------------------------------------------------


def test_it_asks_for_a_graph_a_side_and_a_table_where_it_starts_from_one(spec):
    settings = {"neighbours": 5, "include_self": True, "symmetrise": True, "search": "exact"}
    model = built(spec, {"migrator": settings, "pretrained": "pretrained"}, graphs=False)
    pretraining, *graphs = model.requires()
    tower = {"hidden": [8], "dropout": [0.1]}
    assert pretraining == Pretraining("mlp", {"embedding_size": 4, "tower": tower}, {"stop_on": "ctr/logloss@exposure"})
    assert graphs == [NeighbourGraph(side, pretraining, **settings) for side in ("user", "item")]
    assert [one.include_self for one in built(spec, {}, graphs=False).requires()] == [False, False]
    assert built(spec, {"migrator": None}).requires() == ()


def test_what_it_pre_trains_is_a_system_that_can_be_built(spec):
    wanted = built(spec, {"pretrained": "pretrained"}, graphs=False).requires()[0]
    network = build(wanted.system, spec, wanted.arguments)
    assert next(network.tables()).shape == (spec.table_rows, 4)
    assert TrainingConfig(**wanted.training).stop_on == "ctr/logloss@exposure"
    assert ("ctr", "exposure") in network.observed


def test_a_log_that_names_no_ids_cannot_migrate_and_one_side_can(spec):
    nobody = dataclasses.replace(spec, schema=dataclasses.replace(SCHEMA, columns=Columns()))
    model = built(nobody, {}, graphs=False)
    with pytest.raises(ConfigError, match=r"a graph of users needs their ids.*migrator=off"):
        model.requires()
    items = dataclasses.replace(spec, schema=dataclasses.replace(SCHEMA, columns=Columns(item_id="item")))
    assert [one.side for one in built(items, {}, graphs=False).requires()] == ["item"]


def test_the_pretrained_table_is_where_the_ctr_starts(spec):
    model = built(spec, {"migrator": None, "pretrained": "pretrained"})
    table = np.random.default_rng(0).normal(size=(spec.table_rows, 4)).astype(np.float32)
    table.setflags(write=False)
    before = model.ctcvr_encoder.table.weight.detach().clone()
    (requirement,) = model.requires()
    model.provide(requirement, {"table": table})
    np.testing.assert_array_equal(model.ctr_encoder.table.weight.detach().numpy(), table)
    assert torch.equal(model.ctcvr_encoder.table.weight, before)


@pytest.mark.parametrize("reading", ["E", "B"])
def test_vectors_over_the_limit_leave_the_ids_with_a_note(spec, reading):
    bytes_asked = 4 * 4 * (USERS + 1 + 2 * (ITEMS + 1))
    fits = built(spec, {"migrator": {"reading": reading, "memory": bytes_asked / 2**30}})
    assert (fits.asked_bytes, fits.reading, fits.notes()) == (bytes_asked, reading, ())
    over = built(spec, {"migrator": {"reading": reading, "memory": (bytes_asked - 1) / 2**30}})
    assert over.reading == "D"
    assert not [name for name in over.state_dict() if "sides" in name]
    (note,) = over.notes()
    assert note.code == "graph.memory"
    assert f"reading {reading} would take 0.0 GiB" in note.what
    assert [item.side for item in over.requires()] == ["user", "item"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Migrator(gamma=1.1), "gamma lies in"),
        (lambda: Migrator(layers=0), "layers and neighbours from 1"),
        (lambda: Migrator(neighbours=0), "layers and neighbours from 1"),
        (lambda: Migrator(memory=-1.0), "memory from 0"),
        (lambda: Escaper(epsilon=-1.0), "epsilon is at least 0"),
        (lambda: Escaper(form="jump", epsilon=0.0), r"jump: above\), cap at least 1, got 0.0 and 4.0"),
        (lambda: Escaper(cap=0.9), "cap at least 1"),
        (lambda: Escaper(low=0.99, high=0.5), "low < high lie in"),
        (lambda: Escaper(window=1), "a window holds 2 or more"),
    ],
)
def test_numbers_out_of_range_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_calibrator_below_0_is_refused_and_0_leaves_it_out(spec, rows):
    for weight in (-0.1, math.inf, math.nan):
        with pytest.raises(ValueError, match="weight of the calibrator"):
            CSTWA(spec, calibrator=weight)
    batch = to_batch(rows[0].take(np.arange(20)))
    for weight in (0.0, None):
        model = CSTWA(spec, calibrator=weight)
        assert list(model.loss(model(batch), batch).terms) == ["ctr", "ctcvr"]


def test_what_it_says_of_itself(spec):
    model = CSTWA(spec)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert model.heads == {"ctr": "head", "cvr": "derived", "ctcvr": "head"}
    assert model.observed == (("ctr", "exposure"), ("ctcvr", "exposure"))
    assert {names[id(p)].split(".")[0] for p in model.shared_parameters()} == {"ctr_tower"}
    for apart in (None, ClickPerceptron(detach=True)):
        assert CSTWA(spec, perceptron=apart).shared_parameters() == ()
    assert {names[id(p)] for p in model.tables()} == {"ctr_encoder.table.weight", "ctcvr_encoder.table.weight"}
    assert len(list(CSTWA(spec, migrator=Migrator(reading="B")).tables())) == 4


# --- epochs ----------------------------------------------------------------------------------------------------------


def test_without_a_graph_it_scores_as_without_a_migrator_and_refuses_a_second_epoch(spec, rows):
    few = rows[0].take(np.arange(50))
    expected = score(built(spec, {"migrator": None}), few)
    for reading in ("E", "B", "D"):
        model = built(spec, {"migrator": {"reading": reading}}, graphs=False)
        found = score(model, few)
        assert all(np.array_equal(found.odds[head], expected.odds[head]) for head in expected.heads)
        model.on_epoch_start(0)
        with pytest.raises(
            TrainingError, match=r"train\.no_graph.*no graph of users and items in epoch 2.*migrator=off"
        ):
            model.on_epoch_start(1)
    built(spec, {"migrator": None}).on_epoch_start(1)


def test_shared_features_keep_their_row_and_the_entity_moves(spec, rows):
    """Reading E: after a migration a row reads (1 - gamma)(c + d) + gamma G (c + d), and the table is as it was."""
    model = built(spec, {"migrator": {"gamma": 0.3}}).eval()
    features = to_batch(rows[0].take(np.arange(60))).features
    table = model.ctcvr_encoder.table.weight.detach().clone()
    with torch.no_grad():
        before = model._vectors(features)
        model.on_epoch_start(0)
        assert torch.equal(model._vectors(features), before)
        model.on_epoch_start(1)
        after = model._vectors(features)
    assert torch.equal(model.ctcvr_encoder.table.weight, table)
    for index, (user, item, shop) in enumerate(features.rows.tolist()):
        for place, row, first, count in ((0, user, 3, USERS), (1, item, 3 + USERS, ITEMS)):
            number = row - first
            other = row if not number else first + (number - 1 if number > 1 else count - 1)
            expected = 0.7 * table[row] + 0.3 * table[other]
            torch.testing.assert_close(after[index, place], expected)
        number = item - 3 - USERS
        other = number if not number else (number - 1 if number > 1 else ITEMS - 1)
        expected = 0.7 * table[shop] + 0.3 * table[3 + USERS + ITEMS + other % SHOPS]
        torch.testing.assert_close(after[index, 2], expected)


CONFIG = TrainingConfig(batch_size=400, max_epochs=3, learning_rate=0.01, checks_per_epoch=1, patience=None)
TINY = {"embedding_size": 4, "tower": {"hidden": [8], "dropout": [0.1]}, "escaper": {"window": 1000, "high": 0.9}}


def mined(log, model):
    """Provide rings over the entities of `small_log`."""
    for requirement in model.requires():
        found = entities(log, requirement.side)
        linked = np.arange(1, len(found), dtype=np.int32)
        ends = np.r_[0, np.arange(len(found))].astype(np.int64)
        graph = {"indptr": ends, "indices": np.roll(linked, 1), "values": np.ones(len(linked), np.float32)}
        model.provide(requirement, {"entity": found.entity, "features": found.features, **graph})
    return model


def fresh(log, arguments, seed=3):
    seed_torch(seed, "model")
    return mined(log, build("cstwa", log.spec, {**TINY, **arguments}))


def test_gamma_0_is_no_migrator_bit_for_bit(small_log):
    without = fresh(small_log, {"migrator": None})
    zero = fresh(small_log, {"migrator": {"gamma": 0.0}})
    some = fresh(small_log, {"migrator": {"gamma": 0.3}})
    results = [train(model, small_log, CONFIG, seed=1) for model in (without, zero, some)]
    assert equal(zero.state_dict(), without.state_dict(), names=without.state_dict())
    assert results[1].history == results[0].history
    assert not equal(some.state_dict(), without.state_dict(), names=without.state_dict())
    assert not any(zero.sides[side].shift.any() for side in ("user", "item"))
    for side in ("user", "item"):
        moved = some.sides[side].shift.any(dim=1)
        assert not moved[:2].any()  # unknown ids, and the one without a neighbour
        assert moved[2:].any()


class _Cut(Exception):
    pass


@pytest.mark.parametrize("reading", ["E", "B", "D"])
def test_a_training_that_is_cut_off_goes_on_bit_for_bit(small_log, tmp_path, reading):
    config = dataclasses.replace(CONFIG, checkpoint_steps=2)
    arguments = {"migrator": {"reading": reading}}
    whole = fresh(small_log, arguments)
    expected = train(whole, small_log, config, seed=1)
    steps = expected.steps // 3

    def cut_at(step):
        asked = iter(range(1, 1000))

        def ask():
            if next(asked) == step:
                raise _Cut
            return False

        return ask

    # in the first epoch; in the second, after a migration; at the end of the second
    for attempt, step in enumerate((3, steps + 1, steps - 3)):
        model = fresh(small_log, arguments, seed=attempt or 3)
        stop = cut_at(step)
        with pytest.raises(_Cut):
            train(model, small_log, config, seed=1, folder=tmp_path, resume=attempt > 0, should_stop=stop)
    resumed = fresh(small_log, arguments, seed=99)
    result = train(resumed, small_log, config, seed=1, folder=tmp_path, resume=True)
    assert result.history == expected.history
    assert equal(resumed.state_dict(), whole.state_dict())
    assert resumed.window.seen > 1000
    if reading == "E":
        assert all(vectors.shift.any() for vectors in resumed.sides.values())


def test_the_note_of_the_limit_reaches_who_trains(small_log):
    model = fresh(small_log, {"migrator": {"memory": 0.0}})
    result = train(model, small_log, dataclasses.replace(CONFIG, max_epochs=2), seed=1)
    assert [note.code for note in result.notes] == ["graph.memory"]


# --- the window ------------------------------------------------------------------------------------------------------


def check_order(model, rows):
    """The first W predictions weigh nothing; then a batch is held against the W before it."""
    window, without = 300, built(model.spec, {**OFF}, seed=0)
    without.load_state_dict(model.state_dict(), strict=False)
    seen = np.zeros(0)
    for start in range(0, 1000, 100):
        batch = to_batch(rows.take(np.arange(start, start + 100)))
        outputs = model(batch)
        losses = model.loss(outputs, batch)
        plain = without.loss(outputs, batch).terms["ctcvr"].item()
        p = outputs.ctr.log_p.detach().exp().numpy()
        share = losses.diagnostics["reweighted/high"].item() + losses.diagnostics["reweighted/low"].item()
        if len(seen) < window:
            assert losses.terms["ctcvr"].item() == plain
            assert share == 0.0
            assert math.isinf(losses.diagnostics["threshold/high"].item())
        else:
            low, high = np.quantile(seen[-window:], (0.2, 0.8))
            found = [losses.diagnostics[f"threshold/{name}"].item() for name in ("low", "high")]
            assert found == pytest.approx([low, high], rel=1e-5)
            label = batch.conversion.numpy()
            assert share == pytest.approx(np.mean(((p > high) & (label == 0)) | ((p < low) & (label == 1))))
            assert losses.terms["ctcvr"].item() > plain
        seen = np.r_[seen, p]
    assert model.window.seen.item() == 1000


def windowed(spec):
    return built(spec, {**OFF, "escaper": {"window": 300, "low": 0.2, "high": 0.8}}).train()


def test_a_batch_is_weighted_by_the_predictions_before_it(spec, rows):
    check_order(windowed(spec), rows[0])


class Early(CSTWA):
    """A bug: the predictions of a batch join the window before it is weighted."""

    def loss(self, outputs, batch):
        self.window.update(outputs.ctr.log_p.exp())
        self.eval()
        found = super().loss(outputs, batch)
        self.train()
        return found


class Eager(CSTWA):
    """A bug: weights from what there is, before the window is full."""

    def loss(self, outputs, batch):
        found = super().loss(outputs, batch)
        if self.window.seen < self.window.size:
            self.window.bounds.copy_(torch.quantile(self.window.values[: self.window.seen], torch.tensor([0.2, 0.8])))
        return found


@pytest.mark.parametrize("twin", [Early, Eager])
def test_a_window_in_the_wrong_order_is_told(twin, spec, rows):
    model = windowed(spec)
    model.__class__ = twin
    with pytest.raises(AssertionError):
        check_order(model, rows[0])


def test_only_training_moves_the_window(spec, rows):
    model, batch = windowed(spec), to_batch(rows[0].take(np.arange(500)))
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    model.eval()
    model.loss(model(batch), batch)
    score(model, rows[0].take(np.arange(500)))
    assert equal(dict(model.named_buffers()), before)
    model.train()
    model(batch)
    assert equal(dict(model.named_buffers()), before)


# --- undone weights --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def learned():
    """Trained with weights on the upper and the lower fifth of the CTR."""
    given, *_ = drawn(30_000, 0)
    escaper = {"window": 2000, "low": 0.2, "high": 0.8}
    sizes = {"embedding_size": 8, "tower": {"hidden": [32, 16], "dropout": [0.0]}}
    model = built(spec_of(given), {**OFF, "escaper": escaper, **sizes})
    use_sparse_gradients(model, False)
    optimiser, rng, epochs = torch.optim.Adam(model.parameters()), np.random.default_rng(0), 6
    model.train()
    for epoch in range(epochs):
        optimiser.param_groups[0]["lr"] = 0.01 * (1 - epoch / epochs)
        order = rng.permutation(len(given))
        for start in range(0, len(order), 500):
            batch = to_batch(given.take(order[start : start + 500]))
            optimiser.zero_grad()
            sum(model.loss(model(batch), batch).terms.values()).backward()
            optimiser.step()
    return model.eval()


def test_predicted_over_true_by_decile_of_the_ctr(learned):
    """PCOC against the truth: raw, top deciles are taken for half of what they are, bottom ones for thrice.

    Undone they are right to what a smooth head misses at the thresholds, where the weights have a kink.
    """
    fresh_rows, _, truth = drawn(20_000, 5)
    scores = score(learned, fresh_rows)
    decile = np.argsort(np.argsort(scores.odds["ctr"])) * 10 // len(truth)

    def ratios(odds):
        predicted = probability(odds)
        return np.array([predicted[decile == d].sum() / truth[decile == d].sum() for d in range(10)])

    undone, raw = ratios(scores.odds["ctcvr"]), ratios(scores.raw["ctcvr"])
    np.testing.assert_allclose(undone, 1.0, atol=0.35)
    assert raw[8:].max() < 0.75
    assert raw[:2].min() > 1.6
    assert np.abs(np.log(undone)).max() < np.abs(np.log(raw)).max() / 2
    np.testing.assert_allclose(undone[[0, 1, 8, 9]], 1.0, atol=0.25)  # where the weights are


def test_raw_scores_go_through_calibration_and_constants(learned, rows):
    scores = score(learned, rows[0].take(np.arange(4000)))
    assert set(scores.raw) == {"cvr", "ctcvr"}
    assert not np.array_equal(scores.raw["ctcvr"], scores.odds["ctcvr"])
    calibration = Calibration.none("for the test", "ctr", "ctcvr")
    assert calibration.apply(scores).raw is scores.raw
    labels = rows[0].take(np.arange(4000)).labels
    served = Calibration.fit(scores, labels, CalibrationConfig()).apply(scores)
    assert not np.array_equal(served.odds["ctcvr"], scores.odds["ctcvr"])
    np.testing.assert_array_equal(served.raw["ctcvr"], scores.raw["ctcvr"])
    np.testing.assert_array_equal(served.raw["ctr"], scores.odds["ctr"])
    constant = apply_constants(scores, {"ctr": Constant(0, 10)})
    assert set(constant.raw) == {"ctcvr"}
    assert apply_constants(scores, {"ctcvr": Constant(0, 10)}).raw == {}
    kept = built(learned.spec, {**OFF, "escaper": {"undo_weights": False}})
    assert score(kept, rows[0].take(np.arange(10))).raw == {}


def test_towers_and_the_gate_have_the_papers_shapes(spec):
    model = CSTWA(spec, embedding_size=5)
    assert Tower().hidden == (128, 64, 32)
    assert tuple(model.information.weight.shape) == (15, 32)
    assert model.ctcvr_tower.steps[0].in_features == model.ctr_tower.steps[0].in_features == 15
    assert model.window.size == 10_000
