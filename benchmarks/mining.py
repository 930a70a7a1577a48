"""Mining neighbours against faiss's exact flat search, in one run on this machine.

    python benchmarks/mining.py                                 users 238,635 x 45 and items 467,298 x 20
    python benchmarks/mining.py --flat-queries 4096             flat search of a sample of queries, extrapolated
    python benchmarks/mining.py --vectors synthetic             no network is trained: a minute instead of many
    python benchmarks/mining.py --size 5m | --size 30m          5 or 30 million users of 45 dimensions

Bars: at least 10x as fast as ``faiss.IndexFlatIP`` at recall@8 of .99 with a peak under 3 GB; 5 M under 15 minutes at
recall .95; 30 M within 24 GB. The vectors are embeddings of 5 a feature, side by side. ``trained``: of a click network,
trained on exposures drawn from that many users and items with 64 latent groups each. ``synthetic`` (always so for 5m
and 30m): drawn as they are; half of an entity's features follow its group, its id is noise, which is harder.
Recall is by similarity on a sample of exact queries, ties are hits. Each search runs in a process of its own with a
thread a core, so that peaks are its own; the vectors are counted in, for 30m as mapped pages that the system can take
back. Flat search is asked once before its time is taken. ``(all pairs)``: so little structure that ours compared all.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from postclick.execution import cores
from postclick.structure import estimate, neighbours, recall_at

K = 8
EMBEDDING = 5
USER_FEATURES = (98, 14, 3, 8, 4, 4, 3, 5)
"""Values of Ali-CCP's user features, the id apart: with it 9 features, 45 dimensions."""
ITEM_FEATURES = (6_769, 263_942, 106_399)
SIZES = {"ali-ccp": ("users", "items"), "5m": ("5m",), "30m": ("30m",)}
COUNTS = {"users": 238_635, "items": 467_298, "5m": 5_000_000, "30m": 30_000_000}
_BLOCK = 1 << 20


def synthetic(count: int, values: tuple[int, ...], path: Path, seed: int) -> None:
    """Write float32 (float16 over 10 M) vectors, a block at a time: an id of its own, features that follow a group."""
    rng = np.random.default_rng(seed)
    tables = [rng.standard_normal((size, EMBEDDING), dtype=np.float32) for size in values]
    shares = [np.cumsum(1 / np.arange(1, size + 1) ** 0.9) for size in values]
    kind = np.float16 if count > 10_000_000 else np.float32
    shape = (count, EMBEDDING * (1 + len(values)))
    out = np.lib.format.open_memmap(path, mode="w+", dtype=kind, shape=shape)
    for start in range(0, count, _BLOCK):
        size = min(_BLOCK, count - start)
        group = rng.integers(0, 64, size)
        parts = [rng.standard_normal((size, EMBEDDING), dtype=np.float32)]
        for table, share in zip(tables, shares, strict=True):
            drawn = np.searchsorted(share, rng.random(size) * share[-1])
            value = np.where(rng.random(size) < 0.5, (group * 7919 + len(table)) % len(table), drawn)
            parts.append(table[np.minimum(value, len(table) - 1)])
        out[start : start + size] = np.concatenate(parts, axis=1)
    out.flush()


def trained(sides: tuple[str, ...], folder: Path, exposures: int, seed: int) -> None:
    """Write the vectors of a click network trained on rows drawn from synthetic users and items of these numbers."""
    import torch

    rng = np.random.default_rng(seed)
    columns, sizes = [], []
    for side in ("users", "items"):
        values = USER_FEATURES if side == "users" else ITEM_FEATURES
        group = rng.integers(0, 64, COUNTS[side])
        own = [np.arange(COUNTS[side])]
        for size in values:
            share = np.cumsum(1 / np.arange(1, size + 1) ** 0.9)
            drawn = np.minimum(np.searchsorted(share, rng.random(COUNTS[side]) * share[-1]), size - 1)
            own.append(np.where(rng.random(COUNTS[side]) < 0.5, (group * 7919 + size) % size, drawn))
        columns.append((group, np.stack(own, axis=1)))
        sizes += [COUNTS[side], *values]
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    torch.manual_seed(seed)
    table = torch.nn.Embedding(int(offsets[-1]), EMBEDDING, sparse=True)
    torch.nn.init.normal_(table.weight, std=0.05)
    width = EMBEDDING * len(sizes)
    tower = torch.nn.Sequential(
        torch.nn.Linear(width, 128), torch.nn.ReLU(), torch.nn.Linear(128, 64), torch.nn.ReLU(), torch.nn.Linear(64, 1)
    )
    taste = rng.normal(size=(64, 64))
    optimisers = (torch.optim.SparseAdam(table.parameters(), 1e-3), torch.optim.Adam(tower.parameters(), 1e-3))
    first = torch.from_numpy(offsets[:-1])
    for _ in range(0, exposures, 4096):
        user, item = (rng.integers(0, COUNTS[side], 4096) for side in ("users", "items"))
        odds = taste[columns[0][0][user], columns[1][0][item]] - 1.5
        label = torch.from_numpy((rng.random(4096) < 1 / (1 + np.exp(-odds))).astype(np.float32))
        rows = torch.from_numpy(np.concatenate([columns[0][1][user], columns[1][1][item]], axis=1)) + first
        loss = torch.nn.functional.binary_cross_entropy_with_logits(tower(table(rows).flatten(1))[:, 0], label)
        for optimiser in optimisers:
            optimiser.zero_grad()
        loss.backward()
        for optimiser in optimisers:
            optimiser.step()
    weights, place = table.weight.detach().numpy(), 0
    for side, (_, features) in zip(("users", "items"), columns, strict=True):
        rows = features + offsets[place : place + features.shape[1]]
        place += features.shape[1]
        if side in sides:
            np.save(folder / f"{side}.npy", weights[rows].reshape(len(rows), -1))


def ours(path: Path, recall: float) -> dict[str, float]:
    vectors = np.load(path, mmap_mode="r")
    began = time.perf_counter()
    found = neighbours(vectors, K, recall=recall, method="approximate", note=print)
    seconds = time.perf_counter() - began
    held, measured = peak(), recall_at(vectors, found)
    told = {"seconds": seconds, "recall": measured.value, "peak": held, "candidates": found.candidates}
    return told | {"foreseen": found.recall, "every": float(found.method == "exact")}


def flat(path: Path, queries: float) -> dict[str, float]:
    import faiss

    vectors = np.load(path).astype(np.float32)
    faiss.normalize_L2(vectors)
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    index.search(vectors[:64], K + 1)
    asked = min(int(queries) or len(vectors), len(vectors))
    rows = np.sort(np.random.default_rng(0).choice(len(vectors), asked, replace=False))
    began = time.perf_counter()
    index.search(vectors[rows], K + 1)
    seconds = (time.perf_counter() - began) * len(vectors) / asked
    return {"seconds": seconds, "asked": asked, "peak": peak(), "threads": faiss.omp_get_max_threads()}


def peak() -> int:
    """Return the largest resident size of this process, bytes; ``ru_maxrss`` would have that of its parent in it."""
    status = Path("/proc/self/status")
    if status.is_file():
        return int(next(line for line in status.read_text().splitlines() if line.startswith("VmHWM")).split()[1]) << 10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def alone(work: Callable[[Path, float], dict[str, float]], path: Path, value: float) -> dict[str, float]:
    """Run one search in a process of its own and return what it tells."""
    answer = path.with_suffix(f".{work.__name__}.json")
    process = multiprocessing.get_context("spawn").Process(target=_told, args=(work, path, value, answer))
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(f"{work.__name__} on {path.stem} ended with {process.exitcode}")
    return dict(json.loads(answer.read_text()))


def _told(work: Callable[[Path, float], dict[str, float]], path: Path, value: float, answer: Path) -> None:
    answer.write_text(json.dumps(work(path, value)))


def shape_of(path: Path) -> tuple[int, int]:
    vectors: NDArray[np.float32] = np.load(path, mmap_mode="r")
    return vectors.shape[0], vectors.shape[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=sorted(SIZES), default="ali-ccp")
    parser.add_argument("--vectors", choices=("trained", "synthetic"), default="trained")
    parser.add_argument("--exposures", type=int, default=20_000_000, help="rows that the click network is trained on")
    parser.add_argument("--flat-queries", type=int, default=0, help="queries of flat search; 0: all (5m, 30m: none)")
    parser.add_argument("--recall", type=float, default=None, help="wished; .99, and .95 for 5m and 30m")
    parser.add_argument("--shrink", type=int, default=1, help="this many times fewer entities, to try the script")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(cores())  # of the searches that are started: equal threads for both
    large, sides = options.size != "ali-ccp", SIZES[options.size]
    for side in COUNTS:
        COUNTS[side] //= options.shrink
    recall = options.recall or (0.95 if large else 0.99)
    kind = "synthetic" if large else options.vectors
    lines, report = [], {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        if kind == "trained":
            trained(sides, folder, options.exposures, options.seed)
        for side in sides:
            path = folder / f"{side}.npy"
            if kind == "synthetic":
                features = ITEM_FEATURES if side == "items" else USER_FEATURES
                synthetic(COUNTS[side], features, path, options.seed)
            mined = alone(ours, path, recall)
            peer = alone(flat, path, options.flat_queries) if not large or options.flat_queries else None
            count, width = shape_of(path)
            planned = estimate(count, width, K, half=count > 10_000_000)
            told = f"{peer['seconds']:,.1f} s" if peer else "-"
            if peer and peer["asked"] < count:
                told += f" (from {peer['asked']:,.0f} queries)"
            ratio = f"{peer['seconds'] / mined['seconds']:.1f}x" if peer else "-"
            seen = f"{mined['candidates']:,.0f}" + (" (all pairs)" if mined["every"] else "")
            lines.append(
                f"| {side}, {count:,} x {width}, {kind} | {told} | {mined['seconds']:,.1f} s | {ratio} | "
                f"{mined['recall']:.4f} | {seen} | {mined['peak'] / 1e9:.2f} GB | "
                f"{planned.bytes / 1e9:.2f} GB |"
            )
            report[side] = {"ours": mined, "flat": peer}
    print(f"| vectors ({cores()} cores) | faiss flat | ours | ratio | recall@{K} | candidates | peak | estimate |")
    print("|---|---|---|---|---|---|---|---|")
    print("\n".join(lines))
    print(json.dumps({"size": options.size, "vectors": kind, "cores": cores(), "results": report}))


if __name__ == "__main__":
    main()
