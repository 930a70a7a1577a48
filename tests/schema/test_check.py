from __future__ import annotations

import pyarrow as pa
import pytest

from postclick.schema import Columns, DenseFeature, EmbeddingFeature, Schema, SequenceFeature, SparseFeature
from postclick.schema.check import check_columns

SCHEMA = Schema(
    (
        SparseFeature("user"),
        DenseFeature("price"),
        SequenceFeature("history", weights="history_weight"),
        SequenceFeature("words", separator="|"),
        EmbeddingFeature("vector", 3),
    ),
    Columns(user_id="user", time="ts"),
)
GOOD = {
    "click": pa.int8(),
    "conversion": pa.bool_(),
    "user": pa.dictionary(pa.int32(), pa.string()),
    "ts": pa.timestamp("ms"),
    "price": pa.float32(),
    "history": pa.list_(pa.int64()),
    "history_weight": pa.list_(pa.float32()),
    "words": pa.large_string(),
    "vector": pa.list_(pa.float32(), 3),
    "extra": pa.binary(),
}


def check(types, **keywords):
    return check_columns(SCHEMA, pa.schema(list(types.items()) if isinstance(types, dict) else types), "x", **keywords)


def test_good_columns():
    assert check(GOOD) == []


def test_every_mistake_in_one_pass():
    types = {name: kind for name, kind in GOOD.items() if name not in ("user", "click")}
    types |= {"usr": pa.int64(), "price": pa.string(), "history": pa.string(), "vector": pa.list_(pa.float32(), 4)}
    found = check([*types.items(), ("ts", pa.int64())])
    assert {finding.code for finding in found} == {"data.schema_mismatch"}
    texts = [str(finding) for finding in found]
    assert len(texts) == 6
    assert any("column 'click' (the click) is missing" in text for text in texts)
    assert any(
        "column 'user' (a sparse feature) is missing" in text and "did you mean 'usr'?" in text for text in texts
    )
    assert any("column 'ts' (the time) occurs 2 times" in text for text in texts)
    assert any("column 'price' is text, declared as a dense feature" in text for text in texts)
    assert any("column 'history' is text" in text and "text needs a separator" in text for text in texts)
    assert any("column 'vector' is lists of float" in text and "lists of 3 numbers" in text for text in texts)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("user", pa.list_(pa.int64())),
        ("user", pa.timestamp("s")),
        ("price", pa.list_(pa.float64())),
        ("ts", pa.bool_()),
        ("click", pa.list_(pa.int8())),
        ("history_weight", pa.list_(pa.string())),
        ("history", pa.list_(pa.float64())),
    ],
)
def test_wrong_types(name, kind):
    assert [finding.where for finding in check(GOOD | {name: kind})] == [f"x:{name}"]


def test_a_column_without_values_fits_everything():
    assert check(dict.fromkeys(GOOD, pa.null())) == []


def test_scoring_needs_features_only():
    without = {name: kind for name, kind in GOOD.items() if name not in ("click", "conversion", "ts", "price")}
    assert [finding.what for finding in check(without, labels=False)] == ["column 'price' (a dense feature) is missing"]
    assert len(check(without)) == 4
