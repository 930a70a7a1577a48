"""Calibration and down-sampled logs through the commands: what is fitted is what is served, in every way of asking."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import postclick
from postclick import ConversionEstimator, files
from postclick.bundle import Bundle, Scorer
from postclick.cli.main import call
from postclick.data.log import ExposureLog
from postclick.run.assessment import judged_rows

HEADS = ("ctr", "cvr", "ctcvr")
SETTINGS = ("embedding_size=4", "tower.hidden=[16]", "tower.dropout=[0.0]", "training.threads=1")
QUICK = ("training.batch_size=256", "training.learning_rate=0.01", "training.checks_per_epoch=1")
AWARE = ("calibration.cvr=field-aware", 'calibration.fields=["shop", "item"]')


def settings(*values: str) -> list[str]:
    return [word for value in values for word in ("--set", value)]


def done(*arguments: object) -> None:
    assert call([*map(str, arguments), "--quiet"]) == 0


# --- field-aware ---


@pytest.fixture(scope="module")
def aware(tmp_path_factory: pytest.TempPathFactory, raw_table: pa.Table, small_schema: Any) -> Path:
    """Raw files, a LOG and a RUN whose CVR is calibrated by shop and item, all made by commands."""
    place = tmp_path_factory.mktemp("aware")
    parts = {"train": raw_table.slice(0, 3600), "valid": raw_table.slice(3600, 1200), "test": raw_table.slice(4800)}
    for name, rows in parts.items():
        pq.write_table(rows, place / f"{name}.parquet")
    (place / "schema.toml").write_text(small_schema.to_toml(), "utf-8")
    roles = [word for name in parts for word in (f"--{name}", place / f"{name}.parquet")]
    done("prepare", *roles, "--schema", place / "schema.toml", "--out", place / "log", "--min-count", 1)
    system = ("--system", "esmm", "--max-epochs", 1, "--seed", 3, "--device", "cpu")
    done("train", place / "log", "--out", place / "run", *system, *settings(*SETTINGS, *QUICK, *AWARE))
    return place


def column(path: Path, head: str) -> np.ndarray[Any, Any]:
    return pq.read_table(path)[head].to_numpy()


def test_score_serves_what_evaluate_judges(aware: Path, as_json: Any, tmp_path: Path) -> None:
    judged, _, _ = judged_rows(Scorer(Bundle.load(aware / "run"), "cpu"), ExposureLog(aware / "log"), "test")
    as_json("score", aware / "run", aware / "log", "--split", "test", "--out", tmp_path / "log.parquet")
    as_json("score", aware / "run", aware / "test.parquet", "--out", tmp_path / "raw.parquet")  # the same rows, raw
    for head in HEADS:
        expected = judged.scores.probability(head)
        assert column(tmp_path / "log.parquet", head) == pytest.approx(expected, abs=1e-6)
        assert column(tmp_path / "raw.parquet", head) == pytest.approx(expected, abs=1e-6)
    found = as_json("evaluate", aware / "run", aware / "log")["metrics"]
    mean = judged.scores.probability("cvr")[judged.labels.click == 1].mean()
    rate = judged.labels.conversion[judged.labels.click == 1].mean()
    assert found["cvr/pcoc@click"]["value"] == pytest.approx(mean / rate, abs=1e-6)


def test_the_fields_are_in_the_bundle_and_move_the_cvr_alone(aware: Path) -> None:
    form = files.read_json(aware / "run" / "bundle" / "calibration.json")
    assert {head: entry["method"] for head, entry in form["heads"].items()} == {"ctr": "platt", "cvr": "field-aware"}
    assert [part["field"] for part in form["heads"]["cvr"]["fields"]] == ["shop", "item"]
    rows = pq.read_table(aware / "test.parquet").slice(0, 1)
    scorer = Scorer(Bundle.load(aware / "run"), "cpu")
    scores = scorer.score(ExposureLog(aware / "log").split("test").read().without_labels())
    # two rows of one raw log-odds and different items get different calibrated ones: a map of odds alone could not
    raw, served = scores.raw["cvr"], scores.odds["cvr"]
    order = np.argsort(raw)
    assert (np.diff(served[order]) < -0.05).any()
    assert (np.diff(scores.odds["ctr"][np.argsort(scores.raw["ctr"])]) >= 0.0).all()
    assert scorer.score_table(rows).scores.heads == scores.heads


def test_a_copied_bundle_and_its_written_calibration_serve_the_same(aware: Path, as_json: Any, tmp_path: Path) -> None:
    shutil.copytree(aware / "run" / "bundle", tmp_path / "bundle")
    for name in ("run", "copy"):
        place = aware / "run" if name == "run" else tmp_path / "bundle"
        as_json("score", place, aware / "test.parquet", "--out", tmp_path / f"{name}.parquet")
    assert pq.read_table(tmp_path / "run.parquet").equals(pq.read_table(tmp_path / "copy.parquet"))
    form = files.read_json(tmp_path / "bundle" / "calibration.json")
    assert json.loads(json.dumps(Bundle.load(tmp_path / "bundle").calibration.to_dict())) == form


def test_the_estimator_learns_serves_and_saves_the_same(aware: Path, as_json: Any, tmp_path: Path) -> None:
    model = ConversionEstimator(
        "esmm",
        arguments={"embedding_size": 4, "tower": {"hidden": [16], "dropout": [0.0]}},
        training={"batch_size": 256, "learning_rate": 0.01, "checks_per_epoch": 1, "max_epochs": 1, "threads": 1},
        calibration={"cvr": "field-aware", "fields": ("shop", "item")},
        seed=3,
        device="cpu",
    ).fit(aware / "log")
    assert model.bundle_.hash == Bundle.load(aware / "run").hash  # the command's, bit for bit
    assert model.bundle_.calibration.fields == ("shop", "item")
    raw = pl.read_parquet(aware / "test.parquet")
    served, encoded = model.predict(raw), model.predict(ExposureLog(aware / "log"))
    again = postclick.load(model.save(tmp_path / "saved")).predict(raw)
    as_json("score", tmp_path / "saved", aware / "test.parquet", "--out", tmp_path / "s.parquet")
    for head in HEADS:
        assert served[head].to_numpy() == pytest.approx(encoded[head], abs=1e-6)
        assert again[head].to_numpy() == pytest.approx(served[head].to_numpy(), abs=1e-6)
        assert column(tmp_path / "s.parquet", head) == pytest.approx(served[head].to_numpy(), abs=1e-6)
    result = model.evaluate(raw)
    judged = as_json("evaluate", aware / "run", aware / "log")["metrics"]
    for name in ("cvr/auc@click", "cvr/pcoc@click", "ctcvr/logloss@exposure"):
        assert result[name].value == pytest.approx(judged[name]["value"], abs=1e-6)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (("calibration.cvr=field-aware", 'calibration.fields=["shp"]'), "did you mean 'shop'?"),
        (("calibration.cvr=field-aware",), "no field is named"),
        (('calibration.fields=["shop"]',), "no head is field-aware"),
    ],
)
def test_fields_that_do_not_fit_are_refused(
    aware: Path, as_json: Any, tmp_path: Path, values: tuple[str, ...], words: str
) -> None:
    command = ("train", aware / "log", "--system", "esmm", "--out", tmp_path / "run", *settings(*values))
    assert words in json.dumps(as_json(*command, code=78)["error"])
    assert not (tmp_path / "run").exists()


# --- down-sampled logs ---

UNCLICKED, CLICKED = 0.2, 0.5


@pytest.fixture(scope="module")
def thinned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A world, its rows thinned at the keep rates, and a LOG of those by a schema that knows them."""
    place = tmp_path_factory.mktemp("thinned")
    knobs = settings("ctr=0.2", "cvr=0.3", "users=60", "items=40")
    done("simulate", place / "world", "--world", "no-bias", "--exposures", 20_000, "--seed", 3, *knobs)
    frame = pl.read_parquet(place / "world" / "exposures" / "*.parquet")
    click, conversion = (frame[name].to_numpy() == 1 for name in ("click", "conversion"))
    rate = np.where(conversion, 1.0, np.where(click, CLICKED, UNCLICKED))
    frame.filter(pl.Series(np.random.default_rng(0).random(len(frame)) < rate)).write_parquet(place / "rows.parquet")
    schema = (place / "world" / "schema.toml").read_text("utf-8")
    (place / "unaware.toml").write_text(schema, "utf-8")
    rates = f"\n[keep_rates]\nunclicked = {UNCLICKED}\nclicked = {CLICKED}\n"
    (place / "aware.toml").write_text(schema + rates, "utf-8")
    for name in ("aware", "unaware"):
        done("prepare", *roles(place), "--schema", place / f"{name}.toml", "--out", place / name)
    done("prepare", place / "world", "--split", "random", "--vocabulary", place / "aware", "--out", place / "whole")
    return place


def roles(place: Path) -> list[object]:
    """Return the options that give prepare half of the rows for training, 3 of 10 for validation, 2 for the test."""
    rows = pl.read_parquet(place / "rows.parquet").sample(fraction=1.0, shuffle=True, seed=1)
    ends = [0, len(rows) // 2, len(rows) * 8 // 10, len(rows)]
    options: list[object] = ["--allow-overlap"]
    for name, first, last in zip(("train", "valid", "test"), ends, ends[1:], strict=False):
        rows[first:last].write_parquet(place / f"{name}.parquet")
        options += [f"--{name}", place / f"{name}.parquet"]
    return options


def pcoc(place: Path, run: Path, as_json: Any) -> dict[str, float]:
    """Return predicted over observed on every row of the world, the dropped ones included."""
    as_json("score", run, place / "whole", "--out", run.with_suffix(".parquet"))
    labels = pl.read_parquet(
        place / "world" / "exposures" / "*.parquet", columns=["exposure_id", "click", "conversion"]
    )
    rows = pl.read_parquet(run.with_suffix(".parquet")).join(labels, on="exposure_id")
    assert len(rows) == len(labels)
    clicked = rows.filter(pl.col("click") == 1)
    pairs = {"ctr": (rows, "click"), "cvr": (clicked, "conversion"), "ctcvr": (rows, "conversion")}
    return {head: own[head].mean() / own[label].mean() for head, (own, label) in pairs.items()}


def train(log: Path, out: Path, as_json: Any, *values: str) -> Any:
    system = ("--system", "esmm", "--max-epochs", 3, "--seed", 1, "--device", "cpu")
    return as_json("train", log, "--out", out, *system, *settings(*SETTINGS, *QUICK, *values))


@pytest.mark.parametrize("sampling", ["weights", "correct"])
def test_a_thinned_log_gives_scores_of_the_whole_traffic(
    thinned: Path, as_json: Any, tmp_path: Path, sampling: str
) -> None:
    made = train(thinned / "aware", tmp_path / "run", as_json, f"training.sampling={sampling}")
    form = files.read_json(tmp_path / "run" / "bundle" / "calibration.json")
    assert ("sampling" in form) == (sampling == "correct")
    for head, value in pcoc(thinned, tmp_path / "run", as_json).items():
        assert value == pytest.approx(1.0, abs=0.15), head
    again = as_json("evaluate", tmp_path / "run", thinned / "aware")["metrics"]
    assert again["ctr/pcoc@exposure"]["value"] == pytest.approx(1.0, abs=0.15)  # its rows, weighed
    assert again["ctr/pcoc@exposure"] == made["metrics"]["ctr/pcoc@exposure"]
    # raw rows and the log are served alike
    as_json("score", tmp_path / "run", thinned / "aware", "--split", "test", "--out", tmp_path / "s.parquet")
    scores = pq.read_table(tmp_path / "s.parquet")
    ctr, cvr, ctcvr = (scores[head].to_numpy() for head in HEADS)
    assert ctcvr == pytest.approx(ctr * cvr, rel=1e-5)
    judged, _, _ = judged_rows(Scorer(Bundle.load(tmp_path / "run"), "cpu"), ExposureLog(thinned / "aware"), "test")
    assert ctr == pytest.approx(judged.scores.probability("ctr"), abs=1e-6)


def test_the_same_rows_without_keep_rates_are_far_off(thinned: Path, as_json: Any, tmp_path: Path) -> None:
    """The planted twin: the schema does not say that rows are missing."""
    train(thinned / "unaware", tmp_path / "run", as_json)
    found = pcoc(thinned, tmp_path / "run", as_json)
    assert min(found["ctr"], found["ctcvr"]) > 1.8
    assert found["cvr"] > 1.2


def test_prepare_counts_the_rows_it_has_and_estimates_the_rates_of_those_before(
    thinned: Path, as_json: Any, tmp_path: Path
) -> None:
    rows = pl.read_parquet(thinned / "rows.parquet")
    made = as_json("prepare", *roles(thinned), "--schema", thinned / "aware.toml", "--out", tmp_path / "log")
    assert made["ledger"]["rows"]["kept"] == len(rows)
    assert made["hash"] == ExposureLog(thinned / "aware").hash
    log = ExposureLog(tmp_path / "log")
    assert log.schema.keep_rates.unclicked == UNCLICKED
    assert log.spec.ctr == pytest.approx(0.2, abs=0.02)
    assert rows["click"].mean() > 0.35


def test_a_keep_rate_out_of_range_is_refused(thinned: Path, as_json: Any, tmp_path: Path) -> None:
    text = (thinned / "unaware.toml").read_text("utf-8")
    (tmp_path / "schema.toml").write_text(f"{text}\n[keep_rates]\nunclicked = 0.0\n", "utf-8")
    command = ("prepare", thinned / "rows.parquet", "--schema", tmp_path / "schema.toml", "--out", tmp_path / "log")
    assert "keep rate must be above 0" in json.dumps(as_json(*command, "--split", "random", code=78)["error"])
    assert not (tmp_path / "log").exists()
