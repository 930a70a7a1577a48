"""Do the intervals hold what they say? Worlds with user effects, many rows a user, replicated; no model is trained.

    python benchmarks/coverage.py --replicas 2000 --jobs 2

Each replica is 400 users drawn anew with 25 exposures each on average. A user's taste moves scores, clicks and
conversions, so rows of one user are alike. Two systems score by the features; a seed of a system tilts its score
towards a feature and adds a number a user, as trained embeddings do. An interval passes when the exact 99.9 %
binomial (Clopper-Pearson) interval of its coverage contains the nominal 0.95. The twin treats rows as independent and
must fail. The true values come from `--population` users with the true probabilities as soft labels, over seeds by
Gauss-Hermite quadrature.
"""

from __future__ import annotations

import argparse
import json
import time

from coverage_worlds import coverage
from postclick.execution import cores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
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
    report = {entry.name: {"share": entry.share, "bounds": entry.bounds, "holds": entry.holds} for entry in found}
    seconds = time.perf_counter() - start
    print(json.dumps({"replicas": options.replicas, "cores": cores(), "seconds": round(seconds), "coverage": report}))


if __name__ == "__main__":
    main()
