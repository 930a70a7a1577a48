from __future__ import annotations

import subprocess
import sys

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from postclick.training.seeding import derived_seed, generator, reproducible, seed_torch


def test_streams_are_named() -> None:
    first = generator(1, "rows", 3).integers(0, 2**62, 4)
    assert np.array_equal(first, generator(1, "rows", 3).integers(0, 2**62, 4))
    for other in (generator(2, "rows", 3), generator(1, "ids", 3), generator(1, "rows", 4), generator(1, "rows")):
        assert not np.array_equal(first, other.integers(0, 2**62, 4))


@given(st.integers(-(2**63), 2**64), st.text(max_size=8))
def test_any_seed_and_purpose_gives_a_63_bit_number(seed: int, purpose: str) -> None:
    value = derived_seed(seed, purpose)
    assert 0 <= value < 2**63
    assert value == derived_seed(seed, purpose)


def test_torch_is_seeded_by_purpose() -> None:
    seed_torch(5, "model")
    first = torch.rand(3)
    seed_torch(5, "training")
    assert not torch.equal(first, torch.rand(3))
    seed_torch(5, "model")
    assert torch.equal(first, torch.rand(3))


def test_threads_are_put_back() -> None:
    before = torch.get_num_threads()
    with reproducible(torch.device("cpu"), threads=1):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before


def test_on_the_cpu_nothing_imports_the_compiler_of_torch():
    code = (
        "import sys, torch\n"
        "from postclick.training.seeding import reproducible\n"
        "with reproducible(torch.device('cpu')): pass\n"
        "sys.exit('torch._dynamo' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
