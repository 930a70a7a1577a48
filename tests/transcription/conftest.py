"""The modules beside this file: equations, names of weights, and the comparison. Test folders are no packages."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


def _load(name: str) -> ModuleType:
    full = f"transcription_{name}"
    if full not in sys.modules:
        spec = importlib.util.spec_from_file_location(full, Path(__file__).with_name(f"{name}.py"))
        assert spec is not None
        assert spec.loader is not None
        sys.modules[full] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[full])
    return sys.modules[full]


@pytest.fixture(scope="session")
def equations() -> ModuleType:
    return _load("equations")


@pytest.fixture(scope="session")
def state() -> ModuleType:
    return _load("state")


@pytest.fixture(scope="session")
def harness() -> ModuleType:
    return _load("harness")


@pytest.fixture(scope="session")
def parity(harness, equations, state):
    return harness.Parity(equations, state)
