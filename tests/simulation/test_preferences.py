"""The world of a reward model on disk, and the way from its vectors to an evaluated run without a single id."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest

from postclick.data.prepare import prepare
from postclick.data.sources.opening import open_source
from postclick.data.truth import world_truth
from postclick.errors import ConfigError, DataError
from postclick.run import RunConfig, run
from postclick.simulation import World, simulate

FAST = {"max_epochs": 4, "learning_rate": 1e-2, "batch_size": 200, "stop_on": "ctr/logloss@exposure"}
LINEAR = {"tower": {"hidden": []}}
NONE = {"ctr": "none", "cvr": "none"}


def log_of(folder, **knobs):
    world = simulate(folder / "world", world="reward", knobs={"size": 6, **knobs}, exposures=20_000, seed=1)
    return prepare(open_source(world.path), folder / "log", truth=world_truth([str(world.path)]))


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    return log_of(tmp_path_factory.mktemp("reward"), annotation_rate=0.4)


def cvr_metrics(log, out, system, arguments):
    config = {"system": system, "arguments": arguments, "training": FAST, "calibration": NONE}
    found = run(log, RunConfig.from_dict(config), out).evaluation.to_dict()["metrics"]
    return {name: entry["value"] for name, entry in found.items() if name.startswith("cvr/")}


def test_the_world_opens_with_its_knobs_and_truth(tmp_path):
    made = simulate(tmp_path / "w", world="reward", knobs={"logged_propensity": True}, exposures=3000, seed=1)
    assert World.open(made.path) == made
    assert made.knobs.logged_propensity
    assert set(made.counts) == {"clicks", "conversions"}
    rows, truth = pq.read_table(made.path / "exposures"), made.truth()
    assert rows.column_names == ["exposure_id", "embedding", "time", "annotated", "preferred", "propensity"]
    np.testing.assert_array_equal(rows.column("propensity").to_numpy(), truth.ctr)
    assert made.rates["ctcvr"] == pytest.approx(truth.ctcvr.mean())
    assert made.counts["clicks"] == rows.column("annotated").to_numpy().sum()
    assert made.schema.columns.click == "annotated"
    assert [feature.name for feature in made.schema.features] == ["embedding"]


def test_raw_files_of_a_provider_have_no_column_for_a_vector(tmp_path):
    with pytest.raises(ConfigError, match="no column for a vector"):
        simulate(tmp_path / "w", world="reward", exposures=100, layout="ali-ccp")


def test_a_knob_of_another_world_is_unknown(tmp_path):
    with pytest.raises(ConfigError, match="cvr_spread"):
        simulate(tmp_path / "w", world="reward", exposures=100, knobs={"cvr_spread": 1.0})


def test_weighting_finds_the_better_line_over_all_rows(log, tmp_path):
    assert log.spec.table_rows == 0
    naive = cvr_metrics(log, tmp_path / "naive", "mlp", LINEAR)
    weighted = cvr_metrics(log, tmp_path / "weighted", "multi-ipw", LINEAR)
    for name in ("cvr/mae@world", "cvr/logloss@world"):
        assert weighted[name] < naive[name] - 0.003


def test_positive_rows_alone_are_learned_from_where_the_rest_are_negatives(tmp_path):
    log = log_of(tmp_path, positive_unlabelled=True, annotation_rate=0.4, preference_rate=0.4)
    with pytest.raises(DataError, match="the cvr head has one class only"):
        cvr_metrics(log, tmp_path / "clicks", "mlp", LINEAR)
    unlabelled = {"click_space": "aman", "sampling": {"negative_rate": 1.0}}
    weighted = {"imputation": "constant", "propensity": "logged", "risk": {"constant_label": 0.0}}
    naive = cvr_metrics(log, tmp_path / "naive", "mlp", LINEAR | unlabelled)
    better = cvr_metrics(log, tmp_path / "weighted", "multi-dr", LINEAR | weighted)
    assert better["cvr/mae@world"] < 0.7 * naive["cvr/mae@world"]
    assert abs(np.log(better["cvr/pcoc@world"])) < 0.3 < abs(np.log(naive["cvr/pcoc@world"]))
