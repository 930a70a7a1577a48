"""The demo: it replaces its own folder and nobody else's, and its numbers are those of its runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from postclick import files
from postclick.cli import demo_steps
from postclick.cli.demo_words import AUC, PCOC
from postclick.cli.main import call


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the command run on worlds of a second."""
    build = demo_steps.build
    monkeypatch.setattr(demo_steps, "build", lambda out, say: build(out, say, exposures=4000, max_epochs=1))


def test_a_foreign_folder_is_not_touched(tmp_path: Path, as_json: Any) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    assert as_json("demo", "--out", tmp_path / "mine", code=73)["error"]["code"] == "io.exists"
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"


def test_a_folder_of_another_kind_is_not_touched(pipeline: Any, as_json: Any) -> None:
    assert as_json("demo", "--out", pipeline.log, code=73)["error"]["code"] == "io.exists"


@pytest.mark.usefixtures("small")
def test_the_demo_shows_two_worlds_and_replaces_itself(tmp_path: Path, as_json: Any, capsys: Any) -> None:
    first = as_json("demo", "--out", tmp_path / "d")
    assert set(first["worlds"]) == {"selection", "no-bias"}
    for scores in first["worlds"].values():
        assert set(scores) == {"oracle", "mlp", "esmm"}
        assert scores["oracle"][PCOC]["value"] == pytest.approx(1.0)
        assert scores["oracle"][AUC]["value"] > scores["mlp"][AUC]["value"]
    shown = first["worlds"]["selection"]["esmm"][AUC]
    kept = files.read_json(tmp_path / "d" / "selection" / "esmm" / "evaluation.json")["metrics"][AUC]
    assert shown == kept
    identity = files.read_manifest(tmp_path / "d", "demo").hash
    capsys.readouterr()
    assert call(["demo", "--out", str(tmp_path / "d")]) == 0
    captured = capsys.readouterr()
    assert files.read_manifest(tmp_path / "d", "demo").hash == identity
    assert all(word.split(":")[0] in ("selection", "no-bias") for word in first["sentences"])
    assert "selection: mlp (clicks)" in captured.out
    assert "demo-size" in captured.out
    assert "postclick prepare rows.parquet" in captured.err
