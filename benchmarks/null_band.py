"""Does the ECE of calibrated scores lie in its null band as often as the band says? Replicated; no model is trained.

    python benchmarks/null_band.py --replicas 2000

Labels are drawn from the scores themselves, so the scores are perfectly calibrated. Cases: common and rare positives,
unequal sample weights, Field-RCE by a column, and rows of users that are alike, which the band (independent rows) does
not claim to cover. A case passes when the exact 99.9 % binomial (Clopper-Pearson) interval of its share inside the
band contains the nominal 0.95. Prints one line a case.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
from scipy.stats import binomtest

from postclick.metrics import Estimate, ece, field_rce, slice_sums

ROWS = 2_500


def scores(rng: np.random.Generator, mean: float) -> tuple[np.ndarray, np.ndarray]:
    """Return log-odds and their own probabilities."""
    odds = rng.normal(mean, 1.0, ROWS)
    return odds, 1.0 / (1.0 + np.exp(-odds))


def plain(rng: np.random.Generator, seed: int, mean: float) -> Estimate:
    """ECE of independent rows."""
    odds, chance = scores(rng, mean)
    return ece(odds, (rng.random(ROWS) < chance).astype(np.int8), seed=seed)


def weighted(rng: np.random.Generator, seed: int) -> Estimate:
    """ECE with weights between 0.2 and 5."""
    odds, chance = scores(rng, -1.0)
    weight = np.exp(rng.uniform(np.log(0.2), np.log(5.0), ROWS))
    return ece(odds, (rng.random(ROWS) < chance).astype(np.int8), weight, seed=seed)


def by_field(rng: np.random.Generator, seed: int) -> Estimate:
    """Field-RCE over 20 slices."""
    odds, chance = scores(rng, -1.0)
    label = (rng.random(ROWS) < chance).astype(np.int8)
    return field_rce(slice_sums(odds, label, rng.integers(0, 20, ROWS)), label, seed=seed)


def alike(rng: np.random.Generator, seed: int) -> Estimate:
    """ECE where the 25 rows of a user share a draw half of the time: outside what the band claims."""
    odds, chance = scores(rng, -1.0)
    shared = np.repeat(rng.random(ROWS // 25), 25)
    own = np.where(rng.random(ROWS) < 0.5, shared, rng.random(ROWS))
    return ece(odds, (own < chance).astype(np.int8), seed=seed)


CASES: dict[str, tuple[Callable[[np.random.Generator, int], Estimate], bool]] = {
    "ECE, 30 % positives": (lambda rng, seed: plain(rng, seed, -1.0), True),
    "ECE, 3 % positives": (lambda rng, seed: plain(rng, seed, -4.0), True),
    "ECE, sample weights": (weighted, True),
    "Field-RCE, 20 slices": (by_field, True),
    "ECE, rows of a user alike (not claimed)": (alike, False),
}


def main() -> None:
    """Print the share of replicas inside the band, a case a line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replicas", type=int, default=2000)
    parser.add_argument("--case", default="", help="only cases whose name holds this text")
    options = parser.parse_args()
    replicas = options.replicas
    failed = []
    print("| case | inside the band | 99.9 % interval | |\n|---|---|---|---|")
    for name, (draw, claimed) in CASES.items():
        if options.case not in name:
            continue
        inside = 0
        for seed in range(replicas):
            found = draw(np.random.default_rng([seed, 17]), seed)
            inside += found.low is not None and found.low <= found.value <= found.high
        ends = binomtest(inside, replicas).proportion_ci(0.999, method="exact")
        holds = bool(ends.low <= 0.95 <= ends.high)
        verdict = ("passes" if holds else "FAILS") if claimed else "-"
        failed += [name] if claimed and not holds else []
        print(f"| {name} | {inside / replicas:.1%} | {ends.low:.1%} to {ends.high:.1%} | {verdict} |", flush=True)
    raise SystemExit(f"outside: {', '.join(failed)}" if failed else 0)


if __name__ == "__main__":
    main()
