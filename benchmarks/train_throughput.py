"""Rows a second of training: postclick against the ordinary PyTorch way, in turn, in one process.

    python benchmarks/train_throughput.py                                              Ali-CCP's 18 columns
    python benchmarks/train_throughput.py --fields 23 --table-rows 20000000 --embedding 16 --rounds 3    (14 GB)
    python benchmarks/train_throughput.py --check-quality                              AUC after equal epochs, too
    python benchmarks/train_throughput.py --system all                                 every system, not ESMM alone

Both train the same network (towers 128-64-32, dropout .1 .3 .3) on the same rows without L2, loader included. Ids are
drawn with a long tail (log-uniform ranks); labels depend on them. Each round times one, then the other; the ratio is
that of the medians over rounds. A round in which other processes took more than a tenth of a core is left out.
`--check-quality` then trains both for as many epochs on a simulated log, with five seeds, and compares the AUCs of its
test split, paired: equal means an interval of 95 % inside +-0.002.

`--system all`, or any key but esmm, times three contestants a system in turn: the plain PyTorch form of the system
(`plain_systems.py`), postclick's, and postclick's ESMM, all with towers 128-64-32 and four experts 64-32-16, and prints
one table. The bar: no system takes more than three times the time of ESMM a row. On a machine in use,
`--processor-time --threads 1 --others 9` counts rows a second of this process, which others only disturb by the caches.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from statistics import median

import numpy as np
import torch

from contestants import Contestant, PostclickTraining, Turns
from drawn_rows import ALI_CCP, draw, draw_action, drawn_split, table_sizes
from every_system import Field, print_table
from plain_torch import PlainTraining
from postclick.data.log import ExposureLog
from postclick.data.scores import Scores
from postclick.evaluation.compare import compare
from postclick.execution import cores
from postclick.models.scoring import score
from postclick.models.systems import MODELS
from postclick.training.config import TrainingConfig
from quality_world import described, make_log, plain_scores


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="rows a second of training: postclick against plain PyTorch")
    parser.add_argument("--system", choices=("all", *MODELS), default="esmm", help="all: a table of every system")
    parser.add_argument("--fields", type=int, default=len(ALI_CCP))
    parser.add_argument("--table-rows", type=int, help="rows of all tables together; default: Ali-CCP's sizes")
    parser.add_argument("--embedding", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=2000)
    parser.add_argument("--rows", type=int, default=400_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each contestant a round")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--others", type=float, default=0.1, help="leave out rounds in which others used more cores")
    parser.add_argument("--tries", type=int, default=3, help="at most so many times the rounds asked for")
    parser.add_argument("--processor-time", action="store_true", help="count processor seconds: a machine in use")
    parser.add_argument("--optimizer", default=TrainingConfig.optimizer)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=("postclick", "plain"), help="run one contestant, for a profile")
    parser.add_argument("--check-quality", action="store_true", help="compare AUCs after equal epochs, too")
    parser.add_argument("--quality-exposures", type=int, default=800_000, help="half of them train")
    parser.add_argument("--quality-epochs", type=int, default=2)
    parser.add_argument("--quality-seeds", type=int, default=5)
    chosen = parser.parse_args()
    if chosen.system != "esmm" and chosen.check_quality:
        parser.error("--check-quality compares ESMM with itself: leave out --system")
    return chosen


def contestants(chosen: argparse.Namespace, folder: Path) -> list[Callable[[], Contestant]]:
    """Return builders of both ways to train, on equal rows."""
    sizes = table_sizes(chosen.fields, chosen.table_rows)
    split, spec = drawn_split(folder, sizes, chosen.rows, chosen.seed)
    print(f"{len(sizes)} fields, {sum(sizes):,} table rows of {chosen.embedding}, batches of {chosen.batch_size:,}")

    def ours() -> Contestant:
        training = PostclickTraining(split, spec, settings(chosen), chosen.embedding, chosen.seed)
        return Contestant("postclick", training.steps())

    def plain() -> Contestant:
        ids, *labels = draw(chosen.rows, sizes, chosen.seed)
        told = (label.astype(np.float32) for label in labels)
        sized = {"embedding": chosen.embedding, "batch_size": chosen.batch_size, "seed": chosen.seed}
        return Contestant("plain", PlainTraining(ids.astype(np.int64), *told, sizes, **sized).steps())

    builders = {"plain": plain, "postclick": ours}
    return [builders[name] for name in builders if chosen.only in (None, name)]


def settings(chosen: argparse.Namespace) -> TrainingConfig:
    """Return the defaults of postclick but for L2, which plain PyTorch has none of here."""
    return TrainingConfig(batch_size=chosen.batch_size, optimizer=chosen.optimizer, l2_mode="none")


def turns(chosen: argparse.Namespace) -> Turns:
    clock = time.process_time if chosen.processor_time else time.perf_counter
    return Turns(chosen.rounds, chosen.seconds, chosen.others, chosen.tries, clock)


def measure(chosen: argparse.Namespace, folder: Path) -> None:
    """Time both in turn and print rows a second and their ratio."""
    ways = [build() for build in contestants(chosen, folder)]
    number, tries = turns(chosen).take(ways)
    print(f"{number} rounds kept of {tries}" + f", those in which other processes used at most {chosen.others} cores")
    if not number:
        sys.exit("the machine was never quiet")
    for way in ways:
        low, high = min(way.rates), max(way.rates)
        step = 1000 * chosen.batch_size / median(way.rates)
        print(f"{way.name:10s} {median(way.rates):12,.0f} rows/s  ({low:,.0f} to {high:,.0f}), {step:.1f} ms a step")
    if len(ways) == 2:
        print(f"ratio      {median(ways[1].rates) / median(ways[0].rates):12.1f}")


def measure_systems(chosen: argparse.Namespace, folder: Path) -> None:
    """Print a table of the systems asked for, each against the plain form of itself and against postclick's ESMM."""
    sizes = table_sizes(chosen.fields, chosen.table_rows)
    split, spec = drawn_split(folder, sizes, chosen.rows, chosen.seed, action=True)
    ids, click, conversion = draw(chosen.rows, sizes, chosen.seed)
    labels = click, conversion, draw_action(click, conversion, chosen.seed)
    rows = ids.astype(np.int64), *(label.astype(np.float32) for label in labels)
    print(f"{len(sizes)} fields, {sum(sizes):,} table rows of {chosen.embedding}, batches of {chosen.batch_size:,}")
    field = Field(split, spec, rows, sizes, settings(chosen), chosen.embedding, chosen.seed)
    keys = tuple(MODELS) if chosen.system == "all" else (chosen.system,)
    print_table(field, keys, turns(chosen), only=chosen.only)


def postclick_scores(log: ExposureLog, chosen: argparse.Namespace, seed: int) -> Scores:
    """Train for the epochs asked for; returns the scores of the test split, as the last step left the model."""
    training = PostclickTraining(log.split("train"), log.spec, settings(chosen), chosen.embedding, seed)
    steps = training.steps()
    for _ in range(chosen.quality_epochs * training.rows.num_batches(chosen.batch_size)):
        next(steps)
    return score(training.model, log.split("test").blocks())


def check_quality(chosen: argparse.Namespace, folder: Path) -> None:
    """Print the AUCs of both after equal epochs and whether they are equal."""
    log = make_log(folder, chosen.quality_exposures)
    print(f"quality: {described(log)}, {chosen.quality_epochs} epochs, {chosen.quality_seeds} seeds")
    sized = {"embedding": chosen.embedding, "batch_size": chosen.batch_size, "epochs": chosen.quality_epochs}
    scored: dict[str, list[Scores]] = {"postclick": [], "plain": []}
    for seed in range(chosen.quality_seeds):
        scored["postclick"].append(postclick_scores(log, chosen, seed))
        scored["plain"].append(plain_scores(log, **sized, seed=seed))
        print(f"quality, seed {seed} of {chosen.quality_seeds}", file=sys.stderr)
    metrics = ("ctr/auc@exposure", "ctcvr/auc@exposure", "cvr/auc@click")
    found = compare(scored, log.split("test").labels(), metrics=metrics, baseline="plain")
    for name in metrics:
        difference = found.difference(name, "postclick", "plain")
        means = ", ".join(f"{way} {found.standings[name][way].value:.4f}" for way in scored)
        verdict = "equal" if difference.equivalent() else difference.words
        print(f"{name:20s} {means}, difference {difference.low:+.4f} to {difference.high:+.4f}: {verdict}")


def main() -> None:
    chosen = arguments()
    if chosen.threads is not None:
        torch.set_num_threads(chosen.threads)
    versions = f"{date.today()}, torch {torch.__version__}, Python {platform.python_version()}"
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    print(f"{versions}, {cores()} cores, {torch.get_num_threads()} threads{load}, optimizer {chosen.optimizer}")
    with tempfile.TemporaryDirectory() as folder:
        if chosen.system == "esmm":
            measure(chosen, Path(folder))
        else:
            measure_systems(chosen, Path(folder))
    if chosen.check_quality:
        with tempfile.TemporaryDirectory() as folder:
            check_quality(chosen, Path(folder))


if __name__ == "__main__":
    main()
