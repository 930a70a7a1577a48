import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
TWIN = "ctr/auc@exposure, rows taken as independent"


def load(name):
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_every_interval_covers_and_the_planted_twin_does_not():
    found = {entry.name: entry for entry in load("coverage_worlds").coverage(200, population=300_000, seeds=(1, 3))}
    twin = found.pop(TWIN)
    assert not twin.holds
    assert twin.bounds[1] < 0.95
    assert len(found) == 16
    assert {name: entry.share for name, entry in found.items() if not entry.holds} == {}


def test_bounds_are_clopper_and_pearsons():
    coverage = load("coverage_worlds").Coverage
    # all of n: the lower end solves p^n = 0.0005; none: 1 - (1 - p)^n
    assert coverage("x", 50, 50, 0, 0).bounds == pytest.approx((0.0005 ** (1 / 50), 1.0))
    assert coverage("x", 50, 0, 50, 0).bounds == pytest.approx((0.0, 1 - 0.0005 ** (1 / 50)))


@pytest.mark.slow
def test_two_thousand_replicas_cover():
    command = [sys.executable, str(BENCHMARKS / "coverage.py"), "--replicas", "2000"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found = json.loads(done.stdout.splitlines()[-1])["coverage"]
    assert not found.pop(TWIN)["holds"]
    assert len(found) == 23
    assert {name: entry for name, entry in found.items() if not entry["holds"]} == {}
