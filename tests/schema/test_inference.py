from __future__ import annotations

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from postclick.errors import DataError, InputMissingError
from postclick.schema import DenseFeature, EmbeddingFeature, Schema, SequenceFeature, SparseFeature
from postclick.schema.inference import _NAMES, explain, infer, propose

ROWS = 50


def frame(**more):
    rng = np.random.default_rng(0)
    click = (np.arange(ROWS) % 3 == 0).astype(int)
    base = {"click": click, "conversion": click * (np.arange(ROWS) % 2), "city": rng.choice(["a", "b"], ROWS)}
    return base | more


def test_roles_kinds_and_sides():
    data = pa.table(
        frame(
            add_to_cart=np.tile([0, 1], 25),
            impression_id=np.arange(ROWS),
            uid=np.arange(ROWS) // 5,
            product_id=np.arange(ROWS) % 7,
            event_time=np.arange(ROWS) + 1_700_000_000_000,
            user_age=np.arange(ROWS) % 5,
            item_price=np.linspace(0, 1, ROWS),
            item_price_cents=np.arange(ROWS),
            session_id=np.arange(ROWS) // 2,
            campaign_id=np.arange(ROWS) % 3,
            weight=np.ones(ROWS),
            is_random=np.zeros(ROWS, int),
            revenue=np.ones(ROWS),
        )
    )
    data = data.append_column("user_history", pa.array([[1, 2], []] * 25))
    data = data.append_column("item_vector", pa.array([[0.5, 1.0]] * ROWS))
    data = data.append_column("uneven", pa.array([[0.5], [0.5, 1.0]] * 25))
    schema = infer(data)
    assert schema.columns.named() == {
        "click": "click",
        "conversion": "conversion",
        "action": "add_to_cart",
        "exposure_id": "impression_id",
        "user_id": "uid",
        "item_id": "product_id",
        "time": "event_time",
        "sample_weight": "weight",
        "randomised": "is_random",
        "value": "revenue",
        "campaign": "campaign_id",
    }
    assert schema.columns.time_unit == "ms"
    assert schema.features == (
        SparseFeature("city"),
        SparseFeature("uid", "user"),
        SparseFeature("product_id", "item"),
        SparseFeature("user_age", "user"),
        DenseFeature("item_price", "item"),
        DenseFeature("item_price_cents", "item"),
        SparseFeature("campaign_id"),
        SequenceFeature("user_history", "user"),
        EmbeddingFeature("item_vector", 2, "item"),
    )


@pytest.mark.parametrize("role", ["click", "conversion", "action", "exposure_id", "user_id", "item_id", "propensity"])
def test_every_usual_name_is_recognised(role):
    for name in _NAMES[role]:
        values = np.arange(ROWS) if role.endswith("_id") else np.tile([0, 1], ROWS // 2)
        data = {key: value for key, value in frame().items() if key != role} | {name.title(): values}
        assert getattr(propose(pa.table(data)).columns, role) == name.title()


@given(st.sampled_from([(1.7e9, "s"), (1.7e12, "ms"), (1.7e15, "us"), (1.7e18, "ns")]), st.floats(0.1, 5))
def test_time_unit_by_magnitude(case, factor):
    moment, unit = case
    schema = propose(pa.table(frame(timestamp=np.full(ROWS, int(moment * factor)))))
    assert (schema.columns.time, schema.columns.time_unit) == ("timestamp", unit)


def test_a_label_by_a_loose_name_must_hold_labels():
    counts = np.arange(ROWS)
    with pytest.raises(DataError, match=r"no conversion column recognised .*is it 'order'"):
        infer({"click": frame()["click"], "order": counts, "x": counts})
    # by its own name it is believed: a 2 in it is a fault of that row, which prepare counts
    assert infer({**frame(), "click": counts}).columns.click == "click"


def test_both_labels_missing_are_one_message():
    with pytest.raises(DataError) as error:
        infer({"clik": [0, 1], "convers": [0, 0], "x": [1, 2]})
    assert [finding.code for finding in error.value.findings] == ["data.schema_mismatch"] * 2
    assert "is it 'clik'?" in str(error.value)
    assert "is it 'convers'?" in str(error.value)


def test_outcomes_under_a_second_name_do_not_become_features():
    names = {
        feature.name for feature in infer(frame(is_click=frame()["click"], purchase=frame()["conversion"])).features
    }
    assert names == {"city"}


def test_a_request_shared_by_rows_is_no_exposure_id():
    schema = infer(frame(request_id=np.arange(ROWS) // 2))
    assert schema.columns.exposure_id is None
    assert [feature.name for feature in schema.features] == ["city"]


def test_row_numbers_are_left_out_and_high_ids_stay():
    rows = 2_000
    rng = np.random.default_rng(1)
    click = np.arange(rows) % 2
    data = {"click": click, "conversion": click, "index": np.arange(rows), "shop": rng.integers(0, 10**9, rows)}
    assert infer(data).features == (SparseFeature("shop"),)


def test_frames_and_files_agree(tmp_path):
    data = pl.DataFrame(frame(user_id=np.arange(ROWS), price=np.linspace(0.25, 1.25, ROWS)))
    data.write_csv(tmp_path / "x.csv")
    data.write_parquet(tmp_path / "x.parquet")
    schema = Schema.infer(data)
    assert schema == Schema.infer(tmp_path / "x.csv") == Schema.infer(str(tmp_path / "x.parquet"))
    assert Schema.infer(data.to_pandas()) == schema


def test_no_row_is_no_schema():
    with pytest.raises(InputMissingError, match=r"data\.empty"):
        infer(pa.table({"click": pa.array([], pa.int64())}))


def test_explain_says_every_column_and_why():
    table = pa.table(frame(user_id=np.arange(ROWS), session_id=np.arange(ROWS), price=np.linspace(0, 1, ROWS)))
    lines = explain(propose(table), table).splitlines()
    assert lines[:6] == [
        "click       click  (the click by its name)",
        "conversion  conversion  (the conversion by its name)",
        "city        sparse feature of the context  (2 different values)",
        "user_id     user id and sparse feature of the user  (the user id by its name, and a feature)",
        "session_id  not used  (left out: names a session or page, not the user, the item or the context)",
        "price       dense feature of the context  (numbers)",
    ]
    assert lines[6] == "3 features: 2 sparse, 1 dense, 0 sequence, 0 embedding"


def test_ids_with_gaps_are_ids_though_they_come_as_floating_point():
    click = [0, 1, 0, 1]
    table = {"click": click, "conversion": click, "user_id": [1.0, 2.0, float("nan"), 7.0], "item_id": [0.5, 1, 2, 3]}
    schema = Schema.infer(table | {"user_id": pa.array([1.0, 2.0, None, 7.0])})
    assert schema.columns.user_id == "user_id"
    assert schema.columns.item_id is None
