"""Many runs at once, killed, failing: the same bytes, and no run lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tomli_w

from postclick.benchmark import run_benchmark
from postclick.benchmark.pieces import Outcome, Piece
from postclick.errors import ExitCode, Finding, PostclickError, TrainingError
from postclick.run import RunConfig

HASHED = ("runs.jsonl", "leaderboard.json", "leaderboard.md", "manifest.json")


def bytes_of(out: Path) -> dict[str, bytes]:
    return {name: (out / name).read_bytes() for name in HASHED}


def test_two_processes_killed_and_resumed_give_the_bytes_of_one(benchmark_folder, tmp_path):
    path, whole, _ = benchmark_folder
    out = tmp_path / "out"
    command = [sys.executable, "-m", "postclick", "benchmark", str(path), "--out", str(out), "--jobs", "2", "--resume"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 120
    while not list(out.glob("runs/*/*/*/*/checkpoints")) and time.monotonic() < until:
        assert process.poll() is None
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (out / "runs.jsonl").exists()
    run_benchmark(path, out, jobs=2, resume=True)
    assert bytes_of(out) == bytes_of(whole)


def test_the_record_tells_time_memory_and_source_of_each_run(benchmark_folder):
    _, out, _ = benchmark_folder
    lines = [json.loads(line) for line in (out / "record.jsonl").read_text("utf-8").splitlines()]
    runs = {line["key"] for line in map(json.loads, (out / "runs.jsonl").read_text("utf-8").splitlines())}
    assert {line["run"] for line in lines} == runs
    assert all(line["seconds"] > 0 and line["peak_bytes"] > 50 << 20 for line in lines)
    assert all({"commit", "versions"} <= line.keys() for line in lines)


def test_a_run_that_fails_ends_no_other_and_its_error_comes_last(small, tmp_path):
    del small["grid"], small["data"]["absent"]
    small["seeds"]["count"] = 1
    small["data"]["small"]["exposures"] = 3000
    # an action label is what this world has not: found when the system is built on the log
    small["run"].insert(0, {"system": "esm2"})
    path = tmp_path / "experiment.toml"
    path.write_text(tomli_w.dumps(small), "utf-8")
    out = tmp_path / "out"
    with pytest.raises(PostclickError) as failure:
        run_benchmark(path, out)
    assert failure.value.code == "config.value"
    assert failure.value.exit_code == ExitCode.CONFIG
    assert [found.code for found in failure.value.findings] == ["config.value", "benchmark.failed"]
    assert failure.value.findings[0].where.startswith("small/esm2/seed-000")
    labels = [json.loads(line)["label"] for line in (out / "runs.jsonl").read_text("utf-8").splitlines()]
    assert labels == ["esmm", "MLP on clicks"]
    board = json.loads((out / "leaderboard.json").read_text("utf-8"))
    assert board["tables"]["small"]["esmm"]["cvr/auc@world"]["verdict"] is not None
    assert board["tables"]["small"]["esm2"]["cvr/auc@world"]["value"] is None
    assert "small/esm2/seed-000 has no result: config.value" in board["notes"]


def test_a_setting_that_diverges_has_lost_and_not_failed(tmp_path):
    error = TrainingError(Finding("train.non_finite", "the loss is NaN"))

    def outcome(stage: str) -> Outcome:
        return Outcome(Piece("k", "d", "l", stage, RunConfig(), tmp_path, tmp_path), error=error)

    assert not outcome("grid").failed
    assert outcome("final").failed
