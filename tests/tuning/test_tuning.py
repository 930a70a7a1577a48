from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from postclick import files
from postclick.errors import ConfigError, LockedError, StorageError, TrainingError
from postclick.run import RunConfig
from postclick.training.config import TrainingConfig
from postclick.tuning import tune
from postclick.tuning.search import Search, Trial, _Blind

CONFIG = RunConfig("esmm", training=TrainingConfig(max_epochs=1, threads=1), arguments={"embedding_size": 4})
FIXED = ["trunk", "shared_embedding", "training.batch_size"]


@pytest.fixture(scope="module")
def tuned(log, tmp_path_factory):
    out = tmp_path_factory.mktemp("tuned") / "run"
    return out, tune(log, CONFIG, out, trials=5, fixed=FIXED)


def test_the_result_is_a_run_of_the_best_setting_with_its_record(tuned):
    out, result = tuned
    assert files.read_manifest(out, "run").hash
    record = json.loads((out / "tuning.json").read_text("utf-8"))
    assert record == json.loads(json.dumps(result.to_dict()))
    assert len(record["trials"]) == 5
    values = [trial["value"] for trial in record["trials"] if trial["state"] == "complete"]
    assert record["trials"][record["best"]]["value"] == min(values)
    assert record["trials"][0]["settings"] == {}
    config = RunConfig.from_toml(out / "config.toml")
    assert config.training.learning_rate == result.trials[result.best].settings["training.learning_rate"]
    assert not list((out / "tuning").glob("trial-*"))


def test_the_comparison_on_test_is_paired_and_in_words(tuned):
    _, result = tuned
    assert result.best != 0  # one epoch of the default rate on 4,000 rows is far from done
    found = result.comparison.difference("ctcvr/logloss@exposure", "tuned", "default")
    assert found.low < found.value < found.high
    assert found.verdict in ("better", "worse", "cannot tell")


def test_a_search_cut_off_anywhere_gives_the_same_trials(tuned, log, tmp_path):
    _, result = tuned
    out, steps = tmp_path / "run", []

    def stop() -> bool:
        steps.append(0)
        return len(steps) == 4  # in the middle of a trial

    for _ in range(2):
        with pytest.raises(TrainingError, match=r"train\.interrupted"):
            tune(log, CONFIG, out, trials=5, fixed=FIXED, resume=True, should_stop=stop)
        steps.clear()
    again = tune(log, CONFIG, out, trials=5, fixed=FIXED, resume=True)
    assert again.trials == result.trials
    assert (again.run.bundle, again.best) == (result.run.bundle, result.best)


def test_more_trials_are_added_and_another_question_is_refused(tuned, log):
    out, result = tuned
    with pytest.raises(ConfigError, match=r"ckpt\.incompatible.*metric"):
        tune(log, CONFIG, out, trials=5, fixed=FIXED, metric="cvr/auc@click", resume=True)
    with pytest.raises(StorageError, match="--resume"):
        tune(log, CONFIG, out, trials=5, fixed=FIXED)
    more = tune(log, CONFIG, out, trials=6, fixed=FIXED, resume=True)
    assert more.trials[:5] == result.trials
    assert len(more.trials) == 6


def test_a_folder_that_is_none_of_ours_is_not_touched(log, tmp_path):
    (tmp_path / "mine.txt").write_text("mine", "utf-8")
    with pytest.raises(StorageError, match="not a folder of"):
        tune(log, CONFIG, tmp_path, force=True)
    assert (tmp_path / "mine.txt").read_text("utf-8") == "mine"


def test_a_search_under_way_loses_nothing_by_force(tuned, log):
    out, _ = tuned
    before = sorted(out.rglob("*"))
    with files.lock(out / "tuning"), pytest.raises(LockedError):
        tune(log, CONFIG, out, trials=5, fixed=FIXED, force=True)
    assert sorted(out.rglob("*")) == before


def test_force_begins_a_search_anew(log, tmp_path):
    out = tmp_path / "run"
    first = tune(log, CONFIG, out, trials=1, fixed=FIXED)
    (out / "tuning" / "old").write_text("of the search before", "utf-8")
    again = tune(log, replace(CONFIG, seed=3), out, trials=1, fixed=FIXED, force=True)
    assert again.run.bundle != first.run.bundle
    assert not (out / "tuning" / "old").exists()


@pytest.mark.parametrize(
    ("metric", "values", "aims"),
    [("cvr/auc@click", [0.5, 0.7], [0.5, 0.7]), ("cvr/pcoc@click", [0.5, 2.0], [np.log(2.0), np.log(2.0)])],
)
def test_what_proposes_aims_at_what_the_choice_takes(log, tmp_path, metric, values, aims):
    search = Search(log, CONFIG, tmp_path, metric, {}, None)
    before = [Trial(place, {}, value, "complete") for place, value in enumerate(values)]
    asked = search._ask(before, 2)
    assert [trial.value for trial in asked.study.trials[:2]] == pytest.approx(aims)


def test_what_chooses_sees_no_test_rows(log):
    assert "test" in log.splits
    assert "test" not in _Blind(log.path).splits


@pytest.mark.parametrize(
    ("metric", "values", "best"),
    [
        ("cvr/auc@click", [0.5, 0.7, None, 0.7], 1),
        ("ctcvr/logloss@exposure", [0.5, 0.7, None, 0.4], 3),
        ("cvr/pcoc@click", [0.5, 1.6, 1.1, 0.8], 2),
    ],
)
def test_the_best_by_the_metrics_own_direction(log, tmp_path, metric, values, best):
    search = Search(log, CONFIG, tmp_path, metric, {}, None)
    assert search.best([Trial(place, {}, value, "complete") for place, value in enumerate(values)]) == best


def test_no_value_at_all_is_said(log, tmp_path):
    search = Search(log, CONFIG, tmp_path, "cvr/auc@click", {}, None)
    with pytest.raises(TrainingError, match=r"tune\.no_value"):
        search.best([Trial(0, {}, None, "complete")])
