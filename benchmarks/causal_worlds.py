"""Exposures with user effects whose propensity is known, and the debiased intervals of one replica: `causal_coverage`.

A module of its own, so that worker processes can import it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from coverage_worlds import Coverage, pieces, sigmoid
from postclick.data.arrays import Labels
from postclick.data.scores import Scores
from postclick.evaluation import EvaluationRows, evaluate
from postclick.execution import ordered_map
from postclick.metrics import DEBIASED, ESTIMATORS
from postclick.metrics.probability import cross_entropy

Floats = NDArray[np.float64]
USERS, ROWS, LEAST = 400, 25.0, 0.01
NAMES = tuple(f"cvr/{metric}[estimator={estimator}]@exposure" for metric in DEBIASED for estimator in ESTIMATORS)
WORLDS = {"CTR 16 %": (-2.2, 1.0), "CTR 8 %": (-3.2, 1.0), "no selection": (-2.2, 0.0)}
"""Name -> intercept of the CTR's logit, and the weight in it of the latent that also moves the CVR."""


@dataclass(frozen=True)
class Draw:
    """Exposures of freshly drawn users: [B] user codes, true probabilities, log-odds that a system predicts."""

    user: NDArray[np.int64]
    ctr: Floats
    cvr: Floats
    odds: Floats


def draw(rng: np.random.Generator, world: str, users: int, *, single: bool = False) -> Draw:
    base, selection = WORLDS[world]
    count = 1 + rng.poisson(rng.gamma(2.0, (ROWS - 1.0) / 2.0, users))
    user = np.arange(users) if single else np.repeat(np.arange(users), count)
    taste, effect, other = rng.normal(size=(3, users))
    tastes = 0.8 * taste[user] + 0.6 * rng.normal(size=len(user))
    item = rng.normal(size=len(user))
    ctr = sigmoid(base + selection * tastes + 0.7 * selection * item + 0.5 * effect[user])
    cvr = sigmoid(-1.5 + 0.9 * tastes + 0.6 * item + 0.4 * effect[user] * selection + 0.5 * other[user])
    # the propensity is bounded away from 0, and the system's cvr is wrong: too flat, and too high
    return Draw(user, LEAST + (1.0 - LEAST) * ctr, cvr, np.asarray(-1.2 + 0.5 * tastes + 0.3 * item))


def truths(world: str, users: int, seed: int) -> dict[str, tuple[float, float]]:
    """Return, a metric, its value over exposures and over clicks."""
    drawn = draw(np.random.default_rng([seed, 0]), world, users, single=True)
    found = {}
    for metric in DEBIASED:
        column = drawn.cvr if metric == "mean" else cross_entropy(drawn.odds, drawn.cvr)
        found[metric] = float(column.mean()), float(drawn.ctr @ column / drawn.ctr.sum())
    return found


def replica(number: int, world: str, seed: int) -> dict[str, tuple[float, float]]:
    """Return one replica's intervals by name."""
    rng = np.random.default_rng([seed, 1, number])
    drawn = draw(rng, world, USERS)
    click = (rng.random(len(drawn.ctr)) < drawn.ctr).astype(np.int8)
    conversion = click * (rng.random(len(click)) < drawn.cvr).astype(np.int8)
    labels = Labels(click, conversion, user_id=drawn.user, propensity=drawn.ctr)
    scores = Scores({"ctr": np.log(drawn.ctr / (1.0 - drawn.ctr)), "cvr": drawn.odds}, {})
    found = evaluate(EvaluationRows(labels, scores, propensity_floor=0.0), metrics=NAMES)
    # a withheld or open interval covers nothing
    return {name: (found[name].low or 0.0, found[name].high or 0.0) for name in NAMES}


def chunk(piece: tuple[int, int], *, world: str, seed: int) -> list[dict[str, tuple[float, float]]]:
    return [replica(number, world, seed) for number in range(*piece)]


def coverage(replicas: int, *, population: int, jobs: int = 1, seed: int = 0) -> list[Coverage]:
    """Return the coverage of every interval of every world, the naive ones also against the value over exposures."""
    found = []
    for world in WORLDS:
        truth = truths(world, population, seed)
        work = partial(chunk, world=world, seed=seed)
        drawn = [row for rows in ordered_map(work, pieces(replicas, jobs), jobs=jobs) for row in rows]
        for name in NAMES:
            metric = name.removeprefix("cvr/").partition("[")[0]
            naive = "naive" in name
            ends = np.array([row[name] for row in drawn])
            found.append(_count(f"{world}: {name}", ends, truth[metric][naive]))
            if naive:
                found.append(_count(f"{world}: {name}, of the exposures' value", ends, truth[metric][0]))
    return found


def _count(name: str, ends: Floats, value: float) -> Coverage:
    below, above = int((ends[:, 1] < value).sum()), int((ends[:, 0] > value).sum())
    return Coverage(name, len(ends), len(ends) - below - above, below, above)
