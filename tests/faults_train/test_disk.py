"""Every n-th operation on the disk fails, n = 1, 2, ... until the run gets through: nothing half-made, nothing lost."""

from __future__ import annotations

import errno
import io
import itertools
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import pytest
import torch

from postclick import files
from postclick.bundle import Bundle
from postclick.cli.main import call
from postclick.training.checkpoint import CheckpointFolder, write_tensors

pytestmark = pytest.mark.faults
NO_SPACE, FAILED, SHORT = "no space", "I/O error", "short write, then no space"
CODES = {NO_SPACE: "io.no_space", FAILED: "io.failed", SHORT: "io.no_space"}
KNOWN = {"config.toml", "metrics.jsonl", "record.jsonl", "manifest.json", "evaluation.json", "checkpoints", "bundle"}
Command = Callable[..., list[str]]
Differences = Callable[[Path], list[str]]


class FailingOperations(files.Operations):
    """Fails the n-th open, write, flush or rename; notes which checkpoints got their name."""

    def __init__(self, nth: int, kind: str) -> None:
        self.left, self.kind = nth, kind
        self.failed = ""
        self.named: list[int] = []

    def count(self, operation: str) -> None:
        """Let one operation pass, or fail it."""
        if self.due(operation):
            number = errno.EIO if self.kind == FAILED else errno.ENOSPC
            raise OSError(number, os.strerror(number))

    def due(self, operation: str) -> bool:
        """Whether this operation is the one."""
        if self.kind == SHORT and operation != "write":
            return False
        self.left -= 1
        if self.left == 0:
            self.failed = operation
        return self.left == 0

    def open(self, path: Path, mode: str, permissions: int = 0o666) -> IO[Any]:
        self.count("open")
        with super().open(path, mode, permissions) as handle:
            raw = _Failing(os.dup(handle.fileno()), mode)
        raw.operations = self
        return io.BufferedWriter(raw)

    def sync(self, handle: IO[Any]) -> None:
        handle.flush()
        self.count("sync")
        super().sync(handle)

    def sync_folder(self, path: Path) -> None:
        self.count("sync of a folder")
        super().sync_folder(path)

    def rename(self, source: Path, target: Path) -> None:
        self.count("rename")
        super().rename(source, target)
        if target.name.startswith("step-"):
            self.named.append(int(target.name[5:]))


class _Failing(io.FileIO):
    operations: FailingOperations

    def write(self, data: Any) -> int:
        if self.operations.kind == SHORT and self.operations.due("write"):
            view = memoryview(data).cast("B")
            super().write(view[: max(len(view) // 2, 1)])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if self.operations.kind != SHORT:
            self.operations.count("write")
        return super().write(data) or 0


class _ShortWrites(files.Operations):
    """Every write takes at most half of what it is given, as a disk may; nothing fails."""

    def open(self, path: Path, mode: str, permissions: int = 0o666) -> IO[Any]:
        with super().open(path, mode, permissions) as handle:
            return io.BufferedWriter(_Short(os.dup(handle.fileno()), mode))


class _Short(io.FileIO):
    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        return super().write(view[: max(len(view) // 2, 1)]) or 0


def half_made(out: Path, named: list[int]) -> Iterator[str]:
    """Whatever a reader could take for whole and is not, and any litter."""
    if not out.exists():
        return
    for folder in (out, out / "checkpoints"):
        yield from (f"{path.name} was left" for path in files.leftovers(folder))
    yield from (f"{path.name} has no place here" for path in out.iterdir() if path.name not in {*KNOWN, ".lock"})
    steps = [int(path.name[5:]) for path in (out / "checkpoints").glob("step-*")]
    if max(steps, default=0) != max(named, default=0):
        yield f"checkpoints {named} were written, {steps} are there"
    manifests = [
        *out.glob("checkpoints/step-*"),
        *out.glob("bundle"),
        *(path.parent for path in out.glob(files.MANIFEST)),
    ]
    for folder in manifests:
        files.verify(folder, files.read_manifest(folder))
    if (out / "bundle").exists():
        Bundle.load(out / "bundle")
    for name in ("metrics.jsonl", "record.jsonl"):
        lines = (out / name).read_text() if (out / name).exists() else ""
        for line in lines.splitlines():
            json.loads(line)
        if lines and not lines.endswith("\n"):
            yield f"{name} ends in half a line"
    if (out / "evaluation.json").exists():
        files.read_json(out / "evaluation.json")


def fail_and_resume(
    out: Path, nth: int, kind: str, command: Command, differences: Differences, printed: Callable[[], Any]
) -> tuple[str, list[str]]:
    """Train with the n-th operation failing, then resume; returns what failed ("" for nothing) and what was wrong."""
    operations = FailingOperations(nth, kind)
    with files.swap_operations(operations):
        code = call(command(out, "--json"))
    if not operations.failed:
        return "", [] if code == 0 else [f"ended with {code}"]
    wrong = []
    said = json.loads(printed().out).get("error", {})
    if (code, said.get("code")) != (74, CODES[kind]):
        wrong.append(f"ended with {code}, {said}")
    try:
        wrong += half_made(out, operations.named)
        code = call(command(out, "--resume"))
        text = printed().err
        wrong += differences(out) if code == 0 else [f"--resume ended with {code}: {text}"]
    except Exception as error:
        wrong.append(f"{type(error).__name__}: {error}")
    return operations.failed, [f"{kind} at operation {nth}, {operations.failed}: {what}" for what in wrong]


@pytest.mark.parametrize("kind", [NO_SPACE, FAILED, SHORT])
def test_every_failing_operation_is_survived(
    tmp_path: Path, command: Command, differences: Differences, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    failed: dict[str, int] = {}
    problems: list[str] = []
    for nth in itertools.count(1):
        operation, wrong = fail_and_resume(tmp_path / str(nth), nth, kind, command, differences, capsys.readouterr)
        problems += wrong
        if not operation:
            break
        failed[operation] = failed.get(operation, 0) + 1
    with capsys.disabled():
        counts = ", ".join(f"{count} {operation}" for operation, count in failed.items())
        print(f"\n{kind}: {sum(failed.values())} operations failed one by one ({counts}); lost {len(problems)}")
    assert problems == []
    assert set(failed) == ({"write"} if kind == SHORT else {"open", "write", "sync", "sync of a folder", "rename"})
    assert sum(failed.values()) > 50


def test_a_disk_that_takes_half_of_each_write_is_no_failure(
    tmp_path: Path, command: Command, differences: Differences
) -> None:
    with files.swap_operations(_ShortWrites()):
        assert call(command(tmp_path / "run")) == 0
    assert differences(tmp_path / "run") == []


def save_in_place(
    self: CheckpointFolder, step: int, tensors: Mapping[str, torch.Tensor], state: Mapping[str, Any]
) -> Path:
    """Save as is commonly done: over the one checkpoint there is."""
    places = self._places()
    place = places[-1] if places else self.path / "step-00000004"
    place.mkdir(parents=True, exist_ok=True)
    # a new file under the old name: a resumed run still has the old one mapped, and truncating that is a bus error
    (place / "tensors.safetensors").unlink(missing_ok=True)
    with files.operations.open(place / "tensors.safetensors", "wb") as handle:
        write_tensors(handle, tensors)
    with files.operations.open(place / "state.json", "wb") as handle:
        handle.write(json.dumps({"format": 1, "step": step, **state}).encode())
    files.write_manifest(place, "checkpoint")
    return place


def test_a_twin_that_saves_in_place_is_caught(
    tmp_path: Path,
    command: Command,
    differences: Differences,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(CheckpointFolder, "save", save_in_place)
    caught: list[str] = []
    for nth in range(6, 36, 3):
        caught += fail_and_resume(tmp_path / str(nth), nth, NO_SPACE, command, differences, capsys.readouterr)[1]
    assert any("data.corrupt_file" in problem for problem in caught)  # a torn checkpoint under its final name
