"""The commands one after the other on a tiny world: hashes, ledgers, metrics, scores, and what goes wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import roc_auc_score

from postclick import files
from postclick.cli.main import call
from postclick.data.log import ExposureLog

Run = Callable[..., Any]


# --- simulate -------------------------------------------------------------------------------------------------------


def test_simulate_says_what_the_world_is(as_json: Run, tmp_path: Path) -> None:
    made = as_json("simulate", tmp_path / "w", "--exposures", 2000, "--world", "no-bias", "--set", "ctr=0.4")
    assert made["world"] == "no-bias"
    assert made["exposures"] == 2000
    assert made["knobs"]["ctr"] == 0.4
    assert made["rates"]["ctr"] == pytest.approx(0.4, abs=1e-3)
    assert made["oracle"]["ctr/auc@world"]["value"] > 0.5
    assert made["hash"] == files.read_manifest(tmp_path / "w", "world").hash


def test_the_oracle_is_judged_on_labels_and_truth_of_the_same_rows(as_json: Run, tmp_path: Path) -> None:
    """Labels come from the exposures, the truth from its own file: shuffled rows would give an AUC of one half."""
    for layout in ("parquet", "ali-ccp"):
        out = tmp_path / layout
        made = as_json("simulate", out, "--exposures", 3000, "--format", layout, "--set", "ctr=0.4", "--set", "cvr=0.4")
        assert made["layout"] == layout
        assert made["oracle"]["cvr/auc@click"]["n"] == made["counts"]["clicks"]
        assert made["oracle"]["cvr/auc@click"]["positives"] == made["counts"]["conversions"]
        assert made["oracle"]["cvr/auc@click"]["value"] > 0.65


def test_the_same_command_gives_the_same_hash(as_json: Run, tmp_path: Path) -> None:
    hashes = [as_json("simulate", tmp_path / name, "--exposures", 500)["hash"] for name in "ab"]
    assert hashes[0] == hashes[1]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--world", "selecton"], 78, "did you mean 'selection'?"),
        (["--set", "selecton=1"], 78, "did you mean 'selection'?"),
        (["--set", "ctr=2.0"], 78, "out of range"),
        (["--set", "ctr"], 78, "expected name=value"),
        (["--exposures", "0"], 78, "0 is not from 1"),
    ],
)
def test_simulate_refuses_what_cannot_be(
    arguments: list[str], code: int, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(["simulate", str(tmp_path / "w"), *arguments]) == code
    assert words in capsys.readouterr().err
    assert not (tmp_path / "w").exists()


def test_an_output_is_replaced_only_by_force(as_json: Run, tmp_path: Path) -> None:
    as_json("simulate", tmp_path / "w", "--exposures", 300)
    assert as_json("simulate", tmp_path / "w", "--exposures", 400, code=73)["error"]["code"] == "io.exists"
    assert as_json("simulate", tmp_path / "w", "--exposures", 400, "--force")["exposures"] == 400


# --- prepare --------------------------------------------------------------------------------------------------------


def test_the_ledger_adds_up_and_the_truth_comes_along(pipeline: Any, as_json: Run, tmp_path: Path) -> None:
    made = as_json("prepare", pipeline.world, "--out", tmp_path / "log", "--min-count", 2)
    rows = made["ledger"]["rows"]
    assert rows["read"] == 5000 == rows["kept"] + sum(rows["rejected"].values()) + sum(rows["filtered"].values())
    assert sum(split["rows"] for split in made["ledger"]["splits"].values()) == rows["kept"]
    assert made["hash"] == ExposureLog(pipeline.log).hash  # the same as the fixture's, made elsewhere
    assert ExposureLog(tmp_path / "log").truth("test") is not None


def test_prepare_shows_ledger_and_funnel(pipeline: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["prepare", str(pipeline.world), "--out", str(tmp_path / "log")]) == 0
    captured = capsys.readouterr()
    assert "5,000 rows in = 5,000 kept + 0 rejected" in captured.out
    assert "CVR on clicks" in captured.out
    assert "next: postclick train" in captured.err


def test_an_inferred_schema_is_shown(pipeline: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = pipeline.world / "exposures" / "*.parquet"
    assert call(["prepare", str(rows), "--out", str(tmp_path / "log")]) == 0
    text = capsys.readouterr().err
    assert "inferred" in text
    assert '[[feature]]\nname = "user_id"' in text


def test_prepare_takes_files_by_role(pipeline: Any, as_json: Run, tmp_path: Path) -> None:
    table = pq.read_table(next(iter((pipeline.world / "exposures").glob("*.parquet"))))
    pq.write_table(table.slice(0, 4000), tmp_path / "a.parquet")
    pq.write_table(table.slice(4000), tmp_path / "b.parquet")
    schema = pipeline.world / "schema.toml"
    roles = ("--train", tmp_path / "a.parquet", "--test", tmp_path / "b.parquet", "--allow-overlap")
    made = as_json("prepare", "--out", tmp_path / "log", *roles, "--schema", schema)
    assert made["ledger"]["splits"]["test"]["rows"] == 1000
    assert made["audit"]["protocol"]["provider_split"]


@pytest.mark.parametrize(
    ("arguments", "code", "error"),
    [
        (["nowhere.parquet", "--out", "log"], 66, "input.missing"),
        (["LOG", "--out", "log"], 66, "input.wrong_kind"),
        (["WORLD", "--out", "log", "--source", "tabluar"], 78, "config.value"),
        (["WORLD", "--out", "log", "--max-reject-ratio", "2"], 78, "config.value"),
        (["WORLD", "--out", "log", "--schema", "none.toml"], 66, "input.missing"),
        (["--out", "log"], 66, "input.missing"),
        (["WORLD", "--out", "log", "--split", "sideways"], 64, "usage"),
    ],
)
def test_prepare_refuses_with_code_and_leaves_nothing(
    arguments: list[str], code: int, error: str, pipeline: Any, as_json: Run, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    places = {"LOG": str(pipeline.log), "WORLD": str(pipeline.world)}
    found = as_json("prepare", *(places.get(text, text) for text in arguments), code=code)["error"]
    assert found["code"] == error
    assert found["exit_code"] == code
    assert list(tmp_path.iterdir()) == []


# --- inspect --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("part", "kind"), [("world", "world"), ("log", "log"), ("run", "run"), ("run/bundle", "bundle")]
)
def test_inspect_knows_every_folder(part: str, kind: str, pipeline: Any, as_json: Run) -> None:
    found = as_json("inspect", pipeline.root / part)
    assert found["kind"] == kind
    assert found["hash"] == files.read_manifest(pipeline.root / part).hash


def test_inspect_of_raw_rows_is_a_schema(
    pipeline: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], as_json: Run
) -> None:
    rows = str(pipeline.world / "exposures" / "*.parquet")
    assert call(["inspect", rows, "--quiet"]) == 0
    text = capsys.readouterr().out
    assert "# 5,000 rows in = 5,000 kept + 0 rejected" in text
    (tmp_path / "schema.toml").write_text(text)
    made = as_json("prepare", rows, "--schema", tmp_path / "schema.toml", "--out", tmp_path / "log")
    assert made["ledger"]["rows"]["kept"] == 5000


def test_a_column_name_cannot_break_out_of_its_comment(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import pyarrow as pa

    table = pa.table(
        {"click": [0, 1], "conversion": [0, 1], "a\n[columns]\nclick = 'x": [1.5, 2.5], "item": ["a", "b"]}
    )
    pq.write_table(table, tmp_path / "x.parquet")
    assert call(["inspect", str(tmp_path / "x.parquet"), "--quiet"]) == 0
    comments = capsys.readouterr().out.split("\n\n")[0]
    assert all(line.startswith("#") for line in comments.splitlines())


def test_inspect_of_nothing_is_66(as_json: Run, tmp_path: Path) -> None:
    assert as_json("inspect", tmp_path / "x.parquet", code=66)["error"]["code"] == "input.missing"


# --- train ----------------------------------------------------------------------------------------------------------


def test_train_reads_file_set_and_flags_in_that_order(pipeline: Any, as_json: Run, tmp_path: Path) -> None:
    config = tmp_path / "run.toml"
    config.write_text(
        'system = "mlp"\nseed = 5\n[arguments]\nembedding_size = 4\ntower.hidden = [4]\ntower.dropout = [0.0]\n'
        "[training]\nbatch_size = 1000\nmax_epochs = 3\nthreads = 1\n[calibration]\ncvr = 'none'\n"
    )
    made = as_json(
        *("train", pipeline.log, "--config", config, "--out", tmp_path / "run", "--set", "tower.hidden=[6]"),
        *("--set", "training.batch_size=800", "--set", "calibration.ctr=isotonic", "--max-epochs", 1),
    )
    used = files_config(tmp_path / "run")
    assert (used["system"], used["seed"]) == ("mlp", 5)
    assert used["arguments"]["tower"] == {"hidden": [6], "dropout": [0.0]}
    assert used["arguments"]["embedding_size"] == 4
    assert (used["training"]["batch_size"], used["training"]["max_epochs"]) == (800, 1)
    usual = {"ctcvr": "platt", "fields": [], "weights": "off", "propensity": "ctr"}
    assert used["calibration"] == usual | {"ctr": "isotonic", "cvr": "none"}
    assert made["metrics"]["cvr/auc@click"]["n"] > 0
    again = as_json("train", pipeline.log, "--config", tmp_path / "run" / "config.toml", "--out", tmp_path / "again")
    assert again["bundle"] == made["bundle"]  # a run's own configuration makes the same run


def files_config(run: Path) -> dict[str, Any]:
    import tomllib

    return tomllib.loads((run / "config.toml").read_text("utf-8"))


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ([], 64, "no system named"),
        (["--system", "esmmm"], 78, "did you mean 'esmm'?"),
        (["--system", "esmm", "--set", "embeding_size=4"], 78, "did you mean 'embedding_size'?"),
        (["--system", "esmm", "--set", "training.bacth_size=4"], 78, "did you mean 'batch_size'?"),
        (["--system", "esmm", "--set", "training=3"], 78, "expected a table, got 3"),
        (["--system", "esmm", "--set", "tower.hidden=wide"], 78, "expected list of int"),
        (["--system", "esmm", "--config", "none.toml"], 66, "none.toml"),
        (["--system", "esmm", "--device", "tpu"], 64, "tpu"),
    ],
)
def test_train_stops_before_anything_is_written(
    arguments: list[str], code: int, words: str, pipeline: Any, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call(["train", str(pipeline.log), "--out", "run", *arguments]) == code
    assert words in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_training_on_something_else_names_it(pipeline: Any, as_json: Run, tmp_path: Path) -> None:
    error = as_json("train", pipeline.world, "--system", "esmm", "--out", tmp_path / "run", code=66)["error"]
    assert error["findings"][0]["what"] == "expected a log folder, found a world folder"


def test_a_complete_run_is_not_trained_again(pipeline: Any, as_json: Run) -> None:
    before = files.read_manifest(pipeline.run).hash
    settings = files_config(pipeline.run)
    assert as_json("train", pipeline.log, "--system", "esmm", "--out", pipeline.run, code=73)
    config = pipeline.run / "config.toml"
    made = as_json("train", pipeline.log, "--config", config, "--out", pipeline.run, "--resume")
    assert "complete" in made["notes"][0]
    assert files.read_manifest(pipeline.run).hash == before
    assert files_config(pipeline.run) == settings


# --- evaluate and score ---------------------------------------------------------------------------------------------


def test_evaluate_has_the_shape_of_the_interface(pipeline: Any, as_json: Run) -> None:
    found = as_json("evaluate", pipeline.run, pipeline.log)
    assert {"format", "bundle", "log", "split", "metrics", "ledger"} <= set(found)
    wanted = {"value", "low", "high", "level", "method", "n", "positives", "undefined", "derived"}
    assert all(set(entry) == wanted for entry in found["metrics"].values())
    assert {"ctr/auc@exposure", "cvr/auc@click", "ctcvr/auc@exposure", "cvr/auc@world"} <= set(found["metrics"])


def test_a_run_and_its_bundle_are_the_same(pipeline: Any, as_json: Run) -> None:
    assert as_json("evaluate", pipeline.run, pipeline.log) == as_json("evaluate", pipeline.run / "bundle", pipeline.log)


def test_the_metrics_are_those_of_the_scored_file(pipeline: Any, as_json: Run, tmp_path: Path) -> None:
    as_json("score", pipeline.run, pipeline.log, "--split", "test", "--out", tmp_path / "s.parquet")
    metrics = as_json("evaluate", pipeline.run, pipeline.log)["metrics"]
    scores = pq.read_table(tmp_path / "s.parquet").to_pydict()
    labels = ExposureLog(pipeline.log).split("test").labels()
    assert scores["exposure_id"] == labels.exposure_id.tolist()
    clicked = labels.click == 1
    pairs = {
        "ctr/auc@exposure": (labels.click, np.array(scores["ctr"])),
        "cvr/auc@click": (labels.conversion[clicked], np.array(scores["cvr"])[clicked]),
        "ctcvr/auc@exposure": (labels.conversion, np.array(scores["ctcvr"])),
    }
    for name, (label, score) in pairs.items():
        assert metrics[name]["value"] == pytest.approx(roc_auc_score(label, score), abs=1e-12)
    product = np.array(scores["ctr"]) * np.array(scores["cvr"])
    np.testing.assert_allclose(scores["ctcvr"], product, rtol=1e-6)


def test_raw_rows_and_the_log_get_the_same_scores_where_serving_changes_nothing(
    pipeline: Any, as_json: Run, tmp_path: Path
) -> None:
    as_json("score", pipeline.run, pipeline.world, "--out", tmp_path / "raw.parquet", "--keep", "position")
    as_json("score", pipeline.run, pipeline.log, "--out", tmp_path / "log.parquet")
    raw = pq.read_table(tmp_path / "raw.parquet")
    log = pq.read_table(tmp_path / "log.parquet")
    assert raw.column_names == ["exposure_id", "ctr", "cvr", "ctcvr", "position"]
    raw, log = raw.sort_by("exposure_id"), log.sort_by("exposure_id")
    assert raw["exposure_id"].to_pylist() == log["exposure_id"].to_pylist()
    serving = {feature.name: feature.serving for feature in ExposureLog(pipeline.log).schema.features}
    served = raw["position"].to_numpy() == serving["position"]  # raw rows are scored as a service would: at this place
    assert 100 < served.sum() < len(served)
    np.testing.assert_allclose(raw["cvr"].to_numpy()[served], log["cvr"].to_numpy()[served], rtol=1e-5)


def test_slices_are_given_by_column(pipeline: Any, as_json: Run) -> None:
    found = as_json("evaluate", pipeline.run, pipeline.log, "--by", "device")["metrics"]
    assert any(name.startswith("cvr/auc@click|device=") for name in found)


@pytest.mark.parametrize(
    ("arguments", "code", "error"),
    [
        (["evaluate", "WORLD", "LOG"], 66, "input.wrong_kind"),
        (["evaluate", "RUN", "WORLD"], 66, "input.wrong_kind"),
        (["evaluate", "RUN", "LOG", "--by", "devise"], 78, "config.value"),
        (["score", "RUN", "WORLD", "--split", "test", "--out", "s.parquet"], 64, "usage"),
        (["score", "RUN", "nowhere.parquet", "--out", "s.parquet"], 66, "input.missing"),
        (["score", "RUN", "LOG", "--out", "s.parquet", "--keep", "devise"], 65, "data.schema_mismatch"),
    ],
)
def test_evaluate_and_score_refuse_with_code(
    arguments: list[str], code: int, error: str, pipeline: Any, as_json: Run, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    places = {"LOG": pipeline.log, "WORLD": pipeline.world, "RUN": pipeline.run}
    assert as_json(*(places.get(text, text) for text in arguments), code=code)["error"]["code"] == error
    assert list(tmp_path.iterdir()) == []


def test_evaluate_shows_value_and_interval(pipeline: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["evaluate", str(pipeline.run), str(pipeline.log)]) == 0
    captured = capsys.readouterr()
    line = next(line for line in captured.out.splitlines() if "cvr/auc@click" in line)
    assert "[" in line
    assert "next: postclick score" in captured.err


# --- systems --------------------------------------------------------------------------------------------------------


def test_systems_have_the_shape_of_the_interface(as_json: Run) -> None:
    from postclick.models.systems import MODELS

    entries = as_json("systems")
    assert [entry["key"] for entry in entries] == list(MODELS)
    for entry in entries:
        assert set(entry) == {"key", "title", "paper", "year", "heads", "arguments"}
        assert {"ctr", "cvr", "ctcvr"} <= set(entry["heads"]) <= {"ctr", "cvr", "ctcvr", "action", "ctar"}
        assert set(entry["heads"].values()) <= {"head", "derived"}
        assert all({"name", "type", "default", "paper_value", "doc"} == set(item) for item in entry["arguments"])
    heads = {entry["key"]: entry["heads"] for entry in entries}
    assert heads["esmm"] == {"ctr": "head", "cvr": "head", "ctcvr": "head"}
    assert heads["mmoe"]["cvr"] == heads["esmg"]["cvr"] == heads["esmg"]["action"] == "derived"
    assert set(heads["esm2"]) == {"ctr", "cvr", "ctcvr", "action", "ctar"}


@pytest.mark.parametrize("width", [80, 100, 120])
def test_the_table_of_systems_can_be_read(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from postclick.cli import output
    from postclick.models.catalog import describe

    monkeypatch.setattr(output, "_PIPE_WIDTH", width)
    assert call(["systems"]) == 0
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert max(len(line) for line in lines) <= width
    assert "…" not in captured.out
    for entry in describe():
        first = next(index for index, line in enumerate(lines) if line.split()[:1] == [entry["key"]])
        cells = []
        for line in lines[first:]:  # a cell that was folded goes on below
            if cells and (not line.strip() or line[1] != " "):
                break
            cells.append(line)
        year = cells[0].index(f"   {entry['year']}   ")
        start = cells[0].index(entry["title"].split()[0])
        assert " ".join(" ".join(line[start:year] for line in cells).split()) == entry["title"]
        named = " ".join(" ".join(line[year + len("   2018   ") :] for line in cells).split())
        kinds = {"head": "", "derived": " (derived)"}
        assert named == ", ".join(f"{head}{kinds[kind]}" for head, kind in entry["heads"].items())
    assert "next: postclick train" in captured.err
