"""Target attention in a schema: which feature it attends to, what is refused, and the way to TOML and back."""

import tomllib

import pytest

from postclick.errors import SchemaError
from postclick.schema import Columns, DenseFeature, Schema, SequenceFeature, SparseFeature

USER, ITEM, AGE = SparseFeature("user", side="user"), SparseFeature("item", side="item"), DenseFeature("age")


def attending(target=None, name="history"):
    return SequenceFeature(name, pooling="target-attention", target=target)


def test_targets_are_places_among_the_sparse_features():
    features = (AGE, attending(), USER, SequenceFeature("tags"), attending("user", "friends"), ITEM)
    assert Schema(features, Columns(item_id="item")).targets == (1, None, 0)
    assert Schema((USER, ITEM)).targets == ()


def test_a_named_target_goes_before_the_item_id():
    assert Schema((USER, ITEM, attending("user")), Columns(item_id="item")).targets == (0,)


@pytest.mark.parametrize("target", [None, "item"])
def test_target_attention_survives_toml(target):
    schema = Schema((USER, ITEM, attending(target)), Columns(item_id="item"))
    again = Schema.from_dict(tomllib.loads(schema.to_toml()))
    assert again == schema
    assert again.targets == (1,)
    assert ("target" in schema.to_toml().replace("target-attention", "")) == (target is not None)


@pytest.mark.parametrize(
    ("features", "columns", "text"),
    [
        (
            (USER, ITEM, attending()),
            Columns(),
            "no target is named, and there is no item_id | schema.feature.history.target | "
            "target = the name of the candidate's sparse feature (one of user, item)",
        ),
        ((USER, attending()), Columns(item_id="item"), "item_id 'item' is no sparse feature"),
        ((USER, ITEM, attending("itm")), Columns(), "'itm' is no sparse feature | schema.feature.history.target | did"),
        ((USER, AGE, attending("age")), Columns(), "'age' is no sparse feature"),
        ((AGE, attending("price")), Columns(), "sparse features: none"),
        (
            (ITEM, SequenceFeature("tags", target="item")),
            Columns(),
            "pooling 'mean' has no target | schema.feature.tags.target | pooling = 'target-attention', or drop",
        ),
    ],
)
def test_a_target_that_is_none_is_refused_with_the_way_out(features, columns, text):
    with pytest.raises(SchemaError) as caught:
        Schema(features, columns)
    assert caught.value.findings[0].code == "schema.target"
    assert text in str(caught.value)


def test_every_wrong_target_is_named_at_once():
    with pytest.raises(SchemaError) as caught:
        Schema((USER, attending(), attending("itm", "friends")))
    assert len(caught.value.findings) == 2
