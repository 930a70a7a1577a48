"""A log of clicks with carts and purchases through the commands: REES46 events in, an audited log, systems, metrics."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from postclick import files
from postclick.cli.main import call
from postclick.data.log import ExposureLog
from postclick.models.systems import MODELS

Run = Callable[..., Any]
ROOT = os.environ.get("POSTCLICK_DATA")
real = pytest.mark.skipif(ROOT is None, reason="POSTCLICK_DATA is not set: the real data is not here")
HEADER = "event_time,event_type,product_id,category_id,category_code,brand,price,user_id,user_session"
SETTINGS = ["--set", "training.threads=1", "--set", "training.batch_size=500", "--set", "embedding_size=4"]


def write(path: Path, sessions: int = 3_000) -> None:
    """Sessions of one product each: viewed, by chance put into the cart, by chance bought, whatever the cart."""
    rng = np.random.default_rng(0)
    start = np.datetime64("2019-10-01T00:00:00")
    lines = [HEADER]
    for number in range(sessions):
        product, cart, bought = int(rng.integers(1, 20)), rng.random() < 0.2, rng.random() < 0.15
        happened = ["view", *(["cart"] if cart else []), *(["purchase"] if bought else [])]
        for step, kind in enumerate(happened):
            time = str(start + number * 60 + step).replace("T", " ")
            row = f"{kind},{product},{product % 4},a.b{product % 3},x,{product}.5,{number % 40},s{number}"
            lines.append(f"{time} UTC,{row}")
    path.write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("rees46")
    write(root / "events.csv")
    assert call(["prepare", str(root / "events.csv"), "--source", "rees46", "--out", str(root / "log"), "--quiet"]) == 0
    return root / "log"


def test_inspect_shows_the_schema_and_what_the_actions_have_to_do_with_purchases(log: Path, as_json: Run) -> None:
    found = as_json("inspect", log.parent / "events.csv")
    assert found["source"] == "rees46"
    assert found["schema"]["population"] == "click"
    audit = files.read_json(log / "audit.json")
    assert found["audit"]["actions"]["all"] == audit["actions"]["all"]
    words = [verdict["text"] for verdict in audit["verdicts"] if verdict["code"] == "audit.action"]
    without = audit["actions"]["all"]["conversions_without_action"]
    assert any(text.startswith(f"{without} of the ") for text in words)


@pytest.mark.parametrize("key", [key for key in ("mlp", "esmm", "esm2", "esmg") if key in MODELS])
def test_systems_train_on_clicks_without_a_flag_and_are_judged_there(
    key: str, log: Path, as_json: Run, tmp_path: Path
) -> None:
    made = as_json("train", log, "--system", key, "--out", tmp_path / "run", "--max-epochs", 1, *SETTINGS)
    assert made["metrics"]["cvr/logloss@click"]["value"] < np.log(2)
    assert made["metrics"]["ctr/auc@exposure"]["undefined"] == "log of clicks"
    found = as_json("evaluate", tmp_path / "run", log)["metrics"]
    assert found["cvr/logloss@click"] == made["metrics"]["cvr/logloss@click"]
    assert ("action/logloss@click" in found) == (key in ("esm2", "esmg"))
    as_json("score", tmp_path / "run", log, "--out", tmp_path / "scores.parquet", "--split", "test")
    scores = pq.read_table(tmp_path / "scores.parquet")
    assert len(scores) == len(ExposureLog(log).split("test"))
    ctr, cvr, ctcvr = (scores[name].to_numpy() for name in ("ctr", "cvr", "ctcvr"))
    assert (ctr > 0.999).all()  # every row is a click
    np.testing.assert_allclose(ctcvr, ctr * cvr, rtol=1e-6)
    if "ctar" in scores.column_names:
        np.testing.assert_allclose(scores["ctar"].to_numpy(), ctr * scores["action"].to_numpy(), rtol=1e-6)


def test_raw_events_are_scored_a_row_a_pair(log: Path, as_json: Run, tmp_path: Path) -> None:
    as_json("train", log, "--system", "mlp", "--out", tmp_path / "run", "--max-epochs", 1, *SETTINGS)
    said = as_json("score", tmp_path / "run", log.parent / "events.csv", "--out", tmp_path / "raw.parquet")
    assert said["rows"] == sum(len(ExposureLog(log).split(name)) for name in ("train", "valid", "test"))
    as_json("score", tmp_path / "run", log, "--out", tmp_path / "log.parquet")
    tables = [pq.read_table(tmp_path / name).sort_by("exposure_id") for name in ("raw.parquet", "log.parquet")]
    assert tables[0]["exposure_id"].equals(tables[1]["exposure_id"])
    np.testing.assert_allclose(*(table["cvr"].to_numpy() for table in tables), rtol=1e-6)


@pytest.mark.data
@real
def test_the_142_purchases_without_a_cart(as_json: Run, tmp_path: Path) -> None:
    """The head of the REES46 log of October 2019: prepare, train, evaluate."""
    made = as_json("prepare", Path(ROOT or "") / "rees46", "--source", "rees46", "--out", tmp_path / "log")
    counts = made["audit"]["actions"]["all"]
    assert (counts["conversions"], counts["conversions_without_action"]) == (211, 142)
    assert (counts["actions"], counts["actions_without_conversion"], counts["orphan_actions"]) == (127, 58, 0)
    words = [verdict for verdict in made["audit"]["verdicts"] if verdict["code"] == "audit.action"]
    assert any(
        verdict["level"] == "warning" and verdict["text"].startswith("142 of the 211 conversions (67.3 %)")
        for verdict in words
    )
    for key in [key for key in ("mlp", "esm2", "esmc") if key in MODELS]:
        run = tmp_path / key
        as_json(
            "train", tmp_path / "log", "--system", key, "--out", run, "--max-epochs", 2, "--set", "training.threads=1"
        )
        found = as_json("evaluate", run, tmp_path / "log")["metrics"]
        assert (found["cvr/logloss@click"]["n"], found["cvr/logloss@click"]["positives"]) == (1_234, 9)
        assert 0.0 < found["cvr/logloss@click"]["value"] < 0.2
        assert found["ctcvr/auc@exposure"]["undefined"] == "log of clicks"
        assert ("action/auc@click" in found) == (key != "mlp")
