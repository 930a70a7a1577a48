"""Ways to train that are timed in turn, and how quiet the machine was meanwhile."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from postclick.data.batches import TrainingRows
from postclick.data.log import LogSpec, LogSplit
from postclick.models.batching import to_batch
from postclick.models.catalog import build
from postclick.nn.embedding import use_sparse_gradients
from postclick.training.config import TrainingConfig
from postclick.training.rows import TouchedRows, drop_ids
from postclick.training.seeding import derived_seed, seed_torch
from postclick.training.step import TrainingStep


@dataclass
class Contestant:
    """One way to train: an endless iterator of steps, and what it reached each round."""

    name: str
    steps: Iterator[int]
    rates: list[float] = field(default_factory=list)

    def run(self, seconds: float, minimum: int, clock: Callable[[], float] = time.perf_counter) -> float:
        """Train for `seconds` of the clock, but at least `minimum` steps; returns rows a second."""
        rows, taken, start = 0, 0, clock()
        while taken < minimum or clock() - start < seconds:
            rows += next(self.steps)
            taken += 1
        return rows / (clock() - start)


class PostclickTraining:
    """postclick's own loop without its checks: loader, id dropout, record of rows, step; epochs without end."""

    def __init__(
        self,
        split: LogSplit,
        spec: LogSpec,
        config: TrainingConfig,
        embedding: int,
        seed: int,
        *,
        system: str = "esmm",
        arguments: Mapping[str, Any] | None = None,
    ) -> None:
        seed_torch(seed, "model")
        self.model = build(system, spec, {"embedding_size": embedding, **(arguments or {})})
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


@dataclass(frozen=True)
class Turns:
    """How often and how long contestants are timed, and how quiet the machine has to be."""

    rounds: int
    seconds: float
    others: float
    tries: int
    clock: Callable[[], float] = time.perf_counter

    def take(self, ways: Sequence[Contestant]) -> tuple[int, int]:
        """Time `ways` in turn, adding to their rates; returns rounds kept and rounds run."""
        for way in ways:
            way.run(0.0, 3)
        kept, run = 0, 0
        while kept < self.rounds and run < self.tries * self.rounds:
            run += 1
            before = processor_time_of_others()
            rates = {way.name: way.run(self.seconds, 3, self.clock) for way in (ways if run % 2 else ways[::-1])}
            others = others_between(before, processor_time_of_others())
            quiet = others is None or others <= self.others
            told = ", ".join(f"{name} {rate:,.0f} rows/s" for name, rate in sorted(rates.items()))
            noise = "" if others is None else f", others used {others:.2f} cores"
            print(f"round {kept + 1}: {told}{noise}{'' if quiet else ': left out'}", file=sys.stderr)
            if quiet:
                kept += 1
                for way in ways:
                    way.rates.append(rates[way.name])
        return kept, run
