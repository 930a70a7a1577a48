"""A tiny world that went through the commands once, for all tests of commands."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from postclick import progress
from postclick.cli.main import call

SETTINGS = ["--set", "training.threads=1", "--set", "training.batch_size=500", "--set", "tower.hidden=[8]"]


@dataclass(frozen=True)
class Pipeline:
    """Folders of one run through the commands."""

    root: Path

    @property
    def world(self) -> Path:
        return self.root / "world"

    @property
    def log(self) -> Path:
        return self.root / "log"

    @property
    def run(self) -> Path:
        return self.root / "run"


def make(root: Path) -> Pipeline:
    """Simulate, prepare, train: each with exit code 0."""
    made = Pipeline(root)
    knobs = ["--set", "ctr=0.3", "--set", "cvr=0.3", "--set", "users=60", "--set", "items=40"]
    dropout = ["--set", "tower.dropout=[0.0]"]
    steps = [
        ["simulate", str(made.world), "--exposures", "5000", "--seed", "3", *knobs],
        ["prepare", str(made.world), "--out", str(made.log), "--min-count", "2"],
        ["train", str(made.log), "--system", "esmm", "--out", str(made.run), "--max-epochs", "1", *SETTINGS, *dropout],
    ]
    for step in steps:
        assert call([*step, "--quiet"]) == 0
    return made


@pytest.fixture(scope="session")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    return make(tmp_path_factory.mktemp("pipeline"))


@pytest.fixture(autouse=True)
def loud() -> Iterator[None]:
    """`--quiet` is a switch of the process; put it back."""
    yield
    progress.set_quiet(False)


@pytest.fixture
def as_json(capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """Run a command with --json; returns what stdout holds."""

    def run(*arguments: object, code: int = 0) -> Any:
        capsys.readouterr()
        assert call([*map(str, arguments), "--json"]) == code
        return json.loads(capsys.readouterr().out)

    return run
