"""Do the intervals of the debiased estimates hold what they say, where overlap is right? No model is trained.

    python benchmarks/causal_coverage.py --replicas 2000 --jobs 2

Each replica is 400 users drawn anew with 25 exposures each on average; a user's taste moves clicks and conversions. The
propensity is the true one, at least 0.01, and no floor is set; the predicted CVR is wrong. An interval passes when
the exact 99.9 % binomial interval of its coverage contains 0.95. The naive interval is held against the value over
clicks, which it should cover, and against the value over exposures, which it should miss under selection.
"""

from __future__ import annotations

import argparse
import json
import time

from causal_worlds import coverage
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
