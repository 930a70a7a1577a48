from __future__ import annotations

import numpy as np
import pytest

from postclick.benchmark.measured import Measured, comparable
from postclick.benchmark.rows import RunRow
from postclick.evaluation.readings import Reading
from postclick.metrics.influence import Influence

ROW = RunRow("d/l/seed-000", "d", "l", "esmm", "final", 0, "hash", metrics={"cvr/auc@click": {"value": 0.5}})
READINGS = {
    "cvr/auc@click": Reading(Influence(0.5, np.arange(6.0).reshape(2, 3), np.eye(2)), True, None, 9, 4, True),
    "ctr/auc@exposure": Reading(Influence.none("no positives"), False, "no positives", 9, 0, True),
}


def test_what_was_kept_comes_back(tmp_path):
    path = tmp_path / "shared" / "one.npz"
    Measured(ROW, READINGS).save(path)
    found = Measured.load(path)
    assert found.row == ROW
    assert list(found.readings) == list(READINGS)
    for name, reading in READINGS.items():
        other = found.readings[name]
        np.testing.assert_array_equal(other.influence.parts, reading.influence.parts)
        np.testing.assert_array_equal(other.influence.factors, reading.influence.factors)
        assert other.influence.value == pytest.approx(reading.influence.value, nan_ok=True)
        assert (other.derived, other.undefined, other.n, other.positives, other.clustered) == (
            (reading.derived, reading.undefined, reading.n, reading.positives, reading.clustered)
        )


def test_one_metric_is_read_alone(tmp_path):
    Measured(ROW, READINGS).save(tmp_path / "one.npz")
    assert list(Measured.load(tmp_path / "one.npz", only="ctr/auc@exposure").readings) == ["ctr/auc@exposure"]


def test_a_damaged_file_is_as_none(tmp_path):
    path = tmp_path / "one.npz"
    assert Measured.load(path) is None
    Measured(ROW, READINGS).save(path)
    whole = path.read_bytes()
    for cut in (0, 10, len(whole) // 2):
        path.write_bytes(whole[:cut])
        assert Measured.load(path) is None


def test_what_has_a_paired_comparison():
    names = ["cvr/auc@click", "ctr/ks@exposure", "cvr/auc@click|cold-item=1", "cvr/pcoc@world"]
    assert comparable(names) == ("cvr/auc@click", "cvr/pcoc@world")
