"""Calibration of a run: fields through the bundle, down-sampled logs learned in two ways, mistakes before anything."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import tomli_w

import postclick
from postclick import files
from postclick.bundle import Bundle, Scorer
from postclick.calibration import CalibrationConfig
from postclick.errors import ConfigError, TrustError
from postclick.run import RunConfig, evaluate_bundle, run
from postclick.schema import KeepRates, Schema
from postclick.training.config import TrainingConfig

KEEP = KeepRates(0.2, 0.5)


@pytest.fixture(scope="module")
def aware(small_log, small_config, tmp_path_factory):
    """A run whose ctr is calibrated with the shop and the item."""
    calibration = CalibrationConfig(ctr="field-aware", cvr="beta", fields=("shop", "item"))
    config = replace(small_config, calibration=calibration, training=replace(small_config.training, max_epochs=1))
    return run(small_log, config, tmp_path_factory.mktemp("aware") / "run")


def test_fields_go_through_the_bundle_to_the_scorer(aware, small_log):
    bundle = Bundle.load(aware.path)
    assert bundle.calibration.fields == ("shop", "item")
    assert bundle.calibration.heads["cvr"].method == "beta"
    rows = small_log.split("test").read().without_labels()
    scores = Scorer(bundle, batch_size=100).score(rows)
    names = [feature.name for feature in bundle.schema.sparse]
    columns = {name: rows.rows[:, names.index(name)] for name in ("shop", "item")}
    again = bundle.calibration.heads["ctr"](scores.raw["ctr"], columns)
    assert scores.odds["ctr"] == pytest.approx(again, abs=1e-9)
    # the shifts really read the rows: swapped items get other numbers
    swapped = bundle.calibration.heads["ctr"](scores.raw["ctr"], columns | {"item": columns["item"][::-1].copy()})
    assert np.abs(swapped - again).max() > 0.01
    assert (scores.odds["ctcvr"] <= scores.odds["ctr"]).all()


def test_raw_rows_and_encoded_rows_are_served_alike(aware, small_log, raw_table):
    scorer = Scorer(Bundle.load(aware.path))
    test = small_log.split("test").read()
    scored = scorer.score_table(raw_table.slice(len(raw_table) - len(test))).scores
    encoded = scorer.score(test.without_labels())
    for head in encoded.heads:
        assert scored.probability(head) == pytest.approx(encoded.probability(head), abs=1e-6)


def test_the_reference_rows_hold_what_is_served(aware):
    import pyarrow as pa

    from postclick.data.log import from_arrow

    bundle = Bundle.load(aware.path)
    batch = pa.ipc.open_file(aware.path / "bundle" / "reference.arrow").get_batch(0)
    served = Scorer(bundle).score(from_arrow(batch, bundle.schema))
    for head in served.heads:
        assert served.odds[head] == pytest.approx(np.asarray(batch.column(f"odds:{head}")), abs=1e-6)


def test_the_configuration_comes_back(aware):
    config = RunConfig.from_toml(aware.path / "config.toml")
    assert config.calibration.fields == ("shop", "item")
    assert config.calibration.ctr == "field-aware"


def test_fields_that_the_schema_lacks_are_refused_in_a_bundle(aware, tmp_path):
    import shutil

    shutil.copytree(aware.path / "bundle", tmp_path / "bundle")
    form = files.read_json(tmp_path / "bundle" / "calibration.json")
    form["heads"]["ctr"]["fields"][0]["field"] = "shopp"
    (tmp_path / "bundle" / "calibration.json").unlink()
    files.write_json(tmp_path / "bundle" / "calibration.json", form)
    files.write_manifest(tmp_path / "bundle", "bundle")
    with pytest.raises(TrustError, match="shopp"):
        Bundle.load(tmp_path / "bundle")


def test_mistakes_stop_before_anything_is_written(small_log, small_config, tmp_path):
    calibration = CalibrationConfig(cvr="field-aware", fields=("shp", "price"), weights="ips", propensity="logged")
    with pytest.raises(ConfigError) as caught:
        run(small_log, replace(small_config, calibration=calibration), tmp_path / "run")
    text = str(caught.value)
    assert "did you mean 'shop'" in text
    assert "'price' is no sparse feature" in text
    assert "no logged propensity" in text
    assert not (tmp_path / "run").exists()


# --- down-sampled logs ---


def kept(frame: pl.DataFrame, seed: int) -> pl.DataFrame:
    """Drop rows at the keep rates."""
    rng = np.random.default_rng(seed)
    click, conversion = frame["click"].to_numpy(), frame["conversion"].to_numpy()
    rate = np.where(conversion == 1, 1.0, np.where(click == 1, KEEP.clicked, KEEP.unclicked))
    return frame.filter(pl.Series(rng.random(len(frame)) < rate))


@pytest.fixture(scope="module")
def sampled(tmp_path_factory):
    """A world, a log of its kept rows that knows the keep rates, and one of the same rows that does not."""
    place = tmp_path_factory.mktemp("sampled")
    postclick.simulate(place / "world", world="no-bias", exposures=60_000, knobs={"ctr": 0.2, "cvr": 0.25}, seed=3)
    frame = pl.read_parquet(place / "world" / "exposures" / "*.parquet")
    schema = Schema.from_toml(place / "world" / "schema.toml")
    rows = kept(frame, 0)
    known = postclick.prepare(rows, place / "known", schema=replace(schema, keep_rates=KEEP), split="random")
    unknown = postclick.prepare(rows, place / "unknown", schema=schema, split="random")
    return place, known, unknown


def configured(sampling: str = "weights", **changes) -> RunConfig:
    arguments = {"embedding_size": 4, "tower": {"hidden": [16], "dropout": [0.0]}}
    training = TrainingConfig(
        batch_size=1000, max_epochs=3, learning_rate=0.01, checks_per_epoch=1, threads=1, sampling=sampling
    )
    return RunConfig("esmm", arguments, training=training, device="cpu", **changes)


def on_the_whole_world(place: Path, bundle: Path) -> dict[str, float]:
    """Return PCOC against the truth of every exposure, the dropped ones included."""
    out = place / f"whole-{bundle.name}"
    whole = postclick.prepare(place / "world", out, vocabulary=bundle, split="random")
    found = evaluate_bundle(bundle, whole, metrics=["pcoc"])
    return {head: found[f"{head}/pcoc@world"].value for head in ("ctr", "cvr", "ctcvr")}


@pytest.mark.parametrize("sampling", ["weights", "correct"])
def test_scores_of_a_down_sampled_log_are_those_of_the_whole(sampled, sampling):
    place, known, _ = sampled
    made = run(known, configured(sampling), place / sampling)
    assert (Bundle.load(made.path).calibration.sampling is not None) == (sampling == "correct")
    for head, value in on_the_whole_world(place, made.path).items():
        assert value == pytest.approx(1.0, abs=0.1), (head, value)
    # its own test split, weighed, agrees
    assert made.evaluation["ctr/pcoc@exposure"].value == pytest.approx(1.0, abs=0.1)
    assert made.evaluation["ctcvr/pcoc@exposure"].value == pytest.approx(1.0, abs=0.15)


def test_without_the_keep_rates_they_are_far_off(sampled):
    """The planted twin."""
    place, _, unknown = sampled
    made = run(unknown, configured(), place / "twin")
    found = on_the_whole_world(place, made.path)
    assert min(found["ctr"], found["ctcvr"]) > 2.0
    assert found["cvr"] > 1.2


def test_totals_are_those_of_the_log_before_the_draw(sampled):
    _, known, unknown = sampled
    assert known.spec.ctr == pytest.approx(0.2, abs=0.02)
    assert known.spec.cvr == pytest.approx(0.25, abs=0.02)
    assert unknown.spec.ctr > 0.35
    assert known.split("train").labels().sample_weight.max() == 5.0


def test_what_cannot_be_corrected_is_refused(sampled):
    place, known, _ = sampled
    rows = pl.read_parquet(place / "world" / "exposures" / "*.parquet")[:3000].with_columns(shown=pl.lit(0.2))
    columns = replace(known.schema.columns, propensity="shown")
    log = postclick.prepare(rows, place / "logged", schema=replace(known.schema, columns=columns), split="random")
    training = TrainingConfig(sampling="correct")
    config = RunConfig("escm2-ips", {"propensity": "logged"}, training=training, device="cpu")
    with pytest.raises(ConfigError, match="logged propensity is of the whole log"):
        run(log, config, place / "refused")


def test_a_schema_file_with_keep_rates_reaches_prepare(sampled, tmp_path):
    _, known, _ = sampled
    form = known.schema.to_dict()
    (tmp_path / "schema.toml").write_text(tomli_w.dumps(form))
    assert Schema.from_toml(tmp_path / "schema.toml").keep_rates == KEEP
