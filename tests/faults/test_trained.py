"""Faults that show when a trained system meets rows: one class (D04, D05), unseen values (D12), bad rows to score."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from planted import FEATURES, prepare, rows, write
from postclick.cli.main import call

FAST = ["--max-epochs", "1", "--set", "training.threads=1", "--set", "tower.hidden=[8]", "--set", "tower.dropout=[0.0]"]


@dataclass(frozen=True)
class Trained:
    """A log whose test split has no conversion and new users, and a run on it."""

    root: Path
    log: Path
    run: Path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    root = tmp_path_factory.mktemp("trained")
    test = rows(600, seed=1, start=2_000)
    test["conversion"][:] = 0
    test["user"][:300] += 1_000
    sources = write(root, "train", rows(), "parquet"), write(root, "test", test, "parquet")
    argv = prepare(root, "--train", sources[0], "--test", sources[1])
    assert call([*argv, "--quiet"]) == 0
    run = root / "run"
    assert call(["train", str(root / "log"), "--system", "esmm", "--out", str(run), *FAST, "--quiet"]) == 0
    return Trained(root, root / "log", run)


def test_d05_a_metric_of_one_class_is_undefined_and_the_rest_is_reported(trained: Trained, say: Callable) -> None:
    said = say("evaluate", trained.run, trained.log, "--json")
    assert said.code == 0
    metrics = said.json["metrics"]
    auc = metrics["cvr/auc@click"]
    assert (auc["value"], auc["undefined"], auc["positives"]) == (None, "no positives", 0)
    assert 0.0 < metrics["ctr/auc@exposure"]["value"] < 1.0
    assert any(note.startswith("eval.single_class") for note in said.json["ledger"]["notes"])
    shown = say("evaluate", trained.run, trained.log)
    assert "undefined (no positives)" in shown.out
    assert "NaN" not in shown.out


def test_d12_unseen_values_are_warned_of_when_evaluating(trained: Trained, say: Callable) -> None:
    said = say("evaluate", trained.run, trained.log)
    assert said.code == 0
    assert "data.unseen 50.0% of the values of 'user' are missing or were not seen in training" in said.err
    assert "'item'" not in said.err


def test_d12_unseen_values_are_warned_of_when_preparing(trained: Trained, say: Callable) -> None:
    said = say("inspect", trained.log, "--json")
    codes = [(verdict["code"], verdict["level"]) for verdict in said.json["audit"]["verdicts"]]
    assert ("data.unseen", "warning") in codes


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_d12_unseen_values_are_warned_of_when_scoring(
    trained: Trained, form: str, tmp_path: Path, say: Callable
) -> None:
    body = rows(400, seed=2)
    body["user"][:100] += 5_000
    source = write(tmp_path, "new", body, form)
    said = say("score", trained.run, source, "--out", tmp_path / "scores.parquet")
    assert said.code == 0
    assert "data.unseen 25.0% of the values of 'user' were not seen in training | user | 100 times" in said.err
    scores = pq.read_table(tmp_path / "scores.parquet")
    assert scores.num_rows == 400
    assert np.isfinite(scores["cvr"].to_numpy()).all()


@pytest.mark.parametrize(
    ("change", "code", "where"),
    [
        ({"price": float("inf")}, "data.non_finite", "new.parquet:7:price"),
        ({"user": 1e17}, "data.lossy_cast", "new.parquet:7:user"),
        ({"shop": "x" * 5_000}, "data.text", "new.parquet:7:shop"),
    ],
)
def test_bad_rows_are_not_scored_and_leave_no_file(
    trained: Trained, change: dict, code: str, where: str, tmp_path: Path, say: Callable
) -> None:
    body = rows(50, seed=2)
    for name, value in change.items():
        column = body[name].tolist()
        column[7] = value
        body[name] = np.asarray(column, float if name == "user" else None)
    source = write(tmp_path, "new", body, "parquet")
    said = say("score", trained.run, source, "--out", tmp_path / "scores.parquet", "--json")
    assert said.code == 65
    assert [(finding["code"], finding["where"]) for finding in said.findings] == [(code, where)]
    assert [path.name for path in tmp_path.iterdir()] == ["new.parquet"]


def test_d04_a_constant_is_fitted_where_that_is_allowed(tmp_path: Path, say: Callable) -> None:
    body = rows()
    body["conversion"][:] = 0
    assert say(*prepare(tmp_path, write(tmp_path, "rows", body, "parquet"))).code == 0
    argv = ["train", tmp_path / "log", "--system", "esmm", "--out", tmp_path / "run", *FAST]
    refused = say(*argv, "--json")
    assert refused.code == 65
    assert refused.findings[0]["code"] == "data.single_class"
    assert "--allow-degenerate" in refused.findings[0]["fix"]
    assert not (tmp_path / "run").exists()
    assert say(*argv, "--allow-degenerate").code == 0


def test_the_features_of_the_planted_rows_are_those_of_the_schema() -> None:
    assert {feature.name for feature in FEATURES} < set(rows(1))
