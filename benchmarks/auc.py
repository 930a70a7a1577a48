"""AUC with its interval at scale, against scikit-learn's AUC alone, in one run on this machine.

    python benchmarks/auc.py --rows 40000000

Bars: AUC with DeLong's independent-rows interval at least 5x, user-clustered at least 2x as fast as
``sklearn.metrics.roc_auc_score``; equal to it to 1e-12 on scores with many ties. The user codes are given, as
`evaluate` computes them once for all metrics. Best of `--repeat` runs each, alternating.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

import numpy as np
from sklearn.metrics import roc_auc_score

from postclick.execution import cores
from postclick.metrics import auc_interval


def timed(work: Callable[[], object]) -> tuple[float, object]:
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=40_000_000)
    parser.add_argument("--users", type=int, default=400_000)
    parser.add_argument("--rate", type=float, default=0.04, help="share of positives; Ali-CCP's clicks are 3.9 %%")
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    label = (rng.random(options.rows) < options.rate).astype(np.int8)
    odds = rng.normal(size=options.rows) + 0.8 * label
    user = rng.integers(0, options.users, options.rows).astype(np.int32)
    works: dict[str, Callable[[], object]] = {
        "scikit-learn, AUC alone": lambda: roc_auc_score(label, odds),
        "independent rows": lambda: auc_interval(odds, label),
        "clustered by user": lambda: auc_interval(odds, label, user=user),
    }
    best = dict.fromkeys(works, float("inf"))
    for _ in range(options.repeat):
        for name, work in works.items():
            best[name] = min(best[name], timed(work)[0])
    base = best["scikit-learn, AUC alone"]
    tied = np.round(odds * 20.0) / 20.0
    expected = float(roc_auc_score(label, tied))
    gaps = [abs(auc_interval(tied, label, user=who).value - expected) for who in (None, user)]  # type: ignore[operator]
    for name, seconds in best.items():
        print(f"{name:28}{seconds:9.2f} s {base / seconds:8.2f}x")
    print(f"{'largest gap on ties':28}{max(gaps):9.1e} ({len(np.unique(tied))} distinct scores)")
    report = {"rows": options.rows, "cores": cores(), "gap": max(gaps), "seconds": best}
    print(json.dumps(report | {"ratio": {name: base / seconds for name, seconds in best.items()}}))


if __name__ == "__main__":
    main()
