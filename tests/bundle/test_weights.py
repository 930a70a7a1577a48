"""Weights on disk, and what is refused in their place (TRUST B03)."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest
import torch
from torch import nn

from postclick.bundle.weights import load_weights, owned, write_weights
from postclick.errors import TrustError


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.register_buffer("seen", torch.zeros(4, dtype=torch.int64))


def written(model, tmp_path):
    write_weights(tmp_path / "weights", model)
    return (tmp_path / "weights").read_bytes()


def test_meta_model_takes_over_the_tensors_of_the_file(tmp_path):
    model = Small()
    model.seen += 7
    data = written(model, tmp_path)
    with torch.device("meta"):
        empty = Small()
    assert not owned(empty)
    load_weights(empty, data)
    assert owned(empty)
    assert torch.equal(empty.linear.weight, model.linear.weight)
    assert empty.seen.tolist() == [7] * 4
    assert data == written(model, tmp_path)


def frame(header, body=b""):
    text = json.dumps(header).encode() if isinstance(header, dict) else header
    return len(text).to_bytes(8, "little") + text + body


def entry(shape, start, end, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


HOSTILE = {
    "empty": b"",
    "short": b"\x01",
    "huge header": (2**62).to_bytes(8, "little") + b"{}",
    "header past the end": (100).to_bytes(8, "little") + b"{}",
    "not json": frame(b"{{{{{{{{"),
    "overflowing shape": frame({"a": entry([2**40, 2**40], 0, 8)}, bytes(8)),
    "negative shape": frame({"a": entry([-1], 0, 4)}, bytes(4)),
    "shape larger than the data": frame({"a": entry([1000], 0, 4)}, bytes(4)),
    "overlap": frame({"a": entry([2], 0, 8), "b": entry([2], 4, 12)}, bytes(12)),
    "offsets past the end": frame({"a": entry([2], 0, 8)}, bytes(4)),
    "unknown type": frame({"a": entry([1], 0, 4, "PICKLE")}, bytes(4)),
    "type that lies": frame({"a": entry([1], 0, 4, "F64")}, bytes(4)),
    "trailing bytes": frame({"a": entry([1], 0, 4)}, bytes(400)),
    "too many tensors": frame({f"t{index}": entry([0], 0, 0) for index in range(5000)}),
    "pickle of protocol 0": b"(lp0\nI1\na.",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused_at_once(name):
    seconds = []
    for _ in range(3):  # the best of three: another process may have the core
        start = time.monotonic()
        with pytest.raises(TrustError, match=r"bundle\.malformed"):
            load_weights(Small(), HOSTILE[name])
        seconds.append(time.monotonic() - start)
    assert min(seconds) < 0.1


MEMORY = """
import resource, sys
from pathlib import Path
from torch import nn
from postclick.bundle.weights import load_weights
from postclick.errors import TrustError

small = nn.Linear(3, 2)
files = [path.read_bytes() for path in sorted(Path(sys.argv[1]).iterdir())]
before = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (before + 64 * 1024 * 1024,) * 2)
for data in files:
    try:
        load_weights(small, data)
    except TrustError:
        print("refused")
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the address space is limited as Linux counts it")
def test_hostile_files_fill_no_memory(tmp_path):
    for name, data in HOSTILE.items():
        (tmp_path / name).write_bytes(data)
    done = subprocess.run([sys.executable, "-c", MEMORY, tmp_path], capture_output=True, text=True, check=False)
    assert (done.stdout.split(), done.stderr) == (["refused"] * len(HOSTILE), "")


def test_other_names_shapes_and_types_are_listed_together(tmp_path):
    other = Small()
    other.linear = nn.Linear(3, 5)
    other.register_buffer("seen", torch.zeros(4))
    other.extra = nn.Parameter(torch.zeros(1))
    with pytest.raises(TrustError) as caught:
        load_weights(Small(), written(other, tmp_path))
    assert [finding.where for finding in caught.value.findings] == ["extra", "linear.bias", "linear.weight", "seen"]
    assert "the system has torch.float32 [2], the file torch.float32 [5]" in str(caught.value)
