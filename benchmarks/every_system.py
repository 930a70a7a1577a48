"""Every system in turn with the plain form of itself and with postclick's ESMM: `train_throughput.py --system all`."""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from numpy.typing import NDArray

from contestants import Contestant, PostclickTraining, Turns
from plain_systems import PLAIN
from plain_torch import DROPOUT, HIDDEN, PlainLoop
from postclick.data.log import LogSpec, LogSplit
from postclick.models.catalog import resolve_arguments
from postclick.training.config import TrainingConfig

BAR = 3.0
"""No system may take more than so many times the time of ESMM a row."""
TOWER = {"hidden": list(HIDDEN), "dropout": list(DROPOUT)}
HEADINGS = ("system", "plain PyTorch, rows/s", "postclick, rows/s", "ratio", "ms a step", "time a row, ESMM = 1")


@dataclass(frozen=True)
class Field:
    """What all contestants train on, and how.

    Parameters
    ----------
    split, spec
        The rows as postclick reads them.
    rows
        The same rows in memory: ids, click, conversion, action.
    sizes
        Values a field.
    config, embedding, seed
        Of every training.
    """

    split: LogSplit
    spec: LogSpec
    rows: tuple[NDArray[Any], ...]
    sizes: Sequence[int]
    config: TrainingConfig
    embedding: int
    seed: int

    def postclick(self, key: str, name: str = "postclick") -> Contestant:
        """Return postclick's way to train a system."""
        sized = {"system": key, "arguments": equal_sizes(key)}
        training = PostclickTraining(self.split, self.spec, self.config, self.embedding, self.seed, **sized)
        return Contestant(name, training.steps())

    def plain(self, key: str) -> Contestant:
        """Return the plain way to train a system."""
        torch.manual_seed(self.seed)
        model = PLAIN[key](self.sizes, self.embedding)
        return Contestant("plain", PlainLoop(model, self.rows, self.config.batch_size).steps())


def equal_sizes(key: str) -> dict[str, Any]:
    """Return the arguments that give a system the towers of all others; experts are four of 64-32-16 by default."""
    return {"tower": TOWER} if "tower" in resolve_arguments(key, {}) else {}


def print_table(field: Field, keys: Sequence[str], turns: Turns, only: str | None = None) -> None:
    """Print a row a system as it is measured, in Markdown; exits with 1 where the machine was never quiet.

    Parameters
    ----------
    field
        What is trained on.
    keys
        Systems.
    turns
        How they are timed.
    only
        ``postclick`` or ``plain`` leaves the other out.
    """
    print(f"\n| {' | '.join(HEADINGS)} |\n|---|" + "---:|" * (len(HEADINGS) - 1))
    slow, kept, run = {}, 0, 0
    for key in keys:
        esmm = field.postclick("esmm", "esmm")
        ways = [esmm, *([field.plain(key)] if key in PLAIN and only != "postclick" else [])]
        if only != "plain" and key != "esmm":
            ways.append(field.postclick(key))
        print(f"{key}:", file=sys.stderr)
        kept, run = turns.take(ways)
        if not kept:
            sys.exit(f"the machine was never quiet in {run} rounds: --others CORES lets such rounds count")
        rates = {way.name: median(way.rates) for way in ways}
        if key == "esmm":
            rates["postclick"] = rates["esmm"]
        print(row(key, rates, field.config.batch_size), flush=True)
        if "postclick" in rates and rates["esmm"] / rates["postclick"] > BAR:
            slow[key] = rates["esmm"] / rates["postclick"]
        del ways, esmm
        gc.collect()  # tables and moments of 1.3 million rows a contestant
    seconds = "processor seconds" if turns.clock is time.process_time else "seconds"
    print(f"\n{seconds}; medians of up to {turns.rounds} rounds in which others used at most {turns.others} cores")
    if only != "plain":
        print(f"bar: {BAR:g}x ESMM a row: " + (", ".join(f"{key} {x:.1f}x" for key, x in slow.items()) or "all below"))


def row(key: str, rates: dict[str, float], batch_size: int) -> str:
    """Return a line of the table; what was not timed is a dash."""
    plain, ours = rates.get("plain"), rates.get("postclick")
    cells = [
        f"`{key}`",
        "-" if plain is None else f"{plain:,.0f}",
        "-" if ours is None else f"{ours:,.0f}",
        "-" if plain is None or ours is None else f"{ours / plain:.1f}x",
        "-" if ours is None else f"{1000 * batch_size / ours:.1f}",
        "-" if ours is None else f"{rates['esmm'] / ours:.2f}",
    ]
    return f"| {' | '.join(cells)} |"
