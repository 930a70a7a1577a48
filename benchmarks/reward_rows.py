"""Rows of the CausalRM protocol from your own vectors and graded labels (arXiv 2603.18736).

    python benchmarks/reward_rows.py LABELLED.parquet OUT --embedding embedding --label label --protocol positive

Writes ``train.parquet``, ``test.parquet`` and ``schema.toml`` for ``postclick prepare``. y = 1 where the label is over
the median of the levels that occur. Labels are rescaled to 1..5 and a row is looked at with chance
pi = min(k alpha^(5 - label), 1), k such that their mean is --rate. ``positive``, the protocol: only positive rows that
are looked at are annotated; ``both``: whatever is looked at is. A fifth of the rows is the test split, where every row
is annotated with its clean label.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from postclick import files
from postclick.schema import Columns, EmbeddingFeature, Schema


def propensities(label: np.ndarray, rate: float, alpha: float) -> np.ndarray:
    """Return min(k alpha^(5 - l), 1), [n], l the labels on 1..5, k such that the mean is `rate`."""
    low, high = label.min(), label.max()
    decay = alpha ** (4.0 * (high - label) / (high - low))
    least, most = 0.0, 1.0 / decay.min()
    for _ in range(100):
        middle = 0.5 * (least + most)
        least, most = (middle, most) if np.minimum(middle * decay, 1.0).mean() < rate else (least, middle)
    return np.minimum(least * decay, 1.0)


def annotate(label: np.ndarray, *, rate: float, alpha: float, protocol: str, seed: int) -> dict[str, np.ndarray]:
    """Return the columns of all rows, and which are in the test split, as ``test``."""
    rng = np.random.default_rng(seed)
    positive = label > np.median(np.unique(label))
    chance = propensities(label.astype(np.float64), rate, alpha)
    looked_at = rng.random(len(label)) < chance
    test = np.zeros(len(label), bool)
    test[rng.permutation(len(label))[: len(label) // 5]] = True
    annotated = test | (looked_at & positive if protocol == "positive" else looked_at)
    return {
        "exposure_id": np.arange(1, len(label) + 1),
        "annotated": annotated.astype(np.int8),
        "preferred": (annotated & positive).astype(np.int8),
        "propensity": np.where(test, 1.0, chance),
        "test": test,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--embedding", default="embedding")
    parser.add_argument("--label", default="label")
    parser.add_argument("--protocol", choices=["positive", "both"], default="positive")
    parser.add_argument("--rate", type=float, default=0.2)
    parser.add_argument("--alpha", type=float, default=0.5)
    parser.add_argument("--seed", type=int, default=42)
    given = parser.parse_args()
    rows = pq.read_table(given.source, columns=[given.embedding, given.label])
    label = np.asarray(rows.column(given.label), np.float64)
    columns = annotate(label, rate=given.rate, alpha=given.alpha, protocol=given.protocol, seed=given.seed)
    test = columns.pop("test")
    vector = rows.column(given.embedding).combine_chunks()
    table = pa.table({"embedding": vector, **{name: pa.array(values) for name, values in columns.items()}})
    size = len(vector[0])
    names = Columns(click="annotated", conversion="preferred", exposure_id="exposure_id", propensity="propensity")
    given.out.mkdir(parents=True, exist_ok=True)
    for name, part in (("train", ~test), ("test", test)):
        with files.create(given.out / f"{name}.parquet") as handle:
            pq.write_table(table.filter(pa.array(part)), handle)
    files.write_text(given.out / "schema.toml", Schema((EmbeddingFeature("embedding", size),), names).to_toml())
    annotated = int(columns["annotated"][~test].sum())
    print(f"{int((~test).sum())} training rows, {annotated} of them annotated; {int(test.sum())} test rows")


if __name__ == "__main__":
    main()
