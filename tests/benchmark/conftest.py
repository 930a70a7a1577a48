"""A small experiment, run once."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import tomli_w

from postclick.benchmark import run_benchmark

METRICS = ["cvr/auc@world", "cvr/pcoc@world", "ctr/ks@exposure", "cvr/brier@world", "ctcvr/recall[top=0.07]@exposure"]
SMALL: dict[str, Any] = {
    "data": {
        "small": {"world": "selection", "exposures": 6000, "seed": 1, "set": {"ctr": 0.3, "cvr": 0.3}},
        "absent": {"source": "ali-ccp"},
    },
    "training": {"max_epochs": 1},
    "run": [
        {"system": "mlp", "label": "MLP on clicks"},
        {"system": "esmm", "set": {"embedding_size": 4, "training": {"learning_rate": 2e-3}}},
    ],
    "seeds": {"count": 2},
    "grid": {"over": {"training.l2": [1e-6, 1e-2]}},
    "table": {"metrics": METRICS, "baseline": "MLP on clicks"},
}


@pytest.fixture
def small() -> dict[str, Any]:
    return copy.deepcopy(SMALL)


@pytest.fixture(scope="session")
def benchmark_folder(tmp_path_factory):
    """The experiment file, the BENCHMARK folder and what came of it."""
    folder = tmp_path_factory.mktemp("benchmark")
    path = folder / "experiment.toml"
    path.write_text(tomli_w.dumps(SMALL), "utf-8")
    board = run_benchmark(path, folder / "out")
    return path, folder / "out", board
