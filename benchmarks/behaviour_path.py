"""Behaviour-path systems on worlds with in-shop actions: who ranks the CVR best, and what the chain of factors misses.

    python benchmarks/behaviour_path.py --out behaviour-path --jobs 2          # hours; goes on where it was cut off

Worlds: conversions that no action comes before (0, 30, 60 %) x actions and purchases logged outside the exposure's
window (0, 30 %; such an action appears on an unclicked exposure). CTR 20 %, CVR 16 %, 40 % of the clicks act. The chain
is `esm2(other_action=false, purchase="direct")`: P(click) P(action | click) P(buy | action), the last factor fitted on
the exposures' own action rows; "chain, cart log" (`purchase="global"`) fits it on every row with an action, clicked or
not. Scores are the networks' own: a calibration on clicks would hide the bias that is the question.

Metrics are of the test split against the true probabilities; means over seeds, verdicts paired and judged over each
world's table as in `compare`, against esm2. "chain, exact" is the chain with every factor true.
"""

from __future__ import annotations

import argparse
import platform
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import date
from pathlib import Path
from statistics import mean

import torch

from behaviour_worlds import (
    SYSTEMS,
    Bias,
    Cell,
    Piece,
    Setting,
    Split,
    chain_bias,
    load,
    load_centred,
    make_log,
    split_truth,
    train_piece,
)
from postclick import files
from postclick.data.arrays import Labels
from postclick.evaluation import EvaluationRows, evaluate, oracle
from postclick.evaluation.compare import compare
from postclick.evaluation.comparison import Comparison
from postclick.execution import cores, ordered_map
from postclick.simulation import World

METRICS = ("cvr/auc@world", "cvr/pcoc@world", "ctcvr/logloss@world")
CELLS = tuple(Cell(without, outside) for outside in (0.0, 0.3) for without in (0.0, 0.3, 0.6))
BASELINE = "esm2"
CHAINS = ("chain", "chain, cart log")


def exact_rows(labels: Labels, test: Split, systems: Sequence[str]) -> list[str]:
    """Return the rows of the oracle and of the exact chains."""
    found = {"oracle": oracle(labels, test.truth, metrics=METRICS)}
    for system in systems:
        if system in CHAINS:
            rows = EvaluationRows(labels, test.chain_scores(system), test.truth)
            found[f"{system}, exact"] = evaluate(rows, metrics=METRICS)
    return [
        f"| {name} | " + " | ".join(f"{result[metric].value:.4f}" for metric in METRICS) + " | | |"
        for name, result in found.items()
    ]


def system_rows(compared: Comparison, steps: dict[str, float]) -> list[str]:
    """Return a row a system, with what the paired comparison says."""
    lines = []
    for name in compared.systems:
        standings = [compared.standings[metric][name] for metric in METRICS]
        cells = [f"{entry.value:.4f} ± {entry.seed_sd or 0.0:.4f}" for entry in standings]
        shown = f"{name} (derived)" if standings[0].derived else name
        lines.append(f"| {shown} | " + " | ".join(cells) + f" | {steps[name]:,.0f} | {verdicts(compared, name)} |")
    return lines


def verdicts(compared: Comparison, name: str) -> str:
    """Say for each metric how the system compares with the baseline."""
    if name == BASELINE or BASELINE not in compared.systems:
        return "" if name != BASELINE else "the baseline"
    words = []
    for metric in METRICS:
        found = compared.difference(metric, name, BASELINE)
        equal = "pcoc" not in metric and found.equivalent()
        words.append(f"{metric.split('@')[0]} {'equal' if equal else found.verdict}{interval(found.low, found.high)}")
    return "; ".join(words)


def interval(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f" [{low:+.4f}, {high:+.4f}]"


def percent(bias: Bias) -> str:
    return (
        f"{100 * bias.value:+.1f} [{100 * bias.low:+.1f}, {100 * bias.high:+.1f}]: {'yes' if bias.holds else '**no**'}"
    )


def report(pieces: Sequence[Piece], cell: Cell) -> tuple[list[str], list[str]]:
    """Return the table of a cell, and its rows of the table of biases."""
    folder, setting = pieces[0].folder, pieces[0].setting
    log, world = make_log(folder, cell, setting), World.open(folder / cell.name / "world")
    train, test = split_truth(log, world, "train"), split_truth(log, world, "test")
    labels = log.split("test").labels()
    names = list(dict.fromkeys(piece.system for piece in pieces))
    kept = {name: [load(piece) for piece in pieces if piece.system == name] for name in names}
    scored = {name: [scores for scores, _ in entries] for name, entries in kept.items()}
    steps = {name: mean(best for _, best in entries) for name, entries in kept.items()}
    baseline = BASELINE if BASELINE in scored else None
    several = len(scored) > 1
    compared = compare(scored, labels, truth=test.truth, metrics=METRICS, baseline=baseline) if several else None
    heading = f"**{100 * cell.without:g} % without action, {100 * cell.outside:g} % outside the window**: "
    table = [
        f"{heading}{log.spec.rows:,.0f} training exposures, {log.spec.conversions:,.0f} conversions, "
        f"{100 * world.rates['without_action']:.1f} % of them expected without a logged action; {test.size:,} for test",
        "",
        f"| system | {' | '.join(METRICS)} | steps | against {BASELINE} |",
        "|---|" + "---:|" * 4 + "---|",
        *exact_rows(labels, test, names),
        *([] if compared is None else system_rows(compared, steps)),
        "",
    ]
    means = {name: [scores.probability("ctcvr") for scores in seeds] for name, seeds in scored.items()}
    against = means.get(BASELINE)
    biases = []
    for name in (name for name in CHAINS if name in scored and len(scored[name]) > 1):
        alone = chain_bias(name, means[name], None, train, test)
        beside = percent(chain_bias(name, means[name], against, train, test)) if against else ""
        own = [load_centred(piece) for piece in pieces if piece.system == name]
        centred = percent(chain_bias(name, own, None, train, test))
        where = f"{cell.without:g} / {cell.outside:g}"
        biases.append(f"| {where} | {name} | {100 * alone.formula:+.1f} | {percent(alone)} | {centred} | {beside} |")
    return table, biases


def settle(folder: Path, setting: Setting) -> None:
    """Refuse to mix trainings of two settings in one folder."""
    folder.mkdir(parents=True, exist_ok=True)
    at = folder / "setting.json"
    if at.is_file() and files.read_json(at) != asdict(setting):
        sys.exit(f"{at} holds another setting: {files.read_json(at)}; take another --out")
    files.write_json(at, asdict(setting))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("behaviour-path"), help="folder that a cut run goes on from")
    parser.add_argument("--worlds", nargs="+", metavar="WITHOUT,OUTSIDE", help="of the six, such as 0.3,0 0.3,0.3")
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument(
        "--first-seed", type=int, default=100, help="0 to 2 chose the settings, so they confirm nothing"
    )
    parser.add_argument("--jobs", type=int, default=2, help="processes of one thread each")
    for name, value in asdict(Setting()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    return parser.parse_args()


def cells_of(worlds: Sequence[str] | None) -> tuple[Cell, ...]:
    if worlds is None:
        return CELLS
    return tuple(Cell(*(float(share) for share in world.split(","))) for world in worlds)


def main() -> None:
    chosen = arguments()
    setting = replace(Setting(), **{name: getattr(chosen, name) for name in asdict(Setting())})
    settle(chosen.out, setting)
    tables, biases = [], []
    print(
        f"{date.today()}, {cores()} cores, {chosen.jobs} processes of one thread, torch {torch.__version__}, Python "
        f"{platform.python_version()}; {chosen.seeds} seeds, {setting}",
        file=sys.stderr,
    )
    for cell in cells_of(chosen.worlds):
        make_log(chosen.out, cell, setting)
        pieces = [
            Piece(chosen.out, cell, system, seed, setting)
            for seed in range(chosen.first_seed, chosen.first_seed + chosen.seeds)
            for system in cell.systems(chosen.systems)
        ]
        missing = [piece for piece in pieces if not piece.path.is_file()]
        began = time.monotonic()
        for number, (piece, seconds) in enumerate(ordered_map(train_piece, missing, jobs=chosen.jobs), 1):
            left = (len(missing) - number) * (time.monotonic() - began) / number / 60
            print(
                f"{cell.name}  {piece.system}, seed {piece.seed}: {seconds:.0f} s; {left:.0f} min left", file=sys.stderr
            )
        table, rows = report(pieces, cell)
        tables += table
        biases += rows
    head = (
        "| without / outside | system | formula, % | measured, % [95 %]: holds | factors centred, % [95 %]: holds "
        "| less esm2's, % [95 %]: holds |"
    )
    print(
        "\n".join(
            [
                *tables,
                "Bias of the mean CTCVR over exposures, of the true mean:",
                "",
                head,
                "|---|---|---:|---|---|---|",
                *biases,
            ]
        )
    )


if __name__ == "__main__":
    main()
