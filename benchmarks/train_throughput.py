"""Rows a second of training ESMM: postclick against the ordinary PyTorch way, in turn, in one process.

    python benchmarks/train_throughput.py                                              Ali-CCP's 18 columns
    python benchmarks/train_throughput.py --fields 23 --table-rows 20000000 --embedding 16 --rounds 3    (14 GB)
    python benchmarks/train_throughput.py --check-quality                              AUC after equal epochs, too

Both train the same network (towers 128-64-32, dropout .1 .3 .3) on the same rows without L2, loader included. Ids are
drawn with a long tail (log-uniform ranks); labels depend on them. Each round times one, then the other; the ratio is
that of the medians over rounds. A round in which other processes took more than a tenth of a core is left out.
`--check-quality` then trains both for as many epochs on a simulated log, with five seeds, and compares the AUCs of its
test split, paired: equal means an interval of 95 % inside +-0.002.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from statistics import median

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from plain_torch import PlainTraining
from postclick.data.arrays import Exposures, Labels
from postclick.data.batches import TrainingRows
from postclick.data.log import BLOCK_ROWS, ExposureLog, LogSpec, LogSplit, to_arrow
from postclick.data.scores import Scores
from postclick.evaluation.compare import compare
from postclick.execution import cores
from postclick.models.batching import to_batch
from postclick.models.esmm import ESMM
from postclick.models.scoring import score
from postclick.nn.embedding import use_sparse_gradients
from postclick.schema import Schema, SparseFeature
from postclick.training.config import TrainingConfig
from postclick.training.rows import TouchedRows, drop_ids
from postclick.training.seeding import derived_seed, seed_torch
from postclick.training.step import TrainingStep
from quality_world import described, make_log, plain_scores

# SYSTEMS.md 13.2: the 18 single-valued columns of Ali-CCP as AITM prepares them
ALI_CCP = (
    *(238635, 98, 14, 3, 8, 4, 4, 3, 5, 467298, 6929, 263942, 106399, 5888, 104830, 51878),
    *(37148, 4),
)


@dataclass
class Contestant:
    """One way to train: an endless iterator of steps, and what it reached each round."""

    name: str
    steps: Iterator[int]
    rates: list[float] = field(default_factory=list)

    def run(self, seconds: float, minimum: int) -> float:
        """Train for `seconds`, but at least `minimum` steps; returns rows a second."""
        rows, taken, start = 0, 0, time.perf_counter()
        while taken < minimum or time.perf_counter() - start < seconds:
            rows += next(self.steps)
            taken += 1
        return rows / (time.perf_counter() - start)


def table_sizes(fields: int, table_rows: int | None) -> tuple[int, ...]:
    """Return values a field: Ali-CCP's, repeated to `fields` and scaled to `table_rows` in all."""
    sizes = np.array([ALI_CCP[index % len(ALI_CCP)] for index in range(fields)], np.float64)
    if table_rows is not None:
        sizes *= table_rows / sizes.sum()
    return tuple(int(size) for size in np.maximum(sizes.round(), 2))


def draw(rows: int, sizes: Sequence[int], seed: int) -> tuple[NDArray[np.int32], NDArray[np.int8], NDArray[np.int8]]:
    """Return ids from 0 within each field, [rows, F], and labels: about 10 % clicks, 10 % of them converted."""
    random = np.random.default_rng(seed)
    ids = np.empty((rows, len(sizes)), np.int32)
    click_odds, conversion_odds = np.full(rows, -2.4), np.full(rows, -2.4)
    for column, size in enumerate(sizes):
        ids[:, column] = np.minimum(size ** random.random(rows) - 1, size - 1)
        effects = random.normal(0, 1.2 / len(sizes) ** 0.5, (2, size)).astype(np.float32)
        click_odds += effects[0][ids[:, column]]
        conversion_odds += effects[1][ids[:, column]]
    click = random.random(rows) < 1 / (1 + np.exp(-click_odds))
    conversion = click & (random.random(rows) < 1 / (1 + np.exp(-conversion_odds)))
    return ids, click.astype(np.int8), conversion.astype(np.int8)


def write_split(folder: Path, ids: NDArray[np.int32], labels: Labels, sizes: Sequence[int], schema: Schema) -> LogSplit:
    """Write the rows as `prepare` lays them out, so that postclick's own loader is what is measured."""
    fields = len(sizes)
    firsts = fields + np.concatenate([[0], np.cumsum(sizes)[:-1]])
    folder.mkdir()
    empty = np.zeros((len(ids), 0), np.float32)
    exposures = Exposures((ids + firsts).astype(np.int32), empty, empty, (), labels)
    batch = to_arrow(exposures, schema)
    with pa.OSFile(str(folder / "part-00000.arrow"), "wb") as handle, pa.ipc.new_file(handle, batch.schema) as writer:
        for start in range(0, len(ids), BLOCK_ROWS):
            writer.write_batch(batch.slice(start, BLOCK_ROWS))
    return LogSplit(folder, schema)


def drawn_split(folder: Path, sizes: Sequence[int], rows: int, seed: int) -> tuple[LogSplit, LogSpec]:
    """Return drawn rows as a split on disk, and what is known of them."""
    ids, click, conversion = draw(rows, sizes, seed)
    schema = Schema(tuple(SparseFeature(f"f{index}") for index in range(len(sizes))))
    split = write_split(folder / "train", ids, Labels(click, conversion), sizes, schema)
    return split, LogSpec(schema, len(sizes) + sum(sizes), rows, float(click.sum()), float(conversion.sum()))


class PostclickTraining:
    """postclick's own loop without its checks: loader, id dropout, record of rows, step; epochs without end."""

    def __init__(self, split: LogSplit, spec: LogSpec, config: TrainingConfig, embedding: int, seed: int) -> None:
        seed_torch(seed, "model")
        self.model = ESMM(spec, embedding_size=embedding)
        use_sparse_gradients(self.model, True)
        self.config, self.seed = config, seed
        self.step, self.touched = TrainingStep(self.model, config), TouchedRows(spec.table_rows)
        self.rows = TrainingRows(split)
        seed_torch(seed, "training")

    def steps(self) -> Iterator[int]:
        """Yield the rows of each step taken."""
        self.model.train()
        order, count, epoch = derived_seed(self.seed, "rows"), 0, 0
        while True:
            for exposures in self.rows.batches(self.config.batch_size, order, epoch):
                dropped = drop_ids(exposures, self.config.id_dropout, self.seed, count)
                self.touched.add(dropped)
                self.step(to_batch(dropped), count)
                count += 1
                yield len(exposures)
            epoch += 1


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="rows a second of training: postclick against plain PyTorch")
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
    parser.add_argument("--optimizer", default=TrainingConfig.optimizer)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=("postclick", "plain"), help="run one contestant, for a profile")
    parser.add_argument("--check-quality", action="store_true", help="compare AUCs after equal epochs, too")
    parser.add_argument("--quality-exposures", type=int, default=800_000, help="half of them train")
    parser.add_argument("--quality-epochs", type=int, default=2)
    parser.add_argument("--quality-seeds", type=int, default=5)
    return parser.parse_args()


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


def processor_time_of_others() -> tuple[float, float] | None:
    """Return (now, seconds of processor time that other processes took since the start); None off Linux."""
    try:
        fields = Path("/proc/stat").read_text("ascii").split("\n", 1)[0].split()[1:]
    except OSError:
        return None
    user, nice, system, _, _, irq, soft, stolen, *_ = (int(field) for field in fields)
    busy = (user + nice + system + irq + soft + stolen) / os.sysconf("SC_CLK_TCK")
    return time.perf_counter(), busy - time.process_time()


def others_between(before: tuple[float, float] | None, after: tuple[float, float] | None) -> float | None:
    """Return how many cores other processes kept busy between two readings."""
    if before is None or after is None:
        return None
    return max(0.0, (after[1] - before[1]) / (after[0] - before[0]))


def measure(chosen: argparse.Namespace, folder: Path) -> None:
    """Time both in turn and print rows a second and their ratio."""
    ways = [build() for build in contestants(chosen, folder)]
    for way in ways:
        way.run(0.0, 3)
    number, tries = 0, 0
    while number < chosen.rounds and tries < chosen.tries * chosen.rounds:
        tries += 1
        before = processor_time_of_others()
        rates = {way.name: way.run(chosen.seconds, 3) for way in (ways if tries % 2 else ways[::-1])}
        others = others_between(before, processor_time_of_others())
        kept = others is None or others <= chosen.others
        told = ", ".join(f"{name} {rate:,.0f} rows/s" for name, rate in sorted(rates.items()))
        noise = "" if others is None else f", others used {others:.2f} cores"
        print(f"round {number + 1}: {told}{noise}{'' if kept else ': left out'}", file=sys.stderr)
        if kept:
            number += 1
            for way in ways:
                way.rates.append(rates[way.name])
    print(f"{number} rounds kept of {tries}" + f", those in which other processes used at most {chosen.others} cores")
    if not number:
        sys.exit("the machine was never quiet")
    for way in ways:
        low, high = min(way.rates), max(way.rates)
        step = 1000 * chosen.batch_size / median(way.rates)
        print(f"{way.name:10s} {median(way.rates):12,.0f} rows/s  ({low:,.0f} to {high:,.0f}), {step:.1f} ms a step")
    if len(ways) == 2:
        print(f"ratio      {median(ways[1].rates) / median(ways[0].rates):12.1f}")


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
        measure(chosen, Path(folder))
    if chosen.check_quality:
        with tempfile.TemporaryDirectory() as folder:
            check_quality(chosen, Path(folder))


if __name__ == "__main__":
    main()
