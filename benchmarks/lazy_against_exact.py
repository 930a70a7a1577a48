"""Lazy against exact Adam, and row-wise Adagrad: quality and speed of ESMM by what moves the embedding table.

    python benchmarks/lazy_against_exact.py                        # Markdown on stdout, some minutes

Every optimiser gets the same seeds, the same log and early stopping on the same rows. Metrics are of the test split,
means over seeds with their standard deviation; a difference from the default is paired and judged as in `compare`.
Speed is of the step with its loader, in turn, on two tables: the log's own and one with Ali-CCP's 1.28 M rows.
"""

from __future__ import annotations

import argparse
import platform
import sys
import tempfile
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from statistics import mean, median

import torch

from contestants import Contestant, PostclickTraining
from drawn_rows import ALI_CCP, drawn_split
from postclick.data.log import ExposureLog
from postclick.data.scores import Scores
from postclick.evaluation.compare import compare
from postclick.evaluation.comparison import Comparison
from postclick.execution import cores
from postclick.models.esmm import ESMM
from postclick.models.scoring import score
from postclick.training.config import TrainingConfig
from postclick.training.loop import train
from postclick.training.seeding import seed_torch
from quality_world import METRICS, described, make_log

EMBEDDING = 8


@dataclass(frozen=True)
class Way:
    """A row of the table."""

    name: str
    config: TrainingConfig


def ways(epochs: int) -> list[Way]:
    """Return what is compared, the default first; all without L2 but the last, which shows what coupled L2 does."""
    base = TrainingConfig(max_epochs=epochs, l2_mode="none")
    exact = replace(base, optimizer="exact_adam")
    adagrad = replace(base, optimizer="rowwise_adagrad")
    return [
        Way("`lazy_rmsprop`", base),
        Way("`lazy_adam`", replace(base, optimizer="lazy_adam")),
        Way("`exact_adam`", exact),
        Way("`rowwise_adagrad`, rate 0.03", replace(adagrad, table_learning_rate=0.03)),
        Way("`rowwise_adagrad`, rate 0.1", replace(adagrad, table_learning_rate=0.1)),
        Way("`exact_adam`, `coupled_dense` 1e-6", replace(exact, l2_mode="coupled_dense", l2=1e-6)),
    ]


def scores_of(log: ExposureLog, config: TrainingConfig, seed: int) -> tuple[Scores, int]:
    """Train once; returns scores of the test split and the steps to the best check."""
    seed_torch(seed, "model")
    model = ESMM(log.spec, embedding_size=EMBEDDING)
    result = train(model, log, config, seed=seed)
    return score(model, log.split("test").blocks()), result.best_step or 0


def speeds(log: ExposureLog, found: list[Way], rounds: int, seconds: float, folder: Path) -> list[list[float]]:
    """Return rows a second of each way, on the log and on Ali-CCP's table sizes; medians over rounds in turn."""
    folder.mkdir()
    taken = []
    for split, spec in ((log.split("train"), log.spec), drawn_split(folder, ALI_CCP, 200_000, 0)):
        running = [
            Contestant(way.name, PostclickTraining(split, spec, way.config, EMBEDDING, 0).steps()) for way in found
        ]
        for contestant in running:
            contestant.run(0.0, 5)
        for _ in range(rounds):
            for contestant in running:
                contestant.rates.append(contestant.run(seconds, 5))
        taken.append([median(contestant.rates) for contestant in running])
        print(f"speed  {', '.join(f'{rate:,.0f}' for rate in taken[-1])} rows/s", file=sys.stderr)
    return [list(pair) for pair in zip(*taken, strict=True)]


def markdown(found: list[Way], compared: Comparison, steps: list[float], rates: list[list[float]]) -> str:
    """Return the table."""
    shown = [name.split("@")[0] for name in METRICS]
    lines = [
        f"| table moved by | rows/s, log | rows/s, 1.28 M rows | steps | {' | '.join(shown)} | against the default |",
        "|---|" + "---:|" * (3 + len(METRICS)) + "---|",
    ]
    for way, taken, (small, large) in zip(found, steps, rates, strict=True):
        cells = [f"{small:,.0f}", f"{large:,.0f}", f"{taken:,.0f}"]
        for name in METRICS:
            standing = compared.standings[name][way.name]
            cells.append(f"{standing.value:.4f} ± {standing.seed_sd:.4f}")
        lines.append(f"| {way.name} | " + " | ".join(cells) + f" | {_verdicts(compared, way, found[0])} |")
    return "\n".join(lines)


def _verdicts(compared: Comparison, way: Way, default: Way) -> str:
    """Say for each metric what the paired comparison says."""
    if way == default:
        return "the default"
    words = []
    for name in METRICS:
        difference = compared.difference(name, way.name, default.name)
        verdict = "equal" if difference.equivalent() else difference.verdict
        words.append(f"{name.split('@')[0]} {verdict}")
    return ", ".join(words)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--exposures", type=int, default=800_000, help="half of them train")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--max-epochs", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5, help="of speed")
    parser.add_argument("--seconds", type=float, default=2.0, help="of speed, a round")
    parser.add_argument("--threads", type=int)
    chosen = parser.parse_args()
    if chosen.threads is not None:
        torch.set_num_threads(chosen.threads)
    found = ways(chosen.max_epochs)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        log = make_log(folder, chosen.exposures)
        machine = f"{cores()} cores, {torch.get_num_threads()} threads, torch {torch.__version__}"
        print(
            f"{date.today()}, {machine}, Python {platform.python_version()}; {described(log)}; {chosen.seeds} seeds\n"
        )
        rates = speeds(log, found, chosen.rounds, chosen.seconds, folder / "drawn")
        scored: dict[str, list[Scores]] = {}
        steps: list[float] = []
        for way in found:
            trained = [scores_of(log, way.config, seed) for seed in range(chosen.seeds)]
            scored[way.name] = [scores for scores, _ in trained]
            steps.append(mean(best for _, best in trained))
            print(f"train  {way.name}", file=sys.stderr)
        labels = log.split("test").labels()
        compared = compare(scored, labels, metrics=METRICS, baseline=found[0].name)
    print(markdown(found, compared, steps, rates))


if __name__ == "__main__":
    main()
