"""Worlds with user effects, two systems that score them, and the intervals of one replica: see `coverage.py`.

A module of its own, so that worker processes can import it.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta

from postclick.data.arrays import Labels
from postclick.data.scores import Scores
from postclick.evaluation import EvaluationRows, evaluate
from postclick.evaluation.compare import compare
from postclick.execution import cores, ordered_map
from postclick.metrics import auc, auc_interval, brier, logloss, ne, pcoc

LEVEL = 0.95
USERS, ROWS = 400, 25.0
SEEDS = (1, 3, 5)
TWIN = "ctr/auc@exposure, rows taken as independent"
SINGLE = ("ctr/auc@exposure", "cvr/auc@click", "cvr/logloss@click", "cvr/pcoc@click")
EQUAL = ("cvr/auc@click", "cvr/logloss@click")
PAIRED = ("cvr/auc@click", "cvr/logloss@click", "cvr/ne@click", "cvr/brier@click", "cvr/pcoc@click")
TILT, NOISE = {"a": 0.08, "b": 0.06, "a again": 0.08}, {"a": 0.3, "b": 0.25, "a again": 0.3}
Floats = NDArray[np.float64]


def sigmoid(odds: Floats) -> Floats:
    return np.asarray(1.0 / (1.0 + np.exp(-odds)))


@dataclass(frozen=True)
class Draw:
    """Exposures of freshly drawn users: [B] user codes, features and true probabilities."""

    user: NDArray[np.int64]
    taste: Floats
    item: Floats
    ctr: Floats
    cvr: Floats

    def odds(self, system: str, tilt: float, noise: Floats) -> Floats:
        """A system's cvr score; `tilt` and `noise` ([U]) are what its seed drew."""
        own = -0.7 + 0.6 * self.item + 0.5 * self.taste if system == "b" else -0.9 + 0.9 * self.item
        return np.asarray(own + TILT[system] * tilt * self.taste + NOISE[system] * noise[self.user])


def draw(rng: np.random.Generator, users: int, *, single: bool = False) -> Draw:
    count = 1 + rng.poisson(rng.gamma(2.0, (ROWS - 1.0) / 2.0, users))
    user = np.arange(users) if single else np.repeat(np.arange(users), count)
    taste, effect, other = rng.normal(size=(3, users))
    tastes = 0.8 * taste[user] + 0.6 * rng.normal(size=len(user))
    item = rng.normal(size=len(user))
    ctr = sigmoid(-1.1 + 0.6 * tastes + 0.7 * item + 0.8 * effect[user])
    cvr = sigmoid(-1.0 + 0.7 * tastes + 0.8 * item + 0.4 * effect[user] + 0.5 * other[user])
    return Draw(user, tastes, item, ctr, cvr)


def click_odds(world: Draw) -> Floats:
    return np.asarray(-1.1 + 0.8 * world.taste + 0.6 * world.item)


def truths(users: int, seed: int) -> dict[str, float]:
    """The value of every quantity over a whole population and over all seeds."""
    rng = np.random.default_rng([seed, 0])
    world = draw(rng, users, single=True)  # how many rows a user has says nothing of them: one a user is the population
    quiet = np.zeros(users)
    functions = {"auc": auc, "logloss": logloss, "ne": ne, "brier": brier, "pcoc": pcoc}

    def cvr(metric: str, odds: Floats) -> float:
        value = functions[metric](odds, world.cvr, world.ctr).value
        assert value is not None
        return float(np.log(value)) if metric == "pcoc" else value

    found = {"ctr/auc@exposure": float(auc(click_odds(world), world.ctr).value or 0.0)}
    plain = {system: world.odds(system, 0.0, quiet) for system in "ab"}
    for name in SINGLE[1:]:
        metric = name.removeprefix("cvr/").removesuffix("@click")
        found[name] = cvr(metric, plain["a"])
    nodes, weights = np.polynomial.hermite_e.hermegauss(5)
    weights = weights / weights.sum()
    for name in PAIRED:
        metric = name.removeprefix("cvr/").removesuffix("@click")
        fixed = {system: cvr(metric, plain[system]) for system in "ab"}
        seeded = dict.fromkeys("ab", 0.0)
        for system in "ab":
            for node, weight in zip(nodes, weights, strict=True):
                noise = np.random.default_rng([seed, 1, ord(system)]).normal(size=users)
                seeded[system] += weight * cvr(metric, world.odds(system, node, noise))
        for seeds in SEEDS:
            pair = fixed if seeds == 1 else seeded
            sizes = [abs(pair[system]) if metric == "pcoc" else pair[system] for system in "ab"]
            found[paired_name(name, seeds)] = sizes[0] - sizes[1]
    return found | {equal_name(name, seeds): 0.0 for name in EQUAL for seeds in SEEDS if seeds > 1}


def paired_name(name: str, seeds: int) -> str:
    return f"{name}, paired, {seeds} seed{'s' if seeds > 1 else ''}"


def equal_name(name: str, seeds: int) -> str:
    return f"{name}, equal systems, {seeds} seeds"


def replica(number: int, *, seed: int, seeds: Sequence[int]) -> dict[str, tuple[float, float]]:
    """One world's intervals by name."""
    rng = np.random.default_rng([seed, 2, number])
    world = draw(rng, USERS)
    click = (rng.random(len(world.ctr)) < world.ctr).astype(np.int8)
    conversion = click * (rng.random(len(click)) < world.cvr).astype(np.int8)
    labels = Labels(click, conversion, user_id=world.user)
    ctr, quiet = click_odds(world), np.zeros(USERS)
    plain = {system: Scores({"cvr": world.odds(system, 0.0, quiet)}, {}) for system in "ab"}
    scores = Scores({"ctr": ctr, "cvr": plain["a"].odds["cvr"]}, {})
    single = evaluate(EvaluationRows(labels, scores), metrics=SINGLE, level=LEVEL, seed=number)
    found = {name: (float(single[name].low or 0.0), float(single[name].high or 0.0)) for name in SINGLE}
    found["cvr/pcoc@click"] = tuple(np.log(found["cvr/pcoc@click"]).tolist())
    alone = auc_interval(ctr, click, level=LEVEL)
    found[TWIN] = float(alone.low or 0.0), float(alone.high or 0.0)
    trained = {
        system: [
            Scores({"cvr": world.odds(system, float(rng.normal()), rng.normal(size=USERS))}, {})
            for _ in range(max(seeds))
        ]
        for system in TILT
    }
    for count in seeds:
        systems = {system: [plain[system]] if count == 1 else trained[system][:count] for system in "ab"}
        found |= {paired_name(name, count): ends for name, ends in paired(systems, labels, PAIRED).items()}
        if count > 1:
            systems = {system: trained[system][:count] for system in ("a", "a again")}
            found |= {equal_name(name, count): ends for name, ends in paired(systems, labels, EQUAL).items()}
    return found


def paired(
    systems: Mapping[str, Sequence[Scores]], labels: Labels, metrics: Sequence[str]
) -> dict[str, tuple[float, float]]:
    compared = compare(systems, labels, metrics=metrics, level=LEVEL)
    found = {}
    for name in metrics:
        difference = compared.differences[name][0]
        assert difference.low is not None
        assert difference.high is not None
        found[name] = difference.low, difference.high
    return found


@dataclass(frozen=True)
class Coverage:
    """How often an interval held the truth, with the exact 99.9 % interval of that share."""

    name: str
    replicas: int
    hits: int
    below: int
    above: int

    @property
    def share(self) -> float:
        return self.hits / self.replicas

    @property
    def bounds(self) -> tuple[float, float]:
        misses = self.replicas - self.hits
        low = float(beta.ppf(0.0005, self.hits, misses + 1)) if self.hits else 0.0
        high = float(beta.ppf(0.9995, self.hits + 1, misses)) if misses else 1.0
        return low, high

    @property
    def holds(self) -> bool:
        low, high = self.bounds
        return low <= LEVEL <= high


def coverage(
    replicas: int, *, population: int, jobs: int = 1, seed: int = 0, seeds: Sequence[int] = SEEDS
) -> list[Coverage]:
    """Return the coverage of every interval; `below` and `above` count intervals that lie wholly on one side."""
    truth = truths(population, seed)
    truth[TWIN] = truth["ctr/auc@exposure"]
    every = list(ordered_map(partial(chunk, seed=seed, seeds=tuple(seeds)), pieces(replicas, jobs), jobs=jobs))
    counts: dict[str, list[int]] = {}
    for name, low, high in (row for rows in every for row in rows):
        count = counts.setdefault(name, [0, 0, 0])
        count[0 if low <= truth[name] <= high else 1 if high < truth[name] else 2] += 1
    return [Coverage(name, replicas, *count) for name, count in counts.items()]


def pieces(replicas: int, jobs: int) -> list[tuple[int, int]]:
    step = max(1, replicas // (4 * jobs))
    return [(start, min(start + step, replicas)) for start in range(0, replicas, step)]


def chunk(piece: tuple[int, int], *, seed: int, seeds: Sequence[int]) -> list[tuple[str, float, float]]:
    def rows() -> Iterator[tuple[str, float, float]]:
        for number in range(*piece):
            for name, (low, high) in replica(number, seed=seed, seeds=seeds).items():
                yield name, low, high

    return list(rows())


def report(coverage: Callable[..., Sequence[Coverage]], description: str | None) -> None:
    """Measure by the arguments of the command line and print a row an interval, then all of it as JSON."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replicas", type=int, default=2000)
    parser.add_argument("--population", type=int, default=4_000_000, help="users behind the true values")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    start = time.perf_counter()
    found = coverage(options.replicas, population=options.population, jobs=options.jobs, seed=options.seed)
    print("| interval | coverage | exact 99.9 % interval | contains 0.95 | too low / too high |")
    print("|---|---|---|---|---|")
    for entry in found:
        low, high = entry.bounds
        holds = "yes" if entry.holds else "**no**"
        print(
            f"| {entry.name} | {entry.share:.4f} | {low:.4f} to {high:.4f} | {holds} | {entry.below} / {entry.above} |"
        )
    shares = {entry.name: {"share": entry.share, "bounds": entry.bounds, "holds": entry.holds} for entry in found}
    seconds = time.perf_counter() - start
    print(json.dumps({"replicas": options.replicas, "cores": cores(), "seconds": round(seconds), "coverage": shares}))
