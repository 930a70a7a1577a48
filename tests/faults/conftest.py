"""The planted faults, and a command line that tells what it said."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from postclick import progress
from postclick.cli.main import call


def _load() -> Any:
    path = Path(__file__).resolve().parents[2] / "benchmarks" / "planted.py"
    spec = importlib.util.spec_from_file_location("planted", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["planted"] = module
    spec.loader.exec_module(module)
    return module


planted = _load()


@dataclass(frozen=True)
class Said:
    """What a command line ended with: exit code, stdout, stderr."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def findings(self) -> list[dict[str, Any]]:
        return self.json["error"]["findings"]


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """Run a command line in this process; whatever happens, no traceback."""

    def run(*arguments: object) -> Said:
        capsys.readouterr()
        code = call([*map(str, arguments)])
        taken = capsys.readouterr()
        assert "Traceback" not in taken.out + taken.err
        return Said(code, taken.out, taken.err)

    return run


@pytest.fixture(autouse=True)
def loud() -> Iterator[None]:
    """`--quiet` is a switch of the process; put it back."""
    yield
    progress.set_quiet(False)
