"""One small log and one small training for all planted faults; their commands, and what must come out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from postclick import files, progress

CHECKPOINT_STEPS = 4
SETTINGS = {
    "embedding_size": "4",
    "tower.hidden": "[8]",
    "tower.dropout": "[0.1]",
    "training.batch_size": "256",
    "training.checks_per_epoch": "1",
    "training.checkpoint_steps": str(CHECKPOINT_STEPS),
    "training.learning_rate": "0.01",
    "training.threads": "1",
}
COMPARED = ("manifest.json", "metrics.jsonl", "evaluation.json", "config.toml", "bundle/manifest.json")


@pytest.fixture(scope="session")
def command(small_log: Any) -> Callable[..., list[str]]:
    """The arguments of a training of two epochs, thirty steps in all, into a folder."""

    def make(out: Path, *more: str) -> list[str]:
        pairs = [word for name, value in SETTINGS.items() for word in ("--set", f"{name}={value}")]
        head = ["train", str(small_log.path), "--system", "esmm", "--out", str(out), "--device", "cpu"]
        return [*head, "--seed", "3", "--max-epochs", "2", *pairs, "--quiet", *more]

    return make


@pytest.fixture(autouse=True)
def loud() -> Iterator[None]:
    """`--quiet` is a switch of the process; put it back."""
    yield
    progress.set_quiet(False)


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory, command: Callable[..., list[str]]) -> Path:
    """The uninterrupted run."""
    from postclick.cli.main import call

    out = tmp_path_factory.mktemp("whole") / "run"
    assert call(command(out)) == 0
    assert len(files.read_manifest(out, "run").files) > 5
    return out


@pytest.fixture(scope="session")
def differences(whole: Path) -> Callable[[Path], list[str]]:
    """Returns in what a run differs from the uninterrupted one: bytes of its files, and litter."""

    def find(out: Path) -> list[str]:
        found = [f"{name} differs" for name in COMPARED if _bytes(out / name) != _bytes(whole / name)]
        for folder in (out, out / "checkpoints"):
            found += [f"{path.name} was left" for path in files.leftovers(folder)]
        names = {path.name for path in out.iterdir()} ^ {path.name for path in whole.iterdir()}
        found += [f"{name} is only in one of the two" for name in sorted(names)]
        if not found:
            files.verify(out, files.read_manifest(out, "run"))
        return found

    return find


def _bytes(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


@pytest.fixture(scope="session")
def checkpoint_steps() -> int:
    return CHECKPOINT_STEPS
