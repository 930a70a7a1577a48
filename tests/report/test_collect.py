"""From folders to facts, on a run and a benchmark that were really made."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from postclick.errors import ConfigError, DataError, InputMissingError, StorageError
from postclick.report import write_report
from postclick.report.collect import collect
from postclick.report.folders import short_names


@pytest.fixture(scope="session")
def other_run(tmp_path_factory, small_log, small_config) -> Path:
    """A second system on the rows of `small_run`."""
    from postclick.run import RunConfig, run

    arguments = {"embedding_size": 4, "tower": {"hidden": [16, 8], "dropout": [0.1]}}
    path: Path = tmp_path_factory.mktemp("second") / "other"
    run(small_log, RunConfig("mlp", arguments, small_config.training, seed=3, device="cpu"), path)
    return path


def test_a_run_alone_tells_its_funnel_metrics_and_training(small_run: Any) -> None:
    figures = collect([small_run.path])
    (study,) = figures.studies
    run = study.contestants[0].run
    assert run is not None
    evaluation = json.loads((Path(small_run.path) / "evaluation.json").read_text("utf-8"))
    assert run.metrics == evaluation["metrics"]
    assert study.contestants[0].cells["cvr/auc@click"].value == evaluation["metrics"]["cvr/auc@click"]["value"]
    assert study.log.funnel("test").clicks == evaluation["ledger"]["clicks"]
    assert study.log.funnel("train").rows == 3600
    assert not study.log.known
    assert "--log" in figures.missing[0]


def test_a_log_adds_its_ledger_curves_and_paired_verdicts(small_run: Any, other_run: Path, small_log: Any) -> None:
    figures = collect([Path(small_run.path), other_run], [small_log.path], ["shop"])
    (study,) = figures.studies
    assert figures.missing == ()
    assert study.log.read == 6000
    assert [funnel.split for funnel in study.log.funnels] == ["train", "valid", "test"]
    assert {pair.metric for pair in study.pairs} == set(study.metrics)
    assert {(pair.system, pair.against) for pair in study.pairs} == {("other", "run")}
    run = study.contestants[0].run
    assert run is not None
    places = {curve.place for curve in run.curves}
    assert {"ctr@exposure", "cvr@click", "ctcvr@exposure", "cvr@click|shop=a"} <= places
    curve = next(curve for curve in run.curves if curve.place == "ctr@exposure")
    assert sum(curve.rows) == 1200
    clicks = sum(rate * rows for rate, rows in zip(curve.observed, curve.rows, strict=True))
    assert clicks == pytest.approx(study.log.funnel("test").clicks)


def test_runs_that_differ_by_their_seed_are_one_system(
    small_run: Any, other_run: Path, small_log: Any, small_config: Any, tmp_path: Path
) -> None:
    from dataclasses import replace

    from postclick.run import run

    run(small_log, replace(small_config, seed=4), tmp_path / "again")
    (study,) = collect([Path(small_run.path), tmp_path / "again"]).studies
    assert [entry.seeds for entry in study.contestants] == [2]
    cell = study.contestants[0].cells["cvr/auc@click"]
    assert len(cell.seeds) == 2
    assert cell.value == pytest.approx(sum(cell.seeds) / 2)
    assert cell.seed_sd == pytest.approx(abs(cell.seeds[0] - cell.seeds[1]) / 2**0.5)

    given = [other_run, Path(small_run.path), tmp_path / "again"]
    (study,) = collect(given, [small_log.path]).studies
    assert {(pair.system, pair.against, pair.seeds) for pair in study.pairs} == {("run", "other", 2)}


def test_a_log_of_other_runs_is_refused(small_run: Any, other_run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputMissingError) as caught:
        collect([Path(small_run.path), tmp_path / "absent"], [other_run])
    codes = [finding.code for finding in caught.value.findings]
    assert sorted(codes) == ["input.missing", "input.wrong_kind"]


def test_an_unknown_column_is_named(small_run: Any, small_log: Any) -> None:
    with pytest.raises(ConfigError, match="shop"):
        collect([Path(small_run.path)], [small_log.path], ["shopp"])


def test_a_file_of_another_form_is_named(small_run: Any, tmp_path: Path) -> None:
    shutil.copytree(small_run.path, tmp_path / "run")
    (tmp_path / "run" / "bundle" / "model.json").write_text('{"heads": {}}')
    with pytest.raises(DataError) as caught:
        collect([tmp_path / "run"])
    assert caught.value.findings[0].code == "data.corrupt_file"


def test_an_existing_page_is_not_replaced_unasked(small_run: Any, saved: Path) -> None:
    write_report([small_run.path], saved)
    before = saved.read_bytes()
    with pytest.raises(StorageError):
        write_report([small_run.path], saved)
    write_report([small_run.path], saved, force=True)
    assert saved.read_bytes() == before


def test_names_are_as_long_as_tells_them_apart() -> None:
    assert short_names([Path("/a/x/run"), Path("/a/y/run")]) == ["x/run", "y/run"]
    assert short_names([Path("/a/x/run")]) == ["run"]
