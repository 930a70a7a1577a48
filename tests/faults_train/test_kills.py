"""kill -9 anywhere in `postclick train`, then `--resume`: the hash of the uninterrupted run, every time."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from postclick import files

pytestmark = pytest.mark.faults
DRIVER = Path(__file__).with_name("driver.py")
STAGES = ("step", "validation check", "checkpoint write", "bundle write", "final evaluation", "other files")
PLANNED = {
    "step": 10,
    "validation check": 4,
    "checkpoint write": 12,
    "bundle write": 10,
    "final evaluation": 5,
    "other files": 5,
}
RANDOM = 12
WORKERS = 2
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
Command = Callable[..., list[str]]
Differences = Callable[[Path], list[str]]


@dataclass
class Story:
    """What happened to one run: where it was killed, and what was wrong afterwards."""

    kills: list[str]
    wrong: list[str] = field(default_factory=list)


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=ENVIRONMENT)


def newest(out: Path) -> int:
    """Step of the newest checkpoint that can be seen; 0 without one."""
    return max((int(path.name[5:]) for path in (out / "checkpoints").glob("step-*")), default=0)


def planned(out: Path, plans: tuple[str, ...], command: Command, differences: Differences, interval: int) -> Story:
    """Kill one run at each of `plans` in turn, resuming in between and at the end."""
    story = Story([plan.removeprefix("twin:").split(":")[0] for plan in plans])
    for number, plan in enumerate(plans):
        before = newest(out)
        more = ["--resume"] if number else []
        done = python(str(DRIVER), plan, *command(out, *more))
        if done.returncode != -signal.SIGKILL:
            story.wrong.append(f"{plan}: not killed but {done.returncode}: {done.stderr[-300:]}")
        if plan.startswith("step:"):  # two moments a step
            at = before + (int(plan.split(":")[1]) - 1) // 2
            if at - newest(out) > interval:
                story.wrong.append(f"{plan}: killed in step {at}, the newest checkpoint is of step {newest(out)}")
    return finish(out, story, command, differences)


def finish(out: Path, story: Story, command: Command, differences: Differences) -> Story:
    """Resume to the end and compare."""
    done = python("-m", "postclick", *command(out, "--resume"))
    if done.returncode != 0:
        story.wrong.append(f"--resume ended with {done.returncode}: {done.stderr[:300]}")
    elif "ckpt.fell_back" in done.stderr:
        story.wrong.append(f"a damaged checkpoint was seen: {done.stderr[-300:]}")
    else:
        story.wrong += differences(out)
    return story


def at_random(out: Path, share: float, seconds: float, command: Command, differences: Differences) -> Story:
    """Kill one run from outside at a share of its usual duration; the disk tells in which stage it was."""
    arguments = [sys.executable, "-m", "postclick", *command(out)]
    with subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=ENVIRONMENT) as process:
        wait_for(out / "config.toml", process)
        time.sleep(share * seconds)
        process.kill()
        code = process.wait(60)
    story = Story([stage_on_disk(out)] if code == -signal.SIGKILL else [])
    return finish(out, story, command, differences)


def wait_for(path: Path, process: subprocess.Popen[bytes]) -> None:
    while not path.exists() and process.poll() is None:
        time.sleep(0.002)


def stage_on_disk(out: Path) -> str:
    """Tell from what a kill left where it struck; what leaves no trace was a step, or its check."""
    if any(files.leftovers(out / "checkpoints")):
        return "checkpoint write"
    if any(path.name.startswith(".bundle.") for path in files.leftovers(out)):
        return "bundle write"
    if any(files.leftovers(out)):
        return "other files"
    if (out / "manifest.json").exists():
        return "final evaluation"
    return "other files" if (out / "bundle").exists() else "step"


def spread(total: int, count: int) -> list[int]:
    """Return `count` numbers of 1..`total`, evenly, both ends among them."""
    return sorted({1 + round(index * (total - 1) / max(count - 1, 1)) for index in range(count)})


def plans(moments: dict[str, int]) -> list[tuple[str, ...]]:
    """One kill a run, spread over each stage; then several kills of one run."""
    single = [(f"{stage}:{nth}",) for stage, count in PLANNED.items() for nth in spread(moments[stage], count)]
    chains = [
        ("step:1", "step:1", "checkpoint write:1", "bundle write:1"),
        ("step:13", "checkpoint write:9", "validation check:1", "bundle write:20", "final evaluation:2"),
        ("checkpoint write:12", "checkpoint write:12", "checkpoint write:12", "checkpoint write:12"),
        ("bundle write:5", "bundle write:5", "bundle write:40", "other files:3", "final evaluation:5"),
    ]
    return [*single, *chains]


def table(stories: list[Story]) -> str:
    """Kills by stage, and what became of the runs."""
    kills = Counter(kill for story in stories for kill in story.kills)
    lost = sum(bool(story.wrong) for story in stories)
    lines = [f"{'killed in':<20}{'kills':>6}"] + [f"{stage:<20}{kills[stage]:>6}" for stage in STAGES]
    lines.append(f"{'all':<20}{kills.total():>6}")
    lines.append(f"{len(stories)} runs: survived with an equal hash {len(stories) - lost}, lost {lost}")
    return "\n".join(lines)


@pytest.fixture(scope="session")
def moments(tmp_path_factory: pytest.TempPathFactory, command: Command) -> dict[str, int]:
    """How many moments each stage has, from a rehearsal."""
    folder = tmp_path_factory.mktemp("moments")
    done = python(str(DRIVER), f"count:{folder / 'moments.json'}", *command(folder / "run"))
    assert done.returncode == 0, done.stderr
    counted: dict[str, int] = json.loads((folder / "moments.json").read_text())
    assert set(counted) == set(STAGES)
    return counted


@pytest.fixture(scope="session")
def seconds(tmp_path_factory: pytest.TempPathFactory, command: Command) -> float:
    """How long a run takes from its first file to its last, with `WORKERS` at once."""

    def one(number: int) -> float:
        out = tmp_path_factory.mktemp("seconds") / str(number)
        arguments = [sys.executable, "-m", "postclick", *command(out)]
        with subprocess.Popen(arguments, stdout=subprocess.DEVNULL, env=ENVIRONMENT) as process:
            wait_for(out / "config.toml", process)
            began = time.monotonic()
            wait_for(out / "evaluation.json", process)
            return time.monotonic() - began

    with ThreadPoolExecutor(WORKERS) as pool:
        return max(pool.map(one, range(WORKERS)))


def test_every_kill_is_survived(
    tmp_path: Path,
    command: Command,
    moments: dict[str, int],
    seconds: float,
    differences: Differences,
    checkpoint_steps: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    random.seed(20261)
    shares = [random.random() for _ in range(RANDOM)]
    with ThreadPoolExecutor(WORKERS) as pool:
        jobs = [
            pool.submit(planned, tmp_path / f"planned{number}", plan, command, differences, checkpoint_steps)
            for number, plan in enumerate(plans(moments))
        ]
        jobs += [
            pool.submit(at_random, tmp_path / f"random{number}", share, seconds, command, differences)
            for number, share in enumerate(shares)
        ]
        stories = [job.result() for job in jobs]
    with capsys.disabled():
        print(f"\nkill -9 in postclick train\n{table(stories)}")
    assert [(story.kills, story.wrong) for story in stories if story.wrong] == []
    kills = Counter(kill for story in stories for kill in story.kills)
    assert kills.total() >= 50
    assert all(kills[stage] > 0 for stage in STAGES)


def test_a_twin_that_saves_in_place_is_lost(
    tmp_path: Path,
    command: Command,
    differences: Differences,
    checkpoint_steps: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    numbers = range(7, 17, 2)
    with ThreadPoolExecutor(WORKERS) as pool:
        jobs = [
            pool.submit(
                planned,
                tmp_path / str(number),
                (f"twin:checkpoint write:{number}",),
                command,
                differences,
                checkpoint_steps,
            )
            for number in numbers
        ]
        stories = [job.result() for job in jobs]
    with capsys.disabled():
        print(f"\nthe same with checkpoints written in place\n{table(stories)}")
    assert any("ckpt.corrupt" in wrong for story in stories for wrong in story.wrong)
    assert not any("not killed" in wrong for story in stories for wrong in story.wrong)
