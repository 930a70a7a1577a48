"""``postclick tune``: its record as JSON, cut off by real signals and gone on with, and what it refuses."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from postclick import files
from postclick.cli.main import call
from postclick.data.log import ExposureLog
from postclick.training.step import TrainingStep

SETTINGS = ("training.threads=1", "training.batch_size=1000", "training.checks_per_epoch=1", "embedding_size=4")
HELD = ("tower.hidden=[8]", "tower.dropout=[0.0]", "trunk=shared", "shared_embedding=true")
KILLER = """
import os, signal, sys
from postclick.cli.main import main
from postclick.training.step import TrainingStep
original, left = TrainingStep.__call__, iter(range(int(sys.argv.pop(1))))
def counted(self, batch, index):
    if next(left, None) is None:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(self, batch, index)
TrainingStep.__call__ = counted
main()
"""


def command(log: Path, out: Path, *more: str, trials: int = 2) -> list[str]:
    settings = [word for setting in (*SETTINGS, *HELD) for word in ("--set", setting)]
    kept = ["--system", "esmm", "--trials", str(trials), "--max-epochs", "1", "--seed", "2"]
    return ["tune", str(log), "--out", str(out), *kept, *settings, *more]


@pytest.fixture(scope="module")
def tuned(pipeline: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An undisturbed search; do not write into it."""
    out = tmp_path_factory.mktemp("tune") / "run"
    assert call([*command(pipeline.log, out), "--quiet"]) == 0
    return out


def same_search(one: Path, other: Path) -> bool:
    """Return whether two searches left the same trials, choice, comparison and RUN, byte for byte."""
    names = ("tuning.json", "tuning/trials.json", "manifest.json", "config.toml", "evaluation.json")
    return all((one / name).read_bytes() == (other / name).read_bytes() for name in names)


def test_json_is_the_record_and_the_run(pipeline: Any, tuned: Path, as_json: Any) -> None:
    record = files.read_json(tuned / "tuning.json")
    made = as_json(*command(pipeline.log, tuned, "--resume"))
    assert {name: made[name] for name in record} == record
    assert made.keys() == {
        *("run", "format", "system", "metric", "seed", "best", "trials", "space", "comparison", "metrics")
    }
    assert {name: made[name] for name in record} == record  # made elsewhere, the same
    assert (made["system"], made["metric"], made["seed"]) == ("esmm", "ctcvr/logloss@exposure", 2)
    assert set(made["trials"][0]) == {"number", "settings", "value", "state", "why", "checks"}
    assert [trial["number"] for trial in made["trials"]] == [0, 1]
    values = [trial["value"] for trial in made["trials"] if trial["state"] == "complete"]
    assert made["trials"][made["best"]]["value"] == min(values)
    assert made["metrics"] == files.read_json(tuned / "evaluation.json")["metrics"]
    assert files.read_manifest(tuned, "run").hash
    assert ExposureLog(pipeline.log).hash in (tuned / "config.toml").read_text("utf-8")


def test_what_set_names_is_held_in_every_trial(tuned: Path) -> None:
    record = files.read_json(tuned / "tuning.json")
    held = {setting.partition("=")[0] for setting in (*SETTINGS, *HELD)}
    assert "training.learning_rate" in record["space"]
    assert not held & record["space"].keys()
    assert not any(name.startswith("experts.") for name in record["space"])  # nothing reads them under trunk=shared
    assert not held & {name for trial in record["trials"] for name in trial["settings"]}
    assert all("training.learning_rate" in trial["settings"] for trial in record["trials"][1:])


def test_the_words_name_choice_default_and_next_step(
    pipeline: Any, tuned: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = files.read_json(tuned / "tuning.json")
    assert call(command(pipeline.log, tuned, "--resume")) == 0  # complete: nothing is trained
    captured = capsys.readouterr()
    assert "ctcvr/logloss@exposure on valid:" in captured.out
    assert "the default:" in captured.out
    assert ("paired" in captured.out) == (record["comparison"] is not None)
    assert f"next: postclick evaluate {tuned} {pipeline.log}" in captured.err


def test_sigterm_saves_the_search_and_resume_ends_in_the_same(
    pipeline: Any,
    tuned: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    original, left = TrainingStep.__call__, iter(range(6))  # 4 steps a trial: in the middle of the second one

    def signalled(self: TrainingStep, batch: Any, index: int) -> bool:
        if next(left, None) == 5:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, batch, index)

    with monkeypatch.context() as patch:
        patch.setattr(TrainingStep, "__call__", signalled)
        assert call([*command(pipeline.log, tmp_path / "run"), "--json"]) == 143
    (line,) = capsys.readouterr().out.splitlines()
    error = json.loads(line)["error"]
    assert (error["code"], error["exit_code"]) == ("train.interrupted", 143)
    assert len(files.read_json(tmp_path / "run" / "tuning" / "trials.json")) == 1
    assert not (tmp_path / "run" / "tuning.json").exists()
    assert call([*command(pipeline.log, tmp_path / "run"), "--quiet", "--resume"]) == 0
    assert same_search(tmp_path / "run", tuned)


def test_killed_outright_it_goes_on_all_the_same(pipeline: Any, tuned: Path, tmp_path: Path) -> None:
    """SIGKILL in a process of its own, in the middle of the second trial: nobody had time to save anything."""
    run = [sys.executable, "-c", KILLER, "5", *command(pipeline.log, tmp_path / "run"), "--quiet"]
    killed = subprocess.run(run, capture_output=True, text=True, timeout=120, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert len(files.read_json(tmp_path / "run" / "tuning" / "trials.json")) == 1
    assert call([*command(pipeline.log, tmp_path / "run"), "--quiet", "--resume"]) == 0
    assert same_search(tmp_path / "run", tuned)


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        (["--system", "esm2x"], 78, "did you mean 'esm2'?"),
        (["--metric", "cvr/aux@click"], 78, "cvr/aux@click"),
        (["--set", "training.learning_rat=0.1"], 78, "did you mean 'learning_rate'?"),
        (["--trials", "0"], 64, "--trials"),
    ],
)
def test_mistakes_are_refused_before_anything_is_written(
    pipeline: Any, tmp_path: Path, as_json: Any, changes: list[str], code: int, words: str
) -> None:
    error = as_json(*command(pipeline.log, tmp_path / "run"), *changes, code=code)["error"]
    assert error["exit_code"] == code
    assert words in json.dumps(error)
    assert list(tmp_path.iterdir()) == []


def test_an_output_that_is_there_stays_as_it_is(pipeline: Any, tuned: Path, as_json: Any) -> None:
    before = {path: path.read_bytes() for path in sorted(tuned.rglob("*")) if path.is_file()}
    error = as_json(*command(pipeline.log, tuned), code=73)["error"]
    assert error["code"] == "io.exists"
    assert "--resume" in error["findings"][0]["fix"]
    error = as_json(*command(pipeline.log, pipeline.run, "--force"), code=73)["error"]  # a RUN that no search made
    assert error["code"] == "io.exists"
    assert {path: path.read_bytes() for path in sorted(tuned.rglob("*")) if path.is_file()} == before


def test_another_question_is_refused_by_resume(pipeline: Any, tuned: Path, as_json: Any) -> None:
    error = as_json(*command(pipeline.log, tuned, "--resume", "--metric", "cvr/auc@click"), code=78)["error"]
    assert error["code"] == "ckpt.incompatible"
