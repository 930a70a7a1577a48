"""The trunks mf and ncf against plain loops over users and items."""

import numpy as np
import pytest
import torch

from postclick.nn.factorisation import pair_places
from postclick.nn.features import Features
from postclick.nn.interaction import Interaction
from postclick.nn.tower import Tower
from postclick.nn.trunk import TaskNetwork
from postclick.schema import Columns, DenseFeature, Schema, SparseFeature

COLUMNS = Columns(user_id="user", item_id="item")
SCHEMA = Schema(
    (SparseFeature("city", "user"), SparseFeature("item", "item"), SparseFeature("user", "user"), DenseFeature("age")),
    COLUMNS,
)
ROWS, CITY, ITEM, USER = 11, slice(3, 5), (5, 6, 7), (8, 9, 10)
RATES = {"ctr": 0.2, "cvr": 0.4}


def features(rows=20, seed=0):
    random = np.random.default_rng(seed)
    places = [random.integers(3, 5, rows), random.choice(ITEM, rows), random.choice(USER, rows)]
    dense = torch.from_numpy(random.normal(size=(rows, 1)).astype(np.float32))
    return Features(torch.from_numpy(np.stack(places, 1).astype(np.int32)), dense, torch.zeros(rows, 0))


def network(trunk="mf", **options):
    torch.manual_seed(0)
    return TaskNetwork(SCHEMA, ROWS, RATES, trunk=trunk, embedding_size=4, **options)


def spread(made):
    """Give every parameter a value of its own."""
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.normal_(generator=torch.Generator().manual_seed(parameter.numel()))
    return made.eval()


@pytest.mark.parametrize("biases", [True, False])
def test_mf_is_a_dot_product_through_a_diagonal_a_task(biases):
    made, given = spread(network(biases=biases)), features()
    table = made.encoder.table.weight
    found = made(given).logits
    for place, task in enumerate(RATES):
        head = made.heads[task]
        for row, (_, item, user) in enumerate(given.rows.tolist()):
            expected = sum(head.diagonal.weight[e] * table[user, e] * table[item, e] for e in range(4))
            if biases:
                added = made.biases.table.weight
                expected = expected + added[user, place] + added[item, place] + head.bias
            torch.testing.assert_close(found[task][row], expected)
    assert (made.biases is None) == (head.bias is None) == (not biases)


def test_mf_starts_at_the_base_rate_and_without_biases_at_one_half():
    for biases, rates in ((True, RATES), (False, dict.fromkeys(RATES, 0.5))):
        logits = network(biases=biases)(features()).logits
        for task, rate in rates.items():
            torch.testing.assert_close(logits[task].sigmoid(), torch.full((20,), rate), atol=0.01, rtol=0)


def test_a_task_with_tables_of_its_own_has_no_diagonal():
    alone = TaskNetwork(SCHEMA, ROWS, {"cvr": 0.4}, trunk="mf", biases=False)
    assert [name for name, _ in alone.named_parameters()] == ["encoder.table.weight"]
    made, given = spread(network(shared_embedding=False, biases=False)), features()
    assert {name.rpartition("table.")[0] for name, _ in made.named_parameters()} == {"encoder.", "own_encoders.0."}
    for task, encoder in zip(RATES, (made.encoder, made.own_encoders[0]), strict=True):
        table = encoder.table.weight
        expected = (table[given.rows[:, 2]] * table[given.rows[:, 1]]).sum(dim=1)
        torch.testing.assert_close(made(given).logits[task], expected)


def test_ncf_is_a_tower_over_user_item_and_product():
    made, given = spread(network("ncf", tower=Tower((5,), (0.0,)))), features()
    user, item = (made.encoder.table.weight[given.rows[:, place]] for place in (2, 1))
    v = torch.cat([user, item, user * item], dim=1)
    for task in RATES:
        (linear,), head = [step for step in made.towers[task].steps if hasattr(step, "weight")], made.heads[task].linear
        expected = (v @ linear.weight.T + linear.bias).relu() @ head.weight[0] + head.bias
        torch.testing.assert_close(made(given).logits[task], expected)


@pytest.mark.parametrize("trunk", ["mf", "ncf"])
def test_only_the_user_and_the_item_are_read(trunk):
    made, given = spread(network(trunk)), features()
    other = Features(given.rows.clone(), given.dense + 1, given.embeddings)
    other.rows[:, 0] = 3 + (given.rows[:, 0] == 3).to(torch.int32)  # the other city
    assert not torch.equal(other.rows, given.rows)
    for task in RATES:
        assert torch.equal(made(given).logits[task], made(other).logits[task])
    made(given).logits["cvr"].sum().backward()
    touched = made.encoder.table.weight.grad.to_dense().abs().sum(dim=1) > 0
    assert not touched[CITY].any()
    assert touched[list(ITEM + USER)].all()


def test_where_user_and_item_stand():
    assert pair_places(SCHEMA) == (2, 1)
    with pytest.raises(ValueError, match=r"but item_id is none: name the columns user_id and item_id"):
        pair_places(Schema((SparseFeature("user"),), Columns(user_id="user")))
    hidden = Schema((SparseFeature("user"), SparseFeature("x")), COLUMNS)
    with pytest.raises(ValueError, match=r"but item_id = 'item' is none: .* a sparse feature"):
        TaskNetwork(hidden, 9, RATES, trunk="ncf")


@pytest.mark.parametrize(
    ("trunk", "options", "message"),
    [
        ("ncf", {"biases": False}, "biases of users and items are those of trunk 'mf', not 'ncf'"),
        ("shared", {"biases": False}, "those of trunk 'mf', not 'shared'"),
        ("mf", {"tower": Tower((4,), (0.0,))}, "trunk 'mf' has no tower"),
        ("mf", {"interaction": Interaction("cross")}, "reads a user and an item alone, so no interaction"),
        ("ncf", {"interaction": Interaction("fm")}, "reads a user and an item alone, so no interaction"),
    ],
)
def test_what_a_trunk_does_not_read_is_refused(trunk, options, message):
    with pytest.raises(ValueError, match=message):
        network(trunk, **options)
