"""The estimate: its words, its memory against what a search holds, its growth."""

from __future__ import annotations

import subprocess
import sys

from postclick.structure import estimate
from postclick.structure.estimate import EXACT_UP_TO


def test_the_words_say_method_size_time_and_memory():
    words = str(estimate(238_635, 45, 8, threads=2))
    assert words.startswith("approximate search of 8 neighbours among 238,635 vectors of 45: ")
    assert "on 2 threads" in words
    assert "0.3 GB beside the vectors" in words
    assert "min on 1 thread," in str(estimate(5_000_000, 45, 8, threads=1))
    assert " h on 1 thread," in str(estimate(3_000_000, 45, 8, method="exact", threads=1))


def test_the_method_goes_by_size_unless_it_is_given():
    assert estimate(EXACT_UP_TO, 20, 8).method == "exact"
    assert estimate(EXACT_UP_TO + 1, 20, 8).method == "approximate"
    assert estimate(100, 20, 8, method="approximate").method == "approximate"
    assert estimate(100, 20, 8, method="exact").pairs == 10_000


def test_thirty_million_fit_in_24_gb_with_their_vectors():
    planned = estimate(30_000_000, 45, 8, threads=2, half=True)
    assert planned.bytes + 30_000_000 * 45 * 2 < 24e9
    assert estimate(30_000_000, 45, 8, threads=2).bytes > planned.bytes


_MEASURE = """
from pathlib import Path
import numpy as np
from postclick.structure import estimate, neighbours
kinds = np.random.default_rng(0).normal(size=(4_000, 64)).astype(np.float32)  # cells of equal vectors: a short search
vectors = kinds[np.arange(120_000) % 4_000]
neighbours(vectors[:10_000], 8, method="approximate", threads=1)  # libraries and pages of the code
def peak():  # of this process alone: ru_maxrss starts at the peak of whoever started it
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
before = peak()
neighbours(vectors, 8, method="approximate", threads=1)
grown = peak() - before
print(grown / estimate(120_000, 64, 8, threads=1).bytes)
"""


def test_a_search_holds_no_more_than_the_estimate():
    done = subprocess.run([sys.executable, "-c", _MEASURE], capture_output=True, text=True, check=True)
    assert 0.2 < float(done.stdout) <= 1.0
