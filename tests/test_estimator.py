"""The estimator: scikit-learn's contract, every kind of data, saved and loaded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.base import clone
from sklearn.metrics import roc_auc_score

import postclick
from postclick import ConversionEstimator
from postclick.errors import ConfigError, InputMissingError, NotFittedError, PostclickError, StorageError, TrustError
from postclick.training.config import TrainingConfig

TRAINING = {"batch_size": 256, "max_epochs": 2, "learning_rate": 0.01, "checks_per_epoch": 1}
ARGUMENTS = {"embedding_size": 4, "tower": {"hidden": [16], "dropout": [0.0]}}


def estimator(schema, **changes):
    return ConversionEstimator("esmm", schema=schema, arguments=ARGUMENTS, training=TRAINING, device="cpu", **changes)


@pytest.fixture(scope="module")
def frame(raw_table):
    return pl.from_arrow(raw_table)


@pytest.fixture(scope="module")
def fitted(frame, small_schema):
    return estimator(small_schema).fit(frame[:4500])


@pytest.fixture(scope="module")
def fresh(frame):
    """Rows that were not fitted on."""
    return frame[4500:]


def test_fit_evaluate_predict_agree_with_scikit_learn(fitted, fresh):
    result = fitted.evaluate(fresh)
    scores = fitted.predict(fresh)
    click, conversion = fresh["click"].to_numpy(), fresh["conversion"].to_numpy()
    clicked = click == 1
    expected = {
        "ctr/auc@exposure": roc_auc_score(click, scores["ctr"]),
        "cvr/auc@click": roc_auc_score(conversion[clicked], scores["cvr"].to_numpy()[clicked]),
        "ctcvr/auc@exposure": roc_auc_score(conversion, scores["ctcvr"]),
    }
    for name, value in expected.items():
        assert result[name].value == pytest.approx(value, abs=1e-12)
    assert result["cvr/auc@click"].n == int(clicked.sum())
    assert result["ctr/auc@exposure"].low > 0.55


def test_save_and_load_predict_equally(fitted, fresh, tmp_path):
    path = fitted.save(tmp_path / "model")
    loaded = postclick.load(path)
    assert loaded.bundle_.hash == fitted.bundle_.hash
    assert loaded.predict(fresh).equals(fitted.predict(fresh))
    assert loaded.evaluate(fresh).to_dict()["metrics"] == fitted.evaluate(fresh).to_dict()["metrics"]
    assert loaded.schema_ == fitted.schema_
    assert loaded.system == "esmm"
    with pytest.raises(StorageError):
        fitted.save(path)
    again = loaded.save(tmp_path / "again")
    assert postclick.load(again).bundle_.hash == fitted.bundle_.hash
    assert not any(item.suffix in {".pkl", ".pt"} for item in Path(path).rglob("*"))


def test_each_kind_of_data_gives_its_own_kind_back(fitted, fresh, tmp_path):
    expected = fitted.predict(fresh)
    assert isinstance(expected, pl.DataFrame)
    assert expected.columns == ["ctr", "cvr", "ctcvr"]
    assert fitted.predict(fresh.lazy()).equals(expected)
    pandas = fresh.to_pandas().set_index(np.arange(len(fresh)) * 3)
    answer = fitted.predict(pandas)
    assert isinstance(answer, pd.DataFrame)
    assert answer.index.equals(pandas.index)
    assert answer["cvr"].to_numpy() == pytest.approx(expected["cvr"].to_numpy())
    arrow = fitted.predict(fresh.to_arrow())
    assert isinstance(arrow, pa.Table)
    assert pl.from_arrow(arrow).equals(expected)
    arrays = fitted.predict({name: fresh[name].to_numpy() for name in fresh.columns})
    assert isinstance(arrays, dict)
    assert arrays["ctr"] == pytest.approx(expected["ctr"].to_numpy())
    fresh[:700].write_parquet(tmp_path / "0.parquet")
    fresh[700:].write_parquet(tmp_path / "1.parquet")
    assert fitted.predict(str(tmp_path / "*.parquet"))["cvr"].to_numpy() == pytest.approx(expected["cvr"].to_numpy())


def test_labels_are_not_needed_to_predict(fitted, fresh):
    bare = fresh.drop("click", "conversion", "exposure_id")
    assert fitted.predict(bare).equals(fitted.predict(fresh))


@pytest.mark.parametrize("kind", ["pandas", "dict", "file"])
def test_fit_gives_equal_models_from_each_kind(kind, fitted, raw_table, frame, small_schema, tmp_path):
    rows = raw_table.slice(0, 4500)
    if kind == "file":
        pq.write_table(rows, tmp_path / "rows.parquet")
    given = tmp_path / "rows.parquet"
    if kind == "pandas":
        given = frame[:4500].to_pandas()
    elif kind == "dict":
        given = {name: rows.column(name).to_numpy(zero_copy_only=False) for name in rows.column_names}
    other = estimator(small_schema).fit(given)
    assert other.predict(frame[4500:])["cvr"].to_numpy() == pytest.approx(
        fitted.predict(frame[4500:])["cvr"].to_numpy(), abs=1e-9
    )


def test_a_log_brings_its_own_splits(small_log, small_schema):
    model = estimator(None).fit(small_log)
    assert model.schema_ == small_schema
    assert model.evaluation_["ctr/auc@exposure"].n == len(small_log.split("test"))
    assert model.evaluate(small_log.path)["ctr/auc@exposure"] == model.evaluation_["ctr/auc@exposure"]
    assert len(model.predict(small_log)) == len(small_log.split("test"))
    with pytest.raises(ConfigError, match="its own valid split"):
        estimator(None).fit(small_log, small_log)


def test_a_given_valid_split_is_used(frame, small_schema):
    model = estimator(small_schema).fit(frame[:4000], frame[4000:5000])
    assert sum(entry.rows for entry in [model.bundle_.calibration.heads["ctr"]]) == pytest.approx(500, abs=60)
    assert model.evaluation_ is None


def test_with_a_time_the_last_tenth_is_held_out(raw_table):
    from dataclasses import replace

    from postclick.schema import Columns, Schema, SparseFeature

    timed = raw_table.append_column("at", pa.array(np.arange(len(raw_table))))
    columns = Columns(exposure_id="exposure_id", user_id="user", time="at")
    schema = Schema((SparseFeature("user", min_count=1), SparseFeature("item", min_count=1)), columns)
    model = estimator(schema).fit(timed)
    assert model.evaluation_["ctr/auc@exposure"].n == len(raw_table) // 10
    plain = estimator(replace(schema, columns=replace(columns, time=None))).fit(timed)
    assert plain.evaluation_ is None


def test_without_a_schema_one_is_inferred(raw_table):
    model = ConversionEstimator(arguments=ARGUMENTS, training=TRAINING, device="cpu").fit(raw_table)
    assert {feature.name for feature in model.schema_.features} >= {"user", "item", "shop", "price"}


def test_the_constructor_only_stores():
    odd = {"no_such": object()}
    model = ConversionEstimator("never", schema=3, arguments=odd, training="x", seed=-1)
    assert model.arguments is odd
    assert [name for name in vars(model) if name.endswith("_")] == []


def test_clone_is_unfitted_and_equal(fitted):
    copy = clone(fitted)
    assert copy.get_params(deep=False) == fitted.get_params(deep=False)
    assert not hasattr(copy, "bundle_")
    with pytest.raises(NotFittedError):
        copy.predict(None)


def test_nested_parameters(small_schema):
    model = estimator(small_schema)
    deep = model.get_params()
    assert deep["arguments__embedding_size"] == 4
    assert deep["training__batch_size"] == 256
    assert model.set_params(arguments__embedding_size=8, training__batch_size=512, seed=4) is model
    assert (model.arguments["embedding_size"], model.training["batch_size"], model.seed) == (8, 512, 4)
    assert ARGUMENTS["embedding_size"] == 4
    model.set_params(training=TrainingConfig(), training__max_epochs=3, arguments__tower__hidden=[4])
    assert model.training == TrainingConfig(max_epochs=3)
    assert model.arguments["tower"] == {"hidden": [4], "dropout": [0.0]}
    assert "training__max_epochs" in model.get_params()
    assert clone(model).get_params() == model.get_params()


def test_unknown_parameters_are_named_together():
    with pytest.raises(ConfigError) as caught:
        ConversionEstimator().set_params(sead=1, training__batch_size=3, seed__x=1, trainig__batch_size=2)
    text = str(caught.value)
    assert "did you mean 'seed'" in text
    assert "'seed__x'" in text
    assert "'trainig__batch_size'" in text


def test_mistakes_in_settings_come_together_at_fit(raw_table, small_schema):
    model = ConversionEstimator("esmmm", schema=small_schema, training={"batchsize": 3}, device="tpu")
    with pytest.raises(ConfigError) as caught:
        model.fit(raw_table)
    for part in ("'esmm'", "'batch_size'", "tpu"):
        assert part in str(caught.value)
    assert not hasattr(model, "bundle_")


@pytest.mark.parametrize("call", ["predict", "evaluate", "save"])
def test_before_fit(call, tmp_path):
    with pytest.raises(NotFittedError, match="call fit first"):
        getattr(ConversionEstimator(), call)(tmp_path / "x")


def test_what_is_no_data(fitted, tmp_path):
    with pytest.raises(InputMissingError):
        fitted.predict(tmp_path / "absent.parquet")
    with pytest.raises(PostclickError):
        fitted.predict(17)
    (tmp_path / "model.pkl").write_bytes(b"\x80\x04N.")
    with pytest.raises(TrustError):
        postclick.load(tmp_path / "model.pkl")


def test_repr_shows_what_was_changed():
    assert repr(ConversionEstimator()) == "ConversionEstimator()"
    assert repr(ConversionEstimator("mlp", seed=3)) == "ConversionEstimator(system='mlp', seed=3)"


def test_the_temporary_folder_goes_with_the_estimator(frame, small_schema):
    model = estimator(small_schema).fit(frame[:2000])
    folder = model.bundle_.path
    assert folder.is_dir()
    assert sorted(item.name for item in folder.parent.parent.iterdir()) == ["run"]
    del model
    assert not folder.exists()


def test_fitting_twice_starts_anew(frame, small_schema):
    model = estimator(small_schema)
    first = model.fit(frame[:2000]).bundle_.hash
    assert model.fit(frame[2000:4000]).bundle_.hash != first
    assert model.fit(frame[:2000]).bundle_.hash == first
