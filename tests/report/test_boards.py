"""A BENCHMARK as studies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from postclick.errors import InputMissingError
from postclick.report.collect import collect


@pytest.fixture(scope="module")
def folder(tmp_path_factory: Any) -> Path:
    """Two sizes of one system and another system, two seeds, a grid of two."""
    from postclick.benchmark import run_benchmark

    experiment = {
        "data": {"small": {"world": "selection", "exposures": 6000, "seed": 1, "set": {"ctr": 0.3, "cvr": 0.3}}},
        "arguments": {"tower": {"hidden": [8], "dropout": [0.0]}},
        "training": {"max_epochs": 1},
        "run": [
            {"system": "esmm", "label": "ESMM", "set": {"embedding_size": 4}},
            {"system": "esmm", "label": "ESMM, wide", "set": {"embedding_size": 8}},
            {"system": "mlp", "set": {"embedding_size": 4}},
        ],
        "seeds": {"count": 2},
        "grid": {"over": {"training.l2": [1e-6, 1e-2]}},
        "table": {"metrics": ["cvr/auc@world", "ctcvr/auc@exposure"], "baseline": "ESMM"},
    }
    path = tmp_path_factory.mktemp("board")
    (path / "experiment.toml").write_text(tomli_w.dumps(experiment), "utf-8")
    run_benchmark(path / "experiment.toml", path / "out")
    return path / "out"


def test_the_study_is_the_leaderboard(folder: Path) -> None:
    (study,) = collect([folder]).studies
    board = json.loads((folder / "leaderboard.json").read_text("utf-8"))
    table = board["tables"]["small"]
    assert [entry.label for entry in study.contestants] == ["ESMM", "ESMM, wide", "mlp"]
    for entry in study.contestants:
        assert entry.seeds == 2
        for name in study.metrics:
            assert entry.cells[name].value == table[entry.label][name]["value"]
            assert len(entry.cells[name].seeds) == 2
    pair = study.pair("cvr/auc@world", "mlp")
    assert pair is not None
    cell = table["mlp"]["cvr/auc@world"]
    assert (pair.value, pair.low, pair.high, pair.verdict) == (
        cell["difference"],
        cell["low"],
        cell["high"],
        cell["verdict"],
    )
    assert study.oracle["cvr/auc@world"] > max(entry.cells["cvr/auc@world"].value or 0 for entry in study.contestants)


def test_data_sets_of_one_name_are_told_apart(folder: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(folder, tmp_path / "again")
    assert [study.name for study in collect([folder, tmp_path / "again"]).studies] == ["small (out)", "small (again)"]


def test_a_file_that_is_gone_is_named(folder: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(folder, tmp_path / "out")
    (tmp_path / "out" / "experiment.toml").unlink()
    with pytest.raises(InputMissingError, match=r"experiment\.toml"):
        collect([tmp_path / "out"])


def test_its_own_log_is_found_and_read(folder: Path) -> None:
    figures = collect([folder])
    (study,) = figures.studies
    assert figures.missing == ()
    assert study.log.known
    assert study.log.read == 6000
    for entry in study.contestants:
        assert entry.run is not None
        assert {"cvr@world", "cvr@click"} <= {curve.place for curve in entry.run.curves}


def test_the_grid_and_the_one_setting_that_differs_are_told(folder: Path) -> None:
    from postclick.report.sections.settings import differing, settings

    (study,) = collect([folder]).studies
    first, wide, other = study.contestants
    assert differing(first, wide) == "arguments.embedding_size"
    assert differing(first, other) is None
    assert len(study.trials) == 6
    titles = [figure.title for figure in settings(study).shown]
    assert "One setting at a time" in titles
    assert "Every setting that was tried" in titles
    assert any(title.startswith("The grid over training.l2") for title in titles)


def test_what_the_leaderboard_says_of_data_pairs_and_letters_is_read(folder: Path, tmp_path: Path) -> None:
    import shutil

    (study,) = collect([folder]).studies
    board = json.loads((folder / "leaderboard.json").read_text("utf-8"))
    facts = board["data"]["small"]
    assert study.table is not None
    assert (study.table.users, study.table.items, study.table.features) == tuple(
        facts[name] for name in ("users", "items", "features")
    )
    assert [found.split for found in study.table.splits] == ["train", "valid", "test"]
    assert study.groups == board["groups"]["small"]
    cell, pair = board["tables"]["small"]["mlp"]["cvr/auc@world"], study.pair("cvr/auc@world", "mlp")
    assert pair is not None
    assert (pair.gain, pair.p, pair.method) == (cell["gain"], cell["p_holm"], cell["method"])

    for name in ("data", "groups"):  # as an older version wrote it
        del board[name]
    for row in board["tables"]["small"].values():
        for entry in row.values():
            for name in ("gain", "p_holm", "needed", "method"):
                entry.pop(name, None)
    shutil.copytree(folder, tmp_path / "old")
    (tmp_path / "old" / "leaderboard.json").write_text(json.dumps(board), "utf-8")
    (old,) = collect([tmp_path / "old"]).studies
    assert old.table is None
    assert old.groups == {}
    found = old.pair("cvr/auc@world", "mlp")
    assert found is not None
    assert (found.value, found.gain) == (pair.value, None)
