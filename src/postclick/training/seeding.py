"""Where randomness comes from: every stream is named by (seed, purpose, counters), none is taken from another."""

from __future__ import annotations

import contextlib
import os
import zlib
from collections.abc import Iterator

import numpy as np
import torch

__all__ = ["derived_seed", "generator", "reproducible", "seed_torch"]

_CUBLAS = "CUBLAS_WORKSPACE_CONFIG"


def _entropy(seed: int, purpose: str, counters: tuple[int, ...]) -> list[int]:
    return [seed & 0xFFFFFFFFFFFFFFFF, zlib.crc32(purpose.encode()), *counters]


def generator(seed: int, purpose: str, *counters: int) -> np.random.Generator:
    """Return NumPy's generator of the stream (seed, purpose, counters); making one takes some 20 microseconds."""
    return np.random.Generator(np.random.SFC64(np.random.SeedSequence(_entropy(seed, purpose, counters))))


def derived_seed(seed: int, purpose: str, *counters: int) -> int:
    """Return a 63-bit seed of the stream (seed, purpose, counters), for libraries that take a number."""
    state = np.random.SeedSequence(_entropy(seed, purpose, counters)).generate_state(1, np.uint64)
    return int(state[0] >> np.uint64(1))


def seed_torch(seed: int, purpose: str) -> None:
    """Start PyTorch's own streams, on all devices, at (seed, purpose): ``"model"`` before it is built, for instance."""
    torch.manual_seed(derived_seed(seed, purpose))


@contextlib.contextmanager
def reproducible(device: torch.device, threads: int | None = None) -> Iterator[None]:
    """Inside the block equal seeds give equal bits; thread count and flags are put back afterwards.

    On the CPU that holds at equal thread counts without further flags: nothing used here sums in an order that
    depends on timing. On CUDA the deterministic kernels are chosen, with a warning where there is none.
    """
    count = torch.get_num_threads()
    flags = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    fill = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    try:
        if threads is not None:
            torch.set_num_threads(threads)
        if device.type == "cuda":
            os.environ.setdefault(_CUBLAS, ":4096:8")
            torch.use_deterministic_algorithms(True, warn_only=True)
            # nothing here reads memory before writing it; filling it costs a pass over every new tensor
            torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        yield
    finally:
        torch.set_num_threads(count)
        if device.type == "cuda":  # not otherwise: PyTorch's setter imports its compiler, some 2 s of a short process
            torch.use_deterministic_algorithms(flags[0], warn_only=flags[1])
            torch.utils.deterministic.fill_uninitialized_memory = fill  # type: ignore[attr-defined]
