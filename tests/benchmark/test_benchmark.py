from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from postclick import execution, files
from postclick.benchmark import run_benchmark
from postclick.benchmark.cells import Cell
from postclick.benchmark.experiment import ORACLE
from postclick.errors import LockedError, StorageError, UsageError


def runs_of(folder):
    return [json.loads(line) for line in (folder / "runs.jsonl").read_text("utf-8").splitlines()]


def test_every_run_is_a_run_folder_and_a_sorted_line(benchmark_folder):
    _, out, _ = benchmark_folder
    lines = runs_of(out)
    assert [line["key"] for line in lines] == sorted(line["key"] for line in lines)
    assert len(list((out / "runs").glob("*/*/*/seed-*"))) == 6  # the chosen setting's first seed is not trained again
    assert [line["stage"] for line in lines].count("grid") == 4  # 2 runs x 2 settings
    assert [line["stage"] for line in lines].count("final") == 4  # 2 runs x 2 seeds
    for line in lines:
        assert files.read_manifest(out / "runs" / line["key"], "run").hash
    assert files.read_manifest(out, "benchmark").kind == "benchmark"


def test_the_setting_with_the_lowest_validation_loss_is_trained_with_all_seeds(benchmark_folder):
    _, out, board = benchmark_folder
    lines = runs_of(out)
    for label in ("MLP on clicks", "esmm"):
        tried = {line["valid"]: line["chosen"] for line in lines if (line["stage"], line["label"]) == ("grid", label)}
        assert len(tried) == 2
        best = tried[min(tried)]
        final = [line for line in lines if (line["stage"], line["label"]) == ("final", label)]
        assert [line["chosen"] for line in final] == [best, best]
        assert [line["settings"]["training"]["l2"] for line in final] == [best["training.l2"]] * 2
        assert board.chosen["small"][label] == best


def test_cells_are_means_over_seeds(benchmark_folder):
    _, out, board = benchmark_folder
    final = [line for line in runs_of(out) if line["stage"] == "final" and line["label"] == "esmm"]
    for metric, mean, spread in (
        ("cvr/auc@world", np.mean, lambda values: np.std(values, ddof=1)),
        ("cvr/pcoc@world", lambda values: np.exp(np.mean(np.log(values))), lambda v: np.std(np.log(v), ddof=1)),
        ("ctr/ks@exposure", np.mean, lambda values: np.std(values, ddof=1)),
    ):
        values = [line["metrics"][metric]["value"] for line in final]
        cell = board.tables["small"]["esmm"][metric]
        assert cell.value == pytest.approx(mean(values), rel=1e-12)
        assert cell.seed_sd == pytest.approx(spread(values), rel=1e-9)
        assert cell.seeds == 2


def test_what_can_be_compared_carries_a_verdict_and_the_rest_none(benchmark_folder):
    _, _, board = benchmark_folder
    table = board.tables["small"]
    auc = table["esmm"]["cvr/auc@world"]
    other = table["MLP on clicks"]["cvr/auc@world"]
    assert auc.difference == pytest.approx(auc.value - other.value, abs=1e-12)
    assert auc.low < auc.difference < auc.high
    assert auc.verdict in ("better", "worse", "cannot tell")
    assert other.verdict is None
    assert table["esmm"]["ctr/ks@exposure"].verdict is None


def test_metrics_beyond_the_default_set_are_measured_where_the_table_asks_for_them(benchmark_folder):
    _, out, board = benchmark_folder
    for metric in ("cvr/brier@world", "ctcvr/recall[top=0.07]@exposure"):
        for label, cells in board.tables["small"].items():
            assert 0 < cells[metric].value < 1
            assert cells[metric].seeds == (0 if label == ORACLE else 2)
    # what a run leaves of itself is the default set alone
    kept = json.loads(next(out.glob("runs/small/*/*/seed-000/evaluation.json")).read_text("utf-8"))["metrics"]
    assert "cvr/brier@world" not in kept
    assert "ctcvr/recall[top=0.01]@exposure" in kept


def test_a_metric_the_rows_do_not_have_is_left_out_of_the_printed_table(benchmark_folder):
    _, _, board = benchmark_folder
    rows = {
        label: {**cells, "ctar/auc@exposure": Cell(None, undefined="not measured on these rows")}
        for label, cells in board.tables["small"].items()
    }
    text = replace(board, metrics=(*board.metrics, "ctar/auc@exposure"), tables={"small": rows}).to_markdown()
    assert "ctar" not in text
    assert "cvr/brier@world" in text


def test_the_table_names_data_runs_and_what_was_left_out(benchmark_folder):
    _, out, board = benchmark_folder
    text = board.to_markdown()
    assert "| small | cvr/auc@world | cvr/pcoc@world | ctr/ks@exposure | cvr/brier@world |" in text
    assert "| MLP on clicks |" in text
    assert "absent is left out: give its path with --data absent=PATH" in text
    assert json.loads((out / "leaderboard.json").read_text("utf-8")) == board.to_dict()


def test_resuming_trains_nothing_again_starts_no_process_and_gives_equal_bytes(benchmark_folder, monkeypatch):
    path, out, board = benchmark_folder
    before = {name: (out / name).read_bytes() for name in ("runs.jsonl", "leaderboard.json")}
    records = {record: record.read_text("utf-8") for record in out.glob("runs/*/*/*/*/record.jsonl")}
    assert len(records) == 6
    monkeypatch.setattr(execution, "ProcessPoolExecutor", None)
    again = run_benchmark(path, out, resume=True)
    assert again == board
    assert {name: (out / name).read_bytes() for name in before} == before
    assert all(record.read_text("utf-8") == text for record, text in records.items())


def test_an_existing_folder_is_refused(benchmark_folder, tmp_path):
    path, out, _ = benchmark_folder
    with pytest.raises(StorageError, match="--resume"):
        run_benchmark(path, out)
    (tmp_path / "mine.txt").write_text("mine", "utf-8")
    with pytest.raises(StorageError, match="not a BENCHMARK"):
        run_benchmark(path, tmp_path, force=True)
    assert (tmp_path / "mine.txt").read_text("utf-8") == "mine"


def test_a_folder_that_somebody_works_on_loses_nothing_by_force(benchmark_folder):
    path, out, _ = benchmark_folder
    before = sorted(out.rglob("*"))
    with files.lock(out), pytest.raises(LockedError):
        run_benchmark(path, out, force=True)
    assert sorted(out.rglob("*")) == before


def test_data_nobody_asked_for_are_refused_with_the_likely_name(benchmark_folder, tmp_path):
    path, _, _ = benchmark_folder
    with pytest.raises(UsageError, match="did you mean 'absent'"):
        run_benchmark(path, tmp_path / "out", data={"absnt": "x"})
