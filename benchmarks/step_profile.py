"""Where the time of one training step goes: ESMM on Ali-CCP's 18 columns, by kind of work, one thread.

    python benchmarks/step_profile.py                          postclick and plain PyTorch, Markdown on stdout
    python benchmarks/step_profile.py --only postclick         an older checkout: PYTHONPATH=OLD/src before it

Operators are PyTorch's own self times under its profiler; Python, NumPy and what the profiler adds are the rest of the
time of a step. Times without the profiler stand in the last line.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from contestants import PostclickTraining
from drawn_rows import ALI_CCP, draw, drawn_split, table_sizes
from plain_torch import PlainTraining
from postclick.training.config import TrainingConfig

KINDS = (
    ("matrix products", ("addmm", "::mm", "bmm", "linear")),
    ("gathers of rows", ("embedding", "index_select", "gather", "index")),
    ("ReLU and dropout", ("relu", "threshold", "dropout", "bernoulli", "clamp_min")),
    ("optimiser: norms, moments, moves", ("_foreach", "addc", "lerp", "sqrt", "norm", "fused_adam", "rsqrt")),
    ("sorts and sums of row gradients", ("unique", "sort", "segment", "coalesce", "cumsum", "diff")),
    ("copies and joins", ("cat", "copy", "stack", "fill", "zero")),
    ("sums, products, log-sigmoids", ("sum", "mul", "add", "div", "sub", "sigmoid", "log", "exp", "neg")),
)


def kind_of(name: str) -> str:
    """Return the kind of work an operator does."""
    return next((kind for kind, parts in KINDS if any(part in name for part in parts)), "other operators")


def seconds_a_step(steps: Iterator[int], count: int) -> float:
    """Return the time of a step."""
    start = time.perf_counter()
    for _ in range(count):
        next(steps)
    return (time.perf_counter() - start) / count


def profiled(steps: Iterator[int], count: int) -> dict[str, float]:
    """Return milliseconds a step by kind of work; `step` is the whole without the profiler."""
    for _ in range(5):
        next(steps)
    plain = seconds_a_step(steps, count)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        under = seconds_a_step(steps, count)
    found: dict[str, float] = {}
    for event in profile.key_averages():
        kind = kind_of(event.key)
        found[kind] = found.get(kind, 0.0) + event.self_cpu_time_total / 1e3 / count
    found["Python, NumPy, the profiler"] = under * 1e3 - sum(found.values())
    found["step, without the profiler"] = plain * 1e3
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="where the time of a training step goes")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", choices=("postclick", "plain"))
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    sizes = table_sizes(len(ALI_CCP), None)
    columns: dict[str, dict[str, float]] = {}
    if chosen.only != "plain":
        with tempfile.TemporaryDirectory() as folder:
            split, spec = drawn_split(Path(folder), sizes, 200_000, 0)
            config = TrainingConfig(l2_mode="none")
            columns["postclick"] = profiled(PostclickTraining(split, spec, config, 5, 0).steps(), chosen.steps)
    if chosen.only != "postclick":
        ids, *labels = draw(200_000, sizes, 0)
        told = (label.astype(np.float32) for label in labels)
        plain = PlainTraining(ids.astype(np.int64), *told, sizes, embedding=5, batch_size=2000, seed=0)
        columns["plain PyTorch"] = profiled(plain.steps(), max(chosen.steps // 5, 5))
    rows = [*(kind for kind, _ in KINDS), "other operators", "Python, NumPy, the profiler"]
    print(f"ms a step, {chosen.threads} thread(s), torch {torch.__version__}\n")
    print("| |" + "|".join(columns) + "|\n|---|" + "---|" * len(columns))
    for row in [*rows, "step, without the profiler"]:
        print(f"| {row} | " + " | ".join(f"{column.get(row, 0.0):.2f}" for column in columns.values()) + " |")


if __name__ == "__main__":
    main()
