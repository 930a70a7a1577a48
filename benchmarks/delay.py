"""What a log that is read before its conversions have come does to a CVR, and what modelling the delay gives back.

    python benchmarks/delay.py --out delay           # some minutes on one core; goes on where it was cut off

The world `delayed` without selection (clicks are a fair sample, so that delay is the only fault), once with exponential
delays and once with a heavier tail (Weibull, shape .5). Ways to train on the same clicks:

- `waited`: `mlp` on the same log read one window later, when every outcome is known. Nobody has it; it is the ceiling.
- `negative`: `mlp`, every click without a conversion yet is one without (``immature = "negative"``). The baseline.
- `final`: `mlp`, rows whose window was still open leave the loss (``immature = "censor"``).
- `dfm`, `dfm, no end` (``cut_at_window=false``, the paper's exponential), `es-dfm`: all clicks, on the censored log.

Metrics are of the test split against the true P(conversion within the window | do(click), x). Verdicts are paired and
against `negative`; scores are the networks' own. Settings were fixed from one training each on world seed 7; worlds
here have seed 100, trainings seeds 10 and up.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch

from postclick import files
from postclick.data.log import ExposureLog
from postclick.data.options import PrepareOptions
from postclick.data.prepare import prepare
from postclick.data.scores import Scores
from postclick.data.sources.opening import open_source
from postclick.evaluation import oracle
from postclick.evaluation.compare import compare
from postclick.models.catalog import build
from postclick.models.scoring import score
from postclick.simulation import World, simulate
from postclick.training.config import TrainingConfig
from postclick.training.loop import train
from postclick.training.seeding import seed_torch
from postclick.training.stopping import loss_name

METRICS = ("cvr/auc@world", "cvr/logloss@world", "cvr/pcoc@world")
KNOBS: dict[str, Any] = {"selection": 0.0, "ctr": 0.2, "cvr": 0.16, "users": 1_000, "items": 500}
WINDOW = 4.0
WORLDS: dict[str, dict[str, Any]] = {"exponential": {}, "heavy-tail": {"delay_shape": 0.5}}
LEFT_OUT = {"heavy-tail": {"final", "dfm, no end"}}
"""What would say nothing new there."""
SYSTEMS: dict[str, tuple[str, str, Mapping[str, Any]]] = {
    "waited": ("waited", "mlp", {}),
    "negative": ("negative", "mlp", {}),
    "final": ("censor", "mlp", {}),
    "dfm": ("censor", "dfm", {}),
    "dfm, no end": ("censor", "dfm", {"cut_at_window": False}),
    "es-dfm": ("censor", "es-dfm", {}),
}
"""Label -> log, key and arguments."""
BASELINE = "negative"


def make_log(folder: Path, world: str, kind: str, exposures: int, seed: int) -> ExposureLog:
    """Simulate and prepare, or take what is there; the rows of a split are the same in every log of a world."""
    at = folder / world / kind
    if (at / "log" / files.MANIFEST).is_file():
        return ExposureLog(at / "log")
    at.mkdir(parents=True, exist_ok=True)
    knobs = {**KNOBS, **WORLDS[world], "attribution_days": WINDOW, "observed_days": WINDOW if kind == "waited" else 0.0}
    made = simulate(at / "world", world="delayed", knobs=knobs, exposures=exposures, seed=seed, force=True)
    columns = replace(made.schema.columns, immature="negative" if kind == "negative" else "censor")
    source = open_source(made.path, schema=replace(made.schema, columns=columns))
    truth, options = made.path / "truth.parquet", PrepareOptions(split="random")
    return prepare(source, at / "log", options, truth=truth, force=True, jobs=1)


def train_once(at: Path, log: ExposureLog, key: str, arguments: Mapping[str, Any], seed: int, epochs: int) -> Scores:
    """Train and return the test split's CVR, uncalibrated; what is kept at `at` is taken."""
    if at.is_file():
        with np.load(at) as kept:
            return Scores({"cvr": kept["cvr"]}, {})
    seed_torch(seed, "model")
    model = build(key, log.spec, arguments)
    watched = loss_name("cvr", "click")
    config = TrainingConfig(stop_on=watched, max_epochs=epochs, patience=6, batch_size=2000, threads=1)
    train(model, log, config, seed=seed)
    odds = score(model, log.split("test").blocks()).odds["cvr"]
    at.parent.mkdir(parents=True, exist_ok=True)
    with files.create(at) as handle:
        np.savez(handle, cvr=odds)
    return Scores({"cvr": odds}, {})


def described(log: ExposureLog, world: World) -> str:
    counted, unseen = log.ledger["splits"]["train"], world.counts["late_conversions"]
    share = unseen / (unseen + world.counts["conversions"])
    clicks, seen, open_rows = counted["clicks"], counted["conversions"], counted["immature"] / counted["rows"]
    return (
        f"{clicks:,} training clicks, {seen:,} conversions seen; windows of {open_rows:.0%} "
        f"of the rows open; {share:.1%} of the conversions had not come; mean delay {world.rates['mean_delay']:.2f} "
        f"days, window {WINDOW:g}"
    )


def report(folder: Path, world: str, seeds: Sequence[int], exposures: int, world_seed: int, epochs: int) -> list[str]:
    """Train what is missing of a world; return its table."""
    scored: dict[str, list[Scores]] = {}
    logs = {kind: make_log(folder, world, kind, exposures, world_seed) for kind in ("censor", "negative", "waited")}
    for name, (kind, key, arguments) in SYSTEMS.items():
        if name in LEFT_OUT.get(world, ()):
            continue
        for seed in seeds:
            at = folder / world / f"{name.replace(', ', '-').replace(' ', '-')}-{seed}.npz"
            began = time.monotonic()
            scored.setdefault(name, []).append(train_once(at, logs[kind], key, arguments, seed, epochs))
            print(f"{world}  {name}, seed {seed}: {time.monotonic() - began:.1f} s", flush=True)
    labels, truth = logs["censor"].split("test").labels(), logs["censor"].truth("test")
    assert truth is not None
    compared = compare(scored, labels, truth=truth, metrics=METRICS, baseline=BASELINE)
    exact = oracle(labels, truth, metrics=METRICS).metrics
    rows = ["| the truth | " + " | ".join(f"{exact[metric].value:.4f}" for metric in METRICS) + " | | | |"]
    for name in scored:
        standings = [compared.standings[metric][name] for metric in METRICS]
        cells = [f"{entry.value:.4f} ± {entry.seed_sd or 0.0:.4f}" for entry in standings]
        told = [""] * len(METRICS)
        if name != BASELINE:
            found = [compared.difference(metric, name, BASELINE) for metric in METRICS]
            told = [f"{each.value:+.4f} [{each.low:+.4f}, {each.high:+.4f}], {each.verdict}" for each in found]
        rows.append(f"| {name} | " + " | ".join([*cells, *told]) + " |")
    return [
        f"**{world}**: {described(logs['censor'], World.open(folder / world / 'censor' / 'world'))}",
        "",
        f"| trained | {' | '.join(METRICS)} | AUC against {BASELINE} | log-loss | size of ln PCOC |",
        "|---|" + "---:|" * 3 + "---|---|---|",
        *rows,
        "",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("delay"), help="folder that a cut run goes on from")
    parser.add_argument("--worlds", nargs="+", choices=list(WORLDS), default=list(WORLDS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=10)
    parser.add_argument("--exposures", type=int, default=150_000)
    parser.add_argument("--world-seed", type=int, default=100)
    parser.add_argument("--max-epochs", type=int, default=8)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    began, seeds = time.monotonic(), range(chosen.first_seed, chosen.first_seed + chosen.seeds)
    tables = [
        report(chosen.out, world, seeds, chosen.exposures, chosen.world_seed, chosen.max_epochs)
        for world in chosen.worlds
    ]
    print(
        f"\n{date.today()}, one core, torch {torch.__version__}, Python {platform.python_version()}; {chosen.seeds} "
        f"seeds, {chosen.exposures:,} exposures, {time.monotonic() - began:.0f} s\n"
    )
    print("\n".join(line for table in tables for line in table))


if __name__ == "__main__":
    main()
