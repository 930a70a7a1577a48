"""What differs between equal runs and is worth knowing later: source, versions, memory; for ``record.jsonl`` alone."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

from postclick.bundle.header import installed_versions

__all__ = ["hashed", "peak_memory", "provenance", "restart_peak"]

_PROCESS = Path("/proc/self")


def hashed(value: Any) -> str:
    """Return the SHA-256 of a plain value's JSON, keys sorted."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


@functools.cache
def provenance() -> dict[str, Any]:
    """Return the source's commit where postclick runs from a checkout, and what is installed."""
    return {"commit": _commit(), "versions": installed_versions()}


def _commit() -> str | None:
    """Return what ``git describe`` says of the checkout that this code lies in; None outside one."""
    root = Path(__file__).resolve().parents[3]
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty"]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    return None


def restart_peak() -> None:
    """Let the peak of this process's memory start anew, where the system can do that (Linux)."""
    with contextlib.suppress(OSError):
        (_PROCESS / "clear_refs").write_text("5", "ascii")


def peak_memory() -> int:
    """Return the largest resident size in bytes since `restart_peak`; elsewhere than on Linux, of the whole process."""
    with contextlib.suppress(OSError, StopIteration):
        lines = (_PROCESS / "status").read_text("ascii").splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) << 10
    scale = 1 if sys.platform == "darwin" else 1 << 10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale
